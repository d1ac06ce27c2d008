"""The rules of a patient's record: one per person and unit, one medical record number, in use or not, never deleted.

After an erasure the sealed fields of the past read as None; the state then says so, and nothing is added to the record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final, Literal, assert_never
from uuid import UUID

from command_handlers.domain.decider import Aggregate, Claim, Freed, Situation, Taken
from contracts.envelope import Json
from contracts.ids import PatientId, service_day
from contracts.patient import (
    AssignMrn,
    BirthDateInFuture,
    DeactivatePatient,
    DeathInFuture,
    DemographicsUpdated,
    ErasureReported,
    LegalHoldLifted,
    LegalHoldPlaced,
    LiftLegalHold,
    MarkDeceased,
    MrnAssigned,
    MrnNotValid,
    MrnTaken,
    PatientAlreadyRegistered,
    PatientCommands,
    PatientDeactivated,
    PatientDied,
    PatientErased,
    PatientEvents,
    PatientNotActive,
    PatientNotFound,
    PatientReactivated,
    PatientRegistered,
    PlaceLegalHold,
    ReactivatePatient,
    RecordErased,
    RegisterPatient,
    ReportErasure,
    RequestErasure,
    UnderLegalHold,
    UpdateDemographics,
)

_DEMOGRAPHICS: Final = ("first_name", "last_name", "date_of_birth", "gender", "contact", "room_number")
_REGISTRATION: Final = (*_DEMOGRAPHICS, "medical_record_number", "source_id")


@dataclass(frozen=True, slots=True)
class Patient:
    """What decisions need to know of a record; the defaults are a record nobody has opened."""

    registered: PatientRegistered | None = None
    """As it was opened; None: never."""
    who: PatientRegistered | DemographicsUpdated | None = None
    """What says last who the person is."""
    mrn: str | None = None
    """None: no record, or erased."""
    active: bool = False
    deceased_at: datetime | None = None
    holds: frozenset[UUID] = frozenset()
    """Legal holds that stand."""
    is_erased: bool = False
    """Erasure was asked for and has happened."""
    status: Literal["active", "inactive", "deceased"] = "active"
    """What was said of it last, as readers see it."""

    @property
    def erased(self) -> bool:
        """Whether the key is gone, so that nobody can tell any more who this was."""
        return self.is_erased or (self.who is not None and self.who.first_name is None)

    def require_kept(self, patient_id: PatientId) -> None:
        """Refuse what is about nobody: no such record, or one that was erased."""
        if self.registered is None:
            raise PatientNotFound(patient_id=str(patient_id))
        if self.erased:
            raise RecordErased(patient_id=str(patient_id))

    def require_active(self, patient_id: PatientId) -> None:
        """Refuse what is meant for a record in use."""
        self.require_kept(patient_id)
        if not self.active:
            raise PatientNotActive(patient_id=str(patient_id))


def mrn_claim(mrn: str) -> Claim:
    """The reservation of a medical record number within the unit."""
    return Claim("mrn", mrn)


def patient_stream(patient_id: UUID) -> str:
    """The stream of a patient's record."""
    return f"patient-{patient_id}"


def stream(command: PatientCommands, situation: Situation) -> str:
    """`patient-<patient_id>`."""
    return patient_stream(command.patient_id)


def decide(command: PatientCommands, patient: Patient, situation: Situation) -> list[PatientEvents]:
    """New events, `[]` when it is already so."""
    if isinstance(command, RegisterPatient):
        return _registered(command, patient, situation)
    patient_id = command.patient_id
    if isinstance(command, RequestErasure):
        return _erased(command, patient)
    if isinstance(command, ReportErasure):
        return [ErasureReported(patient_id=patient_id, counts=command.counts)] if patient.is_erased else []
    patient.require_kept(patient_id)
    match command:
        case PlaceLegalHold(hold_id=hold_id, reason=reason):
            placed = LegalHoldPlaced(patient_id=patient_id, hold_id=hold_id, reason=reason)
            return [] if hold_id in patient.holds else [placed]
        case LiftLegalHold(hold_id=hold_id):
            return [LegalHoldLifted(patient_id=patient_id, hold_id=hold_id)] if hold_id in patient.holds else []
        case UpdateDemographics():
            patient.require_active(patient_id)
            return _updated(command, patient, situation)
        case AssignMrn(medical_record_number=mrn):
            patient.require_active(patient_id)
            return _assigned(mrn, patient, command, situation)
        case DeactivatePatient(reason=reason):
            return [PatientDeactivated(patient_id=patient_id, reason=reason)] if patient.active else []
        case ReactivatePatient():
            return [] if patient.status == "active" else [PatientReactivated(patient_id=patient_id)]
        case MarkDeceased(deceased_at=deceased_at):
            if patient.status == "deceased" and patient.deceased_at == deceased_at:
                return []
            _require_over(deceased_at, situation)
            return [PatientDied(patient_id=patient_id, deceased_at=deceased_at)]
        case _:
            assert_never(command)


def _registered(command: RegisterPatient, patient: Patient, situation: Situation) -> list[PatientEvents]:
    if patient.registered is not None:
        told_again = _said(command, _REGISTRATION) == _said(patient.registered, _REGISTRATION)
        if told_again and command.deceased_at in (None, patient.deceased_at):
            return []
        raise PatientAlreadyRegistered(patient_id=str(command.patient_id))
    _require_born(command.date_of_birth, situation)
    _require_free(command.medical_record_number, command, situation)
    if command.deceased_at is not None:
        _require_over(command.deceased_at, situation)
    events: list[PatientEvents] = [
        PatientRegistered(
            patient_id=command.patient_id,
            medical_record_number=command.medical_record_number,
            first_name=command.first_name,
            last_name=command.last_name,
            date_of_birth=command.date_of_birth,
            gender=command.gender,
            contact=command.contact,
            room_number=command.room_number,
            source_id=command.source_id,
        )
    ]
    if command.deceased_at is not None:
        events.append(PatientDied(patient_id=command.patient_id, deceased_at=command.deceased_at))
    return events


def _erased(command: RequestErasure, patient: Patient) -> list[PatientEvents]:
    if patient.registered is None:
        raise PatientNotFound(patient_id=str(command.patient_id))
    if patient.is_erased:
        return []
    if patient.holds:
        raise UnderLegalHold(patient_id=str(command.patient_id), holds=len(patient.holds))
    return [PatientErased(patient_id=command.patient_id, basis=command.basis)]


def _updated(command: UpdateDemographics, patient: Patient, situation: Situation) -> list[PatientEvents]:
    events: list[PatientEvents] = []
    if _said(command, _DEMOGRAPHICS) != _said(patient.who, _DEMOGRAPHICS):
        _require_born(command.date_of_birth, situation)
        events.append(
            DemographicsUpdated(
                patient_id=command.patient_id,
                first_name=command.first_name,
                last_name=command.last_name,
                date_of_birth=command.date_of_birth,
                gender=command.gender,
                contact=command.contact,
                room_number=command.room_number,
            )
        )
    if command.medical_record_number is not None:
        events += _assigned(command.medical_record_number, patient, command, situation)
    return events


def _assigned(
    mrn: str, patient: Patient, command: AssignMrn | UpdateDemographics, situation: Situation
) -> list[PatientEvents]:
    if mrn == patient.mrn:
        return []
    _require_free(mrn, command, situation)
    return [MrnAssigned(patient_id=command.patient_id, medical_record_number=mrn)]


def _said(source: object, fields: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(source, name) for name in fields)


def _require_born(born: date, situation: Situation) -> None:
    if born > service_day(situation.at, situation.unit.settings.zone):
        raise BirthDateInFuture


def _require_over(died: datetime, situation: Situation) -> None:
    zone = situation.unit.settings.zone
    if service_day(died, zone) > service_day(situation.at, zone):
        raise DeathInFuture


def _require_free(mrn: str, command: PatientCommands, situation: Situation) -> None:
    if not re.fullmatch(situation.unit.settings.mrn_pattern, mrn):
        raise MrnNotValid
    if situation.holder(mrn_claim(mrn)) not in (None, patient_stream(command.patient_id)):
        raise MrnTaken


def evolve(patient: Patient, event: PatientEvents) -> Patient:
    """The record after what happened."""
    match event:
        case PatientRegistered():
            return Patient(registered=event, who=event, mrn=event.medical_record_number, active=True)
        case DemographicsUpdated():
            return replace(patient, who=event)
        case MrnAssigned(medical_record_number=mrn):
            return replace(patient, mrn=mrn)
        case PatientDeactivated():
            return replace(patient, active=False, status="inactive")
        case PatientReactivated():
            return replace(patient, active=True, deceased_at=None, status="active")
        case PatientDied(deceased_at=deceased_at):
            return replace(patient, deceased_at=deceased_at, status="deceased")
        case LegalHoldPlaced(hold_id=hold_id):
            return replace(patient, holds=patient.holds | {hold_id})
        case LegalHoldLifted(hold_id=hold_id):
            return replace(patient, holds=patient.holds - {hold_id})
        case PatientErased(patient_id=patient_id):
            # States are kept in memory between commands: nothing of the person stays in this one.
            line = PatientRegistered(patient_id=patient_id)
            return replace(patient, registered=line, who=line, mrn=None, holds=frozenset(), is_erased=True)
        case ErasureReported():
            return patient
        case _:
            assert_never(event)


def claims(patient: Patient, event: PatientEvents) -> Sequence[Taken | Freed]:
    """The medical record number is held by one record of the unit, active or not."""
    match event:
        case PatientRegistered(medical_record_number=str(mrn)):
            return (Taken(mrn_claim(mrn)),)
        case MrnAssigned(medical_record_number=str(mrn)) if patient.mrn is not None:
            return (Freed(mrn_claim(patient.mrn)), Taken(mrn_claim(mrn)))
        case PatientErased() if patient.mrn is not None:
            # Even its keyed hash would say, to whoever has the key and counts through the numbers, whose it was.
            return (Freed(mrn_claim(patient.mrn)),)
        case _:
            return ()


def answer(command: PatientCommands, patient: Patient) -> Json:
    """The record's id and, but for its registration, where it stands."""
    if isinstance(command, RegisterPatient):
        return {"id": str(command.patient_id)}
    if patient.is_erased:
        return {"id": str(command.patient_id), "status": "erased"}
    return {"id": str(command.patient_id), "status": patient.status}


PATIENT: Final = Aggregate(
    context="patient", initial=Patient(), stream=stream, decide=decide, evolve=evolve, claims=claims, answer=answer
)
