"""What the centre would surely refuse, as far as this disk knows: said at once while nobody else can be asked.

The rules are the centre's (`command_handlers.domain`); only what is certain from here is told here. Of what this unit
has not heard, nothing is said: the centre decides.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from contracts.encounter import (
    AssignLocation,
    CancelVisit,
    CheckIn,
    ConsultationAlreadyStarted,
    Discharge,
    EncounterAlreadyOpen,
    EncounterNotOpen,
    EncounterStatus,
    StartConsultation,
    Triage,
)
from contracts.ids import instant_of
from contracts.model import Command, Refusal
from contracts.patient import MrnTaken, RegisterPatient
from contracts.queue import (
    ACTIVE,
    AlreadyInQueue,
    CallNext,
    ChangePriority,
    CompleteService,
    EntryClosed,
    EntryNotCalled,
    EntryNotInService,
    EntryNotNoShow,
    EntryNotWaiting,
    EntryStatus,
    Leave,
    MarkNoShow,
    Recall,
    Requeue,
    StartService,
)
from unit_agent import local_views, site_queues

_FROM: Final[dict[type[Command], tuple[EntryStatus, type[Refusal]]]] = {
    CallNext: (EntryStatus.WAITING, EntryNotWaiting),
    Recall: (EntryStatus.CALLED, EntryNotCalled),
    StartService: (EntryStatus.CALLED, EntryNotCalled),
    CompleteService: (EntryStatus.IN_SERVICE, EntryNotInService),
    MarkNoShow: (EntryStatus.CALLED, EntryNotCalled),
    Requeue: (EntryStatus.NO_SHOW, EntryNotNoShow),
    ChangePriority: (EntryStatus.WAITING, EntryNotWaiting),
}
"""Where an entry must stand, and what is said when it does not."""
_ALREADY: Final[dict[type[Command], EntryStatus]] = {
    StartService: EntryStatus.IN_SERVICE,
    CompleteService: EntryStatus.DONE,
    MarkNoShow: EntryStatus.NO_SHOW,
    Requeue: EntryStatus.WAITING,
    Leave: EntryStatus.LEFT,
}
"""Where asking again is no error."""
_ENDS: Final[dict[type[Command], EncounterStatus]] = {
    Discharge: EncounterStatus.FINISHED,
    CancelVisit: EncounterStatus.CANCELLED,
}


def refusal(db: sqlite3.Connection, command: Command) -> Refusal | None:
    """The refusal this command would surely meet; None when it may well be carried out."""
    match command:
        case RegisterPatient(patient_id=patient_id, medical_record_number=number):
            holder = local_views.holder_of(db, number)
            return MrnTaken() if holder not in (None, str(patient_id)) else None
        case CheckIn(patient_id=patient_id, encounter_class=encounter_class, encounter_id=encounter_id):
            open_visit = local_views.open_visit(db, str(patient_id), encounter_class.value)
            if open_visit not in (None, str(encounter_id)):
                return EncounterAlreadyOpen(encounter_id=str(open_visit))
            place = site_queues.place_in(db, str(patient_id), command.department, instant_of(command.queue_entry_id))
            if place not in (None, str(command.queue_entry_id)):
                return AlreadyInQueue(entry_id=str(place), department=command.department)
            return None
        case Triage() | AssignLocation() | StartConsultation() | Discharge() | CancelVisit():
            return _of_visit(db, command, str(command.encounter_id))
        case (
            CallNext()
            | Recall()
            | StartService()
            | CompleteService()
            | MarkNoShow()
            | Requeue()
            | ChangePriority()
            | Leave()
        ):
            return None if command.entry_id is None else _of_entry(db, command, str(command.entry_id))
        case _:
            return None


def _of_visit(db: sqlite3.Connection, command: Command, encounter_id: str) -> Refusal | None:
    status = local_views.visit_status(db, encounter_id)
    if status == EncounterStatus.IN_PROGRESS and isinstance(command, StartConsultation | CancelVisit):
        return ConsultationAlreadyStarted(encounter_id=encounter_id)
    if status not in (EncounterStatus.FINISHED, EncounterStatus.CANCELLED):
        return None
    is_said_again = _ENDS.get(type(command)) == status  # with the same words it is no error, which the centre knows
    return None if is_said_again else EncounterNotOpen(encounter_id=encounter_id, status=status)


def _of_entry(db: sqlite3.Connection, command: Command, entry_id: str) -> Refusal | None:
    found = site_queues.place(db, entry_id)
    if found is None:
        return None
    status = EntryStatus(found["status"])
    if _ALREADY.get(type(command)) is status:
        return None
    if status not in ACTIVE:
        return EntryClosed(entry_id=entry_id, status=status.value)
    if isinstance(command, Leave):
        return EntryNotWaiting(entry_id=entry_id, status=status.value) if status is EntryStatus.IN_SERVICE else None
    must_be, refused = _FROM[type(command)]
    return None if status is must_be else refused(entry_id=entry_id, status=status.value)
