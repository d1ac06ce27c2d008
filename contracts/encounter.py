"""Encounter: one visit of a patient (FHIR Encounter) - what may be asked of it and what can have happened."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from contracts.identity import ADMINS, CLINICAL, Role
from contracts.ids import Department, EncounterId, PatientId, QueueEntryId, TimedEntryId
from contracts.model import Command, Event, Offline, Refusal, Sealed
from contracts.queue import Priority, PriorityCode

RECEPTION = ADMINS | {Role.RECEPTIONIST, Role.UNIT}
CARE = ADMINS | CLINICAL | {Role.UNIT}


class EncounterClass(StrEnum):
    """FHIR v3-ActCode classes that a unit distinguishes."""

    AMBULATORY = "AMB"
    EMERGENCY = "EMER"
    INPATIENT = "IMP"


class EncounterStatus(StrEnum):
    """FHIR encounter-status, as far as a visit gets here."""

    ARRIVED = "arrived"
    TRIAGED = "triaged"
    IN_PROGRESS = "in-progress"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class _EncounterCommand(Command):
    context: ClassVar[str] = "encounter"
    may: ClassVar[frozenset[Role]] = CARE
    encounter_id: EncounterId


class CheckIn(_EncounterCommand):
    """A patient has arrived: a visit is opened, a place in the queue taken, the clinician told. All or nothing."""

    offline: ClassVar[Offline] = Offline.LOCAL
    may: ClassVar[frozenset[Role]] = RECEPTION
    patient_id: PatientId
    queue_entry_id: TimedEntryId
    department: Department
    priority: Priority = PriorityCode.ROUTINE
    encounter_class: EncounterClass = EncounterClass.AMBULATORY
    reason: Sealed[str | None] = Field(None, max_length=500)
    practitioner_id: str | None = Field(None, max_length=100)
    """The responsible clinician's account id; None: whoever is on duty in the department."""


class Triage(_EncounterCommand):
    """Acuity is assessed.

    Offline: waits, and is never lost; acuity shows once the centre has it.
    """

    offline: ClassVar[Offline] = Offline.LATER
    acuity: int = Field(ge=1, le=5, strict=True)
    """Emergency Severity Index, 1 most urgent."""
    note: Sealed[str | None] = Field(None, max_length=2000)


class AssignLocation(_EncounterCommand):
    """The patient is given a room.

    Offline: waits; who is in which room may look different by then, and the last word counts.
    """

    offline: ClassVar[Offline] = Offline.LATER
    may: ClassVar[frozenset[Role]] = CARE | RECEPTION
    room: str = Field(min_length=1, max_length=10)


class StartConsultation(_EncounterCommand):
    """A clinician begins to see the patient.

    Offline: waits; the place in the queue shows at once that the patient is being served.
    """

    offline: ClassVar[Offline] = Offline.LATER


class Discharge(_EncounterCommand):
    """The visit is over; what is left of it in a queue is closed."""

    offline: ClassVar[Offline] = Offline.LOCAL
    note: Sealed[str | None] = Field(None, max_length=2000)


class CancelVisit(_EncounterCommand):
    """The visit does not take place; what is left of it in a queue is closed."""

    offline: ClassVar[Offline] = Offline.LOCAL
    may: ClassVar[frozenset[Role]] = CARE | RECEPTION
    reason: Sealed[str | None] = Field(None, max_length=500)


class MoveToDepartment(_EncounterCommand):
    """The visit goes on in another department (follows the transfer of its queue entry)."""

    may: ClassVar[frozenset[Role]] = frozenset()
    department: Department
    queue_entry_id: TimedEntryId


class _EncounterEvent(Event):
    context: ClassVar[str] = "encounter"
    encounter_id: EncounterId
    patient_id: PatientId

    def subject(self) -> str | None:
        return str(self.patient_id)


class PatientArrived(_EncounterEvent):
    """A patient arrived and a visit was opened."""

    department: Department
    queue_entry_id: QueueEntryId
    priority: Priority
    encounter_class: EncounterClass
    reason: Sealed[str | None] = None
    practitioner_id: str | None = None


class ClinicianNotified(_EncounterEvent):
    """The responsible clinician (or the department's duty) is to be told that a patient waits."""

    department: Department
    queue_entry_id: QueueEntryId
    priority: Priority
    practitioner_id: str | None = None


class PatientTriaged(_EncounterEvent):
    """Acuity was assessed."""

    acuity: int
    note: Sealed[str | None] = None


class LocationAssigned(_EncounterEvent):
    """The patient was given a room."""

    room: str


class ConsultationStarted(_EncounterEvent):
    """A clinician began to see the patient."""


class PatientDischarged(_EncounterEvent):
    """The visit is over."""

    department: Department
    queue_entry_id: QueueEntryId
    note: Sealed[str | None] = None


class VisitCancelled(_EncounterEvent):
    """The visit did not take place."""

    department: Department
    queue_entry_id: QueueEntryId
    reason: Sealed[str | None] = None


class MovedToDepartment(_EncounterEvent):
    """The visit goes on in another department."""

    department: Department
    queue_entry_id: QueueEntryId


class EncounterNotFound(Refusal):
    """The unit has no encounter with this id."""


class EncounterAlreadyOpen(Refusal):
    """The patient has an open encounter of this class at this unit; end it first."""


class EncounterAlreadyExists(Refusal):
    """An encounter with this id exists with other data."""


class EncounterNotOpen(Refusal):
    """The encounter is finished or cancelled."""


class ConsultationAlreadyStarted(Refusal):
    """The consultation has already started."""


EncounterCommands = CheckIn | Triage | AssignLocation | StartConsultation | Discharge | CancelVisit | MoveToDepartment
EncounterEvents = (
    PatientArrived
    | ClinicianNotified
    | PatientTriaged
    | LocationAssigned
    | ConsultationStarted
    | PatientDischarged
    | VisitCancelled
    | MovedToDepartment
)
