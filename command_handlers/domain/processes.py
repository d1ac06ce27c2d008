"""What follows from what: commands an event brings with it, commands for later, notices for the operators' desk, and
what a decision will look at.

A reaction is decided at once, in the same transaction; when a rule refuses it, the command that caused it is refused.
What was done at a unit and is refused here leads to a task, written with the refusal.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Claim, Notice, Situation, Timer, timer_id
from command_handlers.domain.encounter import Encounter, open_encounter_claim
from command_handlers.domain.patient import mrn_claim, patient_stream
from command_handlers.domain.queue import ServiceQueue, queue_stream
from command_handlers.domain.unit_command import (
    OPEN_COMMANDS,
    UnitCommandState,
    attempt_key,
    has_ended,
    notices_of,
    supersede_claim,
)
from contracts.encounter import CheckIn, MoveToDepartment, PatientArrived, PatientDischarged, VisitCancelled
from contracts.ids import EncounterId, PatientId, QueueEntryId, TaskId, derived, instant_of, service_day
from contracts.model import Command, Event
from contracts.patient import AssignMrn, RegisterPatient, UpdateDemographics
from contracts.queue import CloseEntry, Enqueue, EntryTransferred, TransferEntry
from contracts.task import Cause, CreateTask, NoteTaskOverdue, RaiseConflict, TaskCreated
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
        case UnitCommandQueued(deadline=deadline, unit_command_id=who):
            return [Timer(deadline, ExpireUnitCommand(unit_command_id=who), attempt_key(who, 1))]
        case UnitCommandRetried(deadline=deadline, unit_command_id=who, attempt=attempt):
            expire = ExpireUnitCommand(unit_command_id=who, attempt=attempt)
            return [Timer(deadline, expire, attempt_key(who, attempt))]
        case TaskCreated(due_at=datetime() as due_at, task_id=task_id):
            return [Timer(due_at, NoteTaskOverdue(task_id=task_id, due_at=due_at))]
        case _:
            return []


def timers_over(event: Event, state: Any) -> list[UUID]:  # Any: the state of whatever aggregate this is, after it
    """Ids of timers whose time need not come any more because of the event."""
    if isinstance(state, UnitCommandState) and has_ended(event):
        unit_command_id = event.unit_command_id
        return [timer_id(attempt_key(unit_command_id, state.attempt), ExpireUnitCommand.type_name())]
    return []


def conflict(command: Command, code: str, situation: Situation) -> RaiseConflict:
    """What follows when a unit's command is refused: somebody there is to look at what was done, once.

    The task is about whom the command names, or whom the entry or visit is about that it names.
    """
    patient_id: PatientId | None = getattr(command, "patient_id", None)
    encounter_id: EncounterId | None = getattr(command, "encounter_id", None)
    aggregate = aggregate_for(command)
    state = situation.look(aggregate, aggregate.stream(command, situation))
    if isinstance(state, ServiceQueue):
        entry_id: QueueEntryId | None = getattr(command, "entry_id", None)
        entry = None if entry_id is None else state.entries.get(entry_id)
        if entry is not None:
            patient_id, encounter_id = entry.patient_id, entry.encounter_id
    if isinstance(state, Encounter) and state.arrived is not None and patient_id is None:
        patient_id = state.arrived.patient_id
    cause = Cause(
        command_id=situation.command_id, command_type=command.type_name(), code=code, issued_at=situation.issued_at
    )
    return RaiseConflict(
        task_id=TaskId(derived(situation.command_id, "conflict", situation.issued_at)),
        cause=cause,
        patient_id=patient_id,
        encounter_id=encounter_id,
        department=getattr(command, "department", None),
    )


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
        case CreateTask(patient_id=patient_id) if patient_id is not None:
            return Prefetch((own, patient_stream(patient_id)))
        case RetryUnitCommand():
            return Prefetch((own,), (), (OPEN_COMMANDS,))
        case _:
            return Prefetch((own,))


def _queue_of(department: str, entry_id: QueueEntryId, situation: Situation) -> str:
    day = service_day(instant_of(entry_id), situation.unit.settings.zone)
    return queue_stream(situation.unit_id, department, day)
