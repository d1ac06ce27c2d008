"""The rules of a department's queue on one service day: tickets, whose turn it is, and the ways of an entry.

What a transfer means for the other department's queue and for the visit is in `processes`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final, assert_never

from command_handlers.domain.decider import Aggregate, Freed, Situation, Taken
from contracts.envelope import Json
from contracts.ids import EncounterId, PatientId, QueueEntryId, instant_of, service_day
from contracts.queue import (
    ACTIVE,
    RANK,
    AlreadyInQueue,
    CallNext,
    ChangePriority,
    CloseEntry,
    CompleteService,
    Enqueue,
    EntryClosed,
    EntryNotCalled,
    EntryNotInService,
    EntryNotNoShow,
    EntryNotWaiting,
    EntryStatus,
    EntryTransferred,
    Leave,
    MarkNoShow,
    PatientCalled,
    PatientEnqueued,
    PatientLeft,
    PatientNoShow,
    PatientRecalled,
    PatientRequeued,
    PriorityChanged,
    PriorityCode,
    QueueCommands,
    QueueEmpty,
    QueueEntryAlreadyExists,
    QueueEntryNotFound,
    QueueEvents,
    Recall,
    Requeue,
    SameDepartment,
    ServiceCompleted,
    ServiceStarted,
    StartService,
    TransferEntry,
)

Place = tuple[datetime, int, QueueEntryId]
"""Arrival, ticket, entry: the order among entries of one priority, whatever the time."""
Line = tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in the queue, open or closed."""

    entry_id: QueueEntryId
    patient_id: PatientId
    encounter_id: EncounterId
    priority: PriorityCode
    ticket: int
    arrived_at: datetime
    status: EntryStatus = EntryStatus.WAITING
    counter: str | None = None
    """Where the patient was called to last."""
    moved_to: QueueEntryId | None = None
    """The entry it was transferred to."""

    @property
    def place(self) -> Place:
        """Where it stands among the waiting of its priority."""
        return (self.arrived_at, self.ticket, self.entry_id)


@dataclass(frozen=True, slots=True)
class ServiceQueue:
    """All entries of the day; the defaults are a day on which nobody has come yet.

    Mappings are copied on change, never changed: some microseconds at thousands of entries a day (tests measure it).
    """

    entries: Mapping[QueueEntryId, Entry] = field(default_factory=dict)
    present: Mapping[PatientId, QueueEntryId] = field(default_factory=dict)
    """The one active entry of each patient."""
    lines: tuple[Line, ...] = ((),) * len(RANK)
    """The waiting by priority (`RANK`), each in order: whose turn it is stands at the head of one of them."""
    last_ticket: int = 0
    last_called: QueueEntryId | None = None


def effective_rank(priority: PriorityCode, arrived_at: datetime, at: datetime, ageing_minutes: int) -> int:
    """`RANK`, lifted by one for each full `ageing_minutes` waited since arrival, never above `asap`."""
    rank = RANK[priority]
    if rank <= RANK[PriorityCode.ASAP] or at <= arrived_at:
        return rank
    return max(RANK[PriorityCode.ASAP], rank - (at - arrived_at) // timedelta(minutes=ageing_minutes))


def order_key(entry: Entry, at: datetime, ageing_minutes: int) -> tuple[int, datetime, int]:
    """Smaller is called earlier: effective rank, then arrival, then ticket."""
    return (effective_rank(entry.priority, entry.arrived_at, at, ageing_minutes), entry.arrived_at, entry.ticket)


def next_in_turn(queue: ServiceQueue, at: datetime, ageing_minutes: int) -> Entry | None:
    """Whose turn it is, or None.

    Within a priority whoever waits longer never ranks behind, so only the heads of the lines are compared.
    """
    heads = [queue.entries[line[0][2]] for line in queue.lines if line]
    return min(heads, key=lambda entry: order_key(entry, at, ageing_minutes), default=None)


def queue_stream(unit_id: str, department: str, day: date) -> str:
    """The stream of a department's day. Dots part what may itself contain dashes, so no two units can meet in one."""
    return f"queue-{unit_id}.{department}.{day.isoformat()}"


def day_of(command: QueueCommands, situation: Situation) -> date:
    """The service day: of the entry's arrival, or today at the unit when no entry is named."""
    at = situation.at if command.entry_id is None else instant_of(command.entry_id)
    return service_day(at, situation.unit.settings.zone)


def stream(command: QueueCommands, situation: Situation) -> str:
    """`queue-<unit_id>.<department>.<YYYY-MM-DD>`."""
    return queue_stream(situation.unit_id, command.department, day_of(command, situation))


def decide(command: QueueCommands, queue: ServiceQueue, situation: Situation) -> list[QueueEvents]:
    """New events, `[]` when it is already so."""
    day = day_of(command, situation)
    if isinstance(command, Enqueue):
        return _enqueued(command, queue, situation, day)
    if isinstance(command, CallNext):
        return _called(command, queue, situation, day)
    entry = queue.entries.get(command.entry_id)
    if entry is None:
        if isinstance(command, CloseEntry):
            return []  # the visit must be able to end whatever became of its place
        raise QueueEntryNotFound(entry_id=str(command.entry_id))
    if _already(command, entry):
        return []
    if entry.status not in ACTIVE:
        raise EntryClosed(entry_id=str(entry.entry_id), status=entry.status.value)
    return [_stepped(command, entry, situation, day)]


def _enqueued(command: Enqueue, queue: ServiceQueue, situation: Situation, day: date) -> list[QueueEvents]:
    entry = queue.entries.get(command.entry_id)
    if entry is not None:
        if (entry.patient_id, entry.encounter_id) == (command.patient_id, command.encounter_id):
            return []
        raise QueueEntryAlreadyExists(entry_id=str(command.entry_id))
    situation.unit.require(command.department)
    if command.patient_id in queue.present:
        raise AlreadyInQueue(entry_id=str(queue.present[command.patient_id]), department=command.department)
    return [
        PatientEnqueued(
            department=command.department,
            service_day=day,
            entry_id=command.entry_id,
            patient_id=command.patient_id,
            encounter_id=command.encounter_id,
            priority=command.priority,
            ticket=queue.last_ticket + 1,
            arrived_at=command.arrived_at,
            transferred_from=command.transferred_from,
        )
    ]


def _called(command: CallNext, queue: ServiceQueue, situation: Situation, day: date) -> list[QueueEvents]:
    situation.unit.require(command.department)
    if command.entry_id is None:
        entry = next_in_turn(queue, situation.at, situation.unit.settings.ageing_minutes)
        if entry is None:
            raise QueueEmpty(department=command.department)
    else:
        entry = _named(queue, command.entry_id)
    return [
        PatientCalled(
            department=command.department,
            service_day=day,
            entry_id=entry.entry_id,
            patient_id=entry.patient_id,
            ticket=entry.ticket,
            counter=command.counter,
        )
    ]


def _named(queue: ServiceQueue, entry_id: QueueEntryId) -> Entry:
    """The waiting entry that a unit says it has called while it was cut off."""
    entry = queue.entries.get(entry_id)
    if entry is None:
        raise QueueEntryNotFound(entry_id=str(entry_id))
    if entry.status not in ACTIVE:
        raise EntryClosed(entry_id=str(entry_id), status=entry.status.value)
    if entry.status is not EntryStatus.WAITING:
        raise EntryNotWaiting(entry_id=str(entry_id), status=entry.status.value)
    return entry


_EntryCommand = (
    Recall | StartService | CompleteService | MarkNoShow | Requeue | ChangePriority | TransferEntry | Leave | CloseEntry
)


def _already(command: _EntryCommand, entry: Entry) -> bool:
    """Whether the entry stands where it is asked to; a call is a new call each time."""
    match command:
        case Recall():
            return False
        case StartService():
            return entry.status is EntryStatus.IN_SERVICE
        case CompleteService():
            return entry.status is EntryStatus.DONE
        case MarkNoShow():
            return entry.status is EntryStatus.NO_SHOW
        case Requeue():
            return entry.status is EntryStatus.WAITING
        case ChangePriority(priority=priority):
            return entry.status is EntryStatus.WAITING and entry.priority is priority
        case TransferEntry(new_entry_id=new_entry_id):
            return entry.moved_to == new_entry_id
        case Leave():
            return entry.status is EntryStatus.LEFT
        case CloseEntry():
            return entry.status not in ACTIVE
        case _:
            assert_never(command)


def _stepped(command: _EntryCommand, entry: Entry, situation: Situation, day: date) -> QueueEvents:
    department, entry_id, patient_id, status = command.department, entry.entry_id, entry.patient_id, entry.status
    named = {"entry_id": str(entry_id), "status": status.value}
    match command:
        case Recall() | StartService() | MarkNoShow() if status is not EntryStatus.CALLED:
            raise EntryNotCalled(**named)
        case CompleteService() if status is not EntryStatus.IN_SERVICE:
            raise EntryNotInService(**named)
        case Requeue() if status is not EntryStatus.NO_SHOW:
            raise EntryNotNoShow(**named)
        case ChangePriority() if status is not EntryStatus.WAITING:
            raise EntryNotWaiting(**named)
        case Leave() if status is EntryStatus.IN_SERVICE:
            raise EntryNotWaiting(**named)
        case Recall():
            return PatientRecalled(
                department=department, service_day=day, entry_id=entry_id, patient_id=patient_id, ticket=entry.ticket
            )
        case StartService():
            return ServiceStarted(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case MarkNoShow():
            return PatientNoShow(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case Requeue():
            return PatientRequeued(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case ChangePriority(priority=priority):
            return PriorityChanged(
                department=department, service_day=day, entry_id=entry_id, patient_id=patient_id, priority=priority
            )
        case TransferEntry(to_department=to_department, new_entry_id=new_entry_id):
            if to_department == department:
                raise SameDepartment(department=department)
            situation.unit.require(to_department)
            return EntryTransferred(
                department=department,
                service_day=day,
                entry_id=entry_id,
                patient_id=patient_id,
                encounter_id=entry.encounter_id,
                priority=entry.priority,
                arrived_at=entry.arrived_at,
                to_department=to_department,
                new_entry_id=new_entry_id,
            )
        case CompleteService():
            return ServiceCompleted(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case CloseEntry() if status is EntryStatus.IN_SERVICE:
            return ServiceCompleted(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case Leave() | CloseEntry():
            return PatientLeft(department=department, service_day=day, entry_id=entry_id, patient_id=patient_id)
        case _:
            assert_never(command)


def evolve(queue: ServiceQueue, event: QueueEvents) -> ServiceQueue:
    """The queue after what happened."""
    if isinstance(event, PatientEnqueued):
        entry = Entry(
            entry_id=event.entry_id,
            patient_id=event.patient_id,
            encounter_id=event.encounter_id,
            priority=event.priority,
            ticket=event.ticket,
            arrived_at=event.arrived_at,
        )
        return replace(_with(queue, None, entry), last_ticket=event.ticket)
    before = queue.entries[event.entry_id]
    match event:
        case PatientCalled(counter=counter):
            called = _with(queue, before, replace(before, status=EntryStatus.CALLED, counter=counter))
            return replace(called, last_called=event.entry_id)
        case PatientRecalled():
            return queue
        case ServiceStarted():
            after = replace(before, status=EntryStatus.IN_SERVICE)
        case ServiceCompleted():
            after = replace(before, status=EntryStatus.DONE)
        case PatientNoShow():
            after = replace(before, status=EntryStatus.NO_SHOW)
        case PatientRequeued():
            after = replace(before, status=EntryStatus.WAITING)
        case PriorityChanged(priority=priority):
            after = replace(before, priority=priority)
        case EntryTransferred(new_entry_id=new_entry_id):
            after = replace(before, status=EntryStatus.TRANSFERRED, moved_to=new_entry_id)
        case PatientLeft():
            after = replace(before, status=EntryStatus.LEFT)
        case _:
            assert_never(event)
    return _with(queue, before, after)


def _with(queue: ServiceQueue, before: Entry | None, after: Entry) -> ServiceQueue:
    """The queue with an entry changed from `before` (None: new) to `after`."""
    present = queue.present
    if before is None:
        present = {**present, after.patient_id: after.entry_id}
    elif after.status not in ACTIVE:
        present = {**present}
        del present[after.patient_id]
    lines = list(queue.lines)
    if before is not None and before.status is EntryStatus.WAITING:
        rank = RANK[before.priority]
        at = bisect_left(lines[rank], before.place)
        lines[rank] = lines[rank][:at] + lines[rank][at + 1 :]
    if after.status is EntryStatus.WAITING:
        rank = RANK[after.priority]
        at = bisect_left(lines[rank], after.place)
        lines[rank] = (*lines[rank][:at], after.place, *lines[rank][at:])
    return replace(queue, entries={**queue.entries, after.entry_id: after}, present=present, lines=tuple(lines))


def claims(queue: ServiceQueue, event: QueueEvents) -> Sequence[Taken | Freed]:
    """Nothing: who is in a queue is that queue's own business."""
    return ()


def answer(command: QueueCommands, queue: ServiceQueue) -> Json:
    """Entry, ticket and status; a consequence of another command adds at most the ticket to that command's answer."""
    match command:
        case Enqueue(entry_id=entry_id):
            return {"ticket": queue.entries[entry_id].ticket}
        case CallNext():
            return _call(queue)
        case TransferEntry(new_entry_id=new_entry_id, to_department=to_department):
            return {"entryId": str(new_entry_id), "department": to_department}
        case CloseEntry():
            return {}
        case _:
            entry = queue.entries[command.entry_id]
            return {"entryId": str(entry.entry_id), "status": entry.status.value, "ticket": entry.ticket}


def _call(queue: ServiceQueue) -> Json:
    if queue.last_called is None:
        return {}
    entry = queue.entries[queue.last_called]
    said: Json = {
        "entryId": str(entry.entry_id),
        "ticket": entry.ticket,
        "patientId": str(entry.patient_id),
        "encounterId": str(entry.encounter_id),
    }
    return said if entry.counter is None else {**said, "counter": entry.counter}


QUEUE: Final = Aggregate(
    context="queue",
    initial=ServiceQueue(),
    stream=stream,
    decide=decide,
    evolve=evolve,
    claims=claims,
    answer=answer,
)
