"""The rules of a visit: opened by arriving, one open per patient and class, over when discharged or cancelled.

What a visit means for the queues is in `processes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never
from uuid import UUID

from command_handlers.domain.decider import Aggregate, Claim, Freed, Situation, Taken
from command_handlers.domain.patient import PATIENT, patient_stream
from contracts.encounter import (
    AssignLocation,
    CancelVisit,
    CheckIn,
    ClinicianNotified,
    ConsultationAlreadyStarted,
    ConsultationStarted,
    Discharge,
    EncounterAlreadyExists,
    EncounterAlreadyOpen,
    EncounterClass,
    EncounterCommands,
    EncounterEvents,
    EncounterNotFound,
    EncounterNotOpen,
    EncounterStatus,
    LocationAssigned,
    MovedToDepartment,
    MoveToDepartment,
    PatientArrived,
    PatientDischarged,
    PatientTriaged,
    StartConsultation,
    Triage,
    VisitCancelled,
)
from contracts.envelope import Json
from contracts.ids import PatientId, QueueEntryId

OPEN: Final = frozenset({EncounterStatus.ARRIVED, EncounterStatus.TRIAGED, EncounterStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Encounter:
    """What decisions need to know of a visit; the defaults are a visit that never began."""

    arrived: PatientArrived | None = None
    """As it was opened; None: never."""
    status: EncounterStatus | None = None
    """None: never opened."""
    department: str = ""
    """Where it goes on now."""
    queue_entry_id: QueueEntryId | None = None
    """Its place in that department's queue."""
    acuity: int | None = None
    triage_note: str | None = None
    room: str | None = None
    discharge_note: str | None = None


def open_encounter_claim(patient_id: PatientId, encounter_class: EncounterClass) -> Claim:
    """The reservation that keeps a patient's visits of one class apart in time."""
    return Claim("open-encounter", f"{patient_id}:{encounter_class}")


def encounter_stream(encounter_id: UUID) -> str:
    """The stream of one visit."""
    return f"encounter-{encounter_id}"


def stream(command: EncounterCommands, situation: Situation) -> str:
    """`encounter-<encounter_id>`."""
    return encounter_stream(command.encounter_id)


def decide(command: EncounterCommands, encounter: Encounter, situation: Situation) -> list[EncounterEvents]:
    """New events, `[]` when it is already so."""
    if isinstance(command, CheckIn):
        return _arrived(command, encounter, situation)
    encounter_id, arrived, entry_id = command.encounter_id, encounter.arrived, encounter.queue_entry_id
    if arrived is None or entry_id is None:
        raise EncounterNotFound(encounter_id=str(encounter_id))
    if _already(command, encounter):
        return []
    if encounter.status not in OPEN:
        raise EncounterNotOpen(encounter_id=str(encounter_id), status=str(encounter.status))
    patient_id = arrived.patient_id
    match command:
        case Triage(acuity=acuity, note=note):
            return [PatientTriaged(encounter_id=encounter_id, patient_id=patient_id, acuity=acuity, note=note)]
        case AssignLocation(room=room):
            return [LocationAssigned(encounter_id=encounter_id, patient_id=patient_id, room=room)]
        case StartConsultation() | CancelVisit() if encounter.status is EncounterStatus.IN_PROGRESS:
            raise ConsultationAlreadyStarted(encounter_id=str(encounter_id))
        case StartConsultation():
            return [ConsultationStarted(encounter_id=encounter_id, patient_id=patient_id)]
        case Discharge(note=note):
            return [
                PatientDischarged(
                    encounter_id=encounter_id,
                    patient_id=patient_id,
                    department=encounter.department,
                    queue_entry_id=entry_id,
                    note=note,
                )
            ]
        case CancelVisit(reason=reason):
            return [
                VisitCancelled(
                    encounter_id=encounter_id,
                    patient_id=patient_id,
                    department=encounter.department,
                    queue_entry_id=entry_id,
                    reason=reason,
                )
            ]
        case MoveToDepartment(department=department, queue_entry_id=new_entry_id):
            return [
                MovedToDepartment(
                    encounter_id=encounter_id,
                    patient_id=patient_id,
                    department=department,
                    queue_entry_id=new_entry_id,
                )
            ]
        case _:
            assert_never(command)


def _arrived(command: CheckIn, encounter: Encounter, situation: Situation) -> list[EncounterEvents]:
    arrived = PatientArrived(
        encounter_id=command.encounter_id,
        patient_id=command.patient_id,
        department=command.department,
        queue_entry_id=command.queue_entry_id,
        priority=command.priority,
        encounter_class=command.encounter_class,
        reason=command.reason,
        practitioner_id=command.practitioner_id,
    )
    if encounter.arrived is not None:
        if encounter.arrived == arrived:
            return []
        raise EncounterAlreadyExists(encounter_id=str(command.encounter_id))
    situation.unit.require(command.department)
    situation.look(PATIENT, patient_stream(command.patient_id)).require_active(command.patient_id)
    holder = situation.holder(open_encounter_claim(command.patient_id, command.encounter_class))
    if holder is not None:
        raise EncounterAlreadyOpen(encounter_id=holder.removeprefix("encounter-"))
    notified = ClinicianNotified(
        encounter_id=command.encounter_id,
        patient_id=command.patient_id,
        department=command.department,
        queue_entry_id=command.queue_entry_id,
        priority=command.priority,
        practitioner_id=command.practitioner_id,
    )
    return [arrived, notified]


def _already(command: EncounterCommands, encounter: Encounter) -> bool:
    """Whether what is asked is so; a visit that is over takes nothing new, but being told its end again is no error."""
    match command:
        case Discharge(note=note):
            return encounter.status is EncounterStatus.FINISHED and note in (None, encounter.discharge_note)
        case CancelVisit():
            return encounter.status is EncounterStatus.CANCELLED
        case Triage(acuity=acuity, note=note):
            return encounter.status in OPEN and (acuity, note) == (encounter.acuity, encounter.triage_note)
        case AssignLocation(room=room):
            return encounter.status in OPEN and room == encounter.room
        case MoveToDepartment(department=department, queue_entry_id=entry_id):
            return (department, entry_id) == (encounter.department, encounter.queue_entry_id)
        case _:
            return False


def evolve(encounter: Encounter, event: EncounterEvents) -> Encounter:
    """The visit after what happened."""
    match event:
        case PatientArrived(department=department, queue_entry_id=entry_id):
            return Encounter(event, EncounterStatus.ARRIVED, department, entry_id)
        case ClinicianNotified():
            return encounter
        case PatientTriaged(acuity=acuity, note=note):
            # Acuity may be assessed again during the consultation, which goes on.
            waits = encounter.status is not EncounterStatus.IN_PROGRESS
            status = EncounterStatus.TRIAGED if waits else encounter.status
            return replace(encounter, status=status, acuity=acuity, triage_note=note)
        case LocationAssigned(room=room):
            return replace(encounter, room=room)
        case ConsultationStarted():
            return replace(encounter, status=EncounterStatus.IN_PROGRESS)
        case PatientDischarged(note=note):
            return replace(encounter, status=EncounterStatus.FINISHED, discharge_note=note)
        case VisitCancelled():
            return replace(encounter, status=EncounterStatus.CANCELLED)
        case MovedToDepartment(department=department, queue_entry_id=entry_id):
            return replace(encounter, department=department, queue_entry_id=entry_id)
        case _:
            assert_never(event)


def claims(encounter: Encounter, event: EncounterEvents) -> Sequence[Taken | Freed]:
    """A patient has one open visit of each class at a unit."""
    match event:
        case PatientArrived(patient_id=patient_id, encounter_class=encounter_class):
            return (Taken(open_encounter_claim(patient_id, encounter_class)),)
        case PatientDischarged() | VisitCancelled() if encounter.arrived is not None:
            return (Freed(open_encounter_claim(event.patient_id, encounter.arrived.encounter_class)),)
        case _:
            return ()


def answer(command: EncounterCommands, encounter: Encounter) -> Json:
    """The visit's id and where it stands; a check-in is told its place too; what only follows adds nothing."""
    match command:
        case CheckIn():
            return {"encounterId": str(command.encounter_id), "queueEntryId": str(command.queue_entry_id)}
        case MoveToDepartment():
            return {}
        case _:
            return {"id": str(command.encounter_id), "status": encounter.status}


ENCOUNTER: Final = Aggregate(
    context="encounter", initial=Encounter(), stream=stream, decide=decide, evolve=evolve, claims=claims, answer=answer
)
