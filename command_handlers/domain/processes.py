"""What follows from what: commands an event brings with it, commands for later, notices for the operators' desk, and
what a decision will look at.

A reaction is decided at once, in the same transaction; when a rule refuses it, the command that caused it is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Claim, Notice, Situation, Timer
from command_handlers.domain.encounter import open_encounter_claim
from command_handlers.domain.patient import mrn_claim, patient_stream
from command_handlers.domain.queue import queue_stream
from command_handlers.domain.unit_command import OPEN_COMMANDS, UnitCommandState, notices_of, supersede_claim
from contracts.encounter import CheckIn, MoveToDepartment, PatientArrived, PatientDischarged, VisitCancelled
from contracts.ids import QueueEntryId, instant_of, service_day
from contracts.model import Command, Event
from contracts.patient import AssignMrn, RegisterPatient, UpdateDemographics
from contracts.queue import CloseEntry, Enqueue, EntryTransferred, TransferEntry
from contracts.unit_command import (
    ExpireUnitCommand,
    QueueUnitCommand,
    RetryUnitCommand,
    SupersedeUnitCommand,
    UnitCommandQueued,
    UnitCommandRetried,
)


def reactions(event: Event, situation: Situation) -> list[Command]:
    """Commands that the event brings with it, in order; each may bring more."""
    match event:
        case PatientArrived():
            return [
                Enqueue(
                    department=event.department,
                    entry_id=event.queue_entry_id,
                    patient_id=event.patient_id,
                    encounter_id=event.encounter_id,
                    priority=event.priority,
                    arrived_at=situation.issued_at,
                )
            ]
        case PatientDischarged() | VisitCancelled():
            return [CloseEntry(department=event.department, entry_id=event.queue_entry_id)]
        case EntryTransferred():
            return [
                Enqueue(
                    department=event.to_department,
                    entry_id=event.new_entry_id,
                    patient_id=event.patient_id,
                    encounter_id=event.encounter_id,
                    priority=event.priority,
                    arrived_at=event.arrived_at,
                    transferred_from=event.entry_id,
                ),
                MoveToDepartment(
                    encounter_id=event.encounter_id,
                    department=event.to_department,
                    queue_entry_id=event.new_entry_id,
                ),
            ]
        case UnitCommandQueued(supersedes=older) if older is not None:
            return [SupersedeUnitCommand(unit_command_id=older, by=event.unit_command_id)]
        case _:
            return []


def timers(event: Event) -> list[Timer]:
    """Commands to be given later because of the event."""
    match event:
        case UnitCommandQueued(deadline=deadline, unit_command_id=unit_command_id):
            return [Timer(deadline, ExpireUnitCommand(unit_command_id=unit_command_id))]
        case UnitCommandRetried(deadline=deadline, unit_command_id=unit_command_id, attempt=attempt):
            return [Timer(deadline, ExpireUnitCommand(unit_command_id=unit_command_id, attempt=attempt))]
        case _:
            return []


def notices(event: Event, state: Any) -> list[Notice]:  # Any: the state of whatever aggregate this is, after the event
    """What operators are to see because of the event."""
    return notices_of(event, state) if isinstance(state, UnitCommandState) else []


class Prefetch(NamedTuple):
    """What to load in one round trip before deciding: a guess that makes deciding fast, never wrong."""

    streams: tuple[str, ...]
    """The command's own stream first."""
    claims: tuple[Claim, ...] = ()
    counts: tuple[str, ...] = ()


def prefetch(command: Command, situation: Situation) -> Prefetch:
    """What deciding this command and its reactions will probably look at, the unit itself aside.

    Needs `situation.unit` (the service day is the unit's own) and nothing else of the situation's loading.
    """
    own = aggregate_for(command).stream(command, situation)
    match command:
        case RegisterPatient(medical_record_number=mrn) | AssignMrn(medical_record_number=mrn):
            return Prefetch((own,), (mrn_claim(mrn),))
        case UpdateDemographics(medical_record_number=str(mrn)):
            return Prefetch((own,), (mrn_claim(mrn),))
        case CheckIn():
            place = _queue_of(command.department, command.queue_entry_id, situation)
            claim = open_encounter_claim(command.patient_id, command.encounter_class)
            return Prefetch((own, patient_stream(command.patient_id), place), (claim,))
        case TransferEntry():
            return Prefetch((own, _queue_of(command.to_department, command.new_entry_id, situation)))
        case QueueUnitCommand(patient_id=patient_id, supersede_key=key):
            about = () if patient_id is None else (patient_stream(patient_id),)
            return Prefetch((own, *about), () if key is None else (supersede_claim(key),), (OPEN_COMMANDS,))
        case RetryUnitCommand():
            return Prefetch((own,), (), (OPEN_COMMANDS,))
        case _:
            return Prefetch((own,))


def _queue_of(department: str, entry_id: QueueEntryId, situation: Situation) -> str:
    day = service_day(instant_of(entry_id), situation.unit.settings.zone)
    return queue_stream(situation.unit_id, department, day)
