"""ServiceQueue: one department's queue on one service day of a unit - what may be asked and what can have happened.

An entry's id carries the instant of its arrival (UUIDv7); its service day is that instant's day in the unit's zone, so
an entry id and a department name the queue, also after midnight.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from contracts.identity import PEOPLE, Role
from contracts.ids import Department, EncounterId, PatientId, QueueEntryId, TimedEntryId
from contracts.model import Command, Event, Instant, Offline, Refusal

DESK = PEOPLE | {Role.UNIT}

_SPOKEN = {"normal": "routine", "low": "routine", "high": "urgent", "emergency": "stat", "critical": "stat"}


class PriorityCode(StrEnum):
    """FHIR request-priority."""

    ROUTINE = "routine"
    URGENT = "urgent"
    ASAP = "asap"
    STAT = "stat"


def _spoken(value: object) -> object:
    if isinstance(value, PriorityCode):
        return value
    return _SPOKEN.get(value.lower(), value.lower()) if isinstance(value, str) else value


Priority = Annotated[PriorityCode, BeforeValidator(_spoken)]
"""A FHIR request-priority; `normal`, `low`, `high`, `emergency`, `critical` are read as their FHIR code."""

RANK = {PriorityCode.STAT: 0, PriorityCode.ASAP: 1, PriorityCode.URGENT: 2, PriorityCode.ROUTINE: 3}
"""Smaller is called earlier. Ageing lifts an entry by one rank per `ageing_minutes` waited, never above `asap`."""


class EntryStatus(StrEnum):
    """Where an entry stands."""

    WAITING = "waiting"
    CALLED = "called"
    IN_SERVICE = "in-service"
    DONE = "done"
    NO_SHOW = "no-show"
    LEFT = "left"
    TRANSFERRED = "transferred"


ACTIVE = frozenset({EntryStatus.WAITING, EntryStatus.CALLED, EntryStatus.IN_SERVICE, EntryStatus.NO_SHOW})
"""A patient has at most one entry in these states per queue."""


class _QueueCommand(Command):
    context: ClassVar[str] = "queue"
    may: ClassVar[frozenset[Role]] = DESK
    department: Department


class Enqueue(_QueueCommand):
    """A patient takes a place in the queue; the entry id's time decides the service day."""

    may: ClassVar[frozenset[Role]] = frozenset()
    entry_id: TimedEntryId
    patient_id: PatientId
    encounter_id: EncounterId
    priority: Priority = PriorityCode.ROUTINE
    arrived_at: Instant
    transferred_from: QueueEntryId | None = None


class CallNext(_QueueCommand):
    """Call the patient whose turn it is.

    Without `entryId` the queue says whose turn it is. With it, exactly this entry is called: a unit that was cut off
    has called that patient already, and if the entry is no longer waiting, that is refused and seen to.
    """

    offline: ClassVar[Offline] = Offline.LOCAL
    version: ClassVar[int] = 2
    counter: str | None = Field(None, max_length=40)
    """Room or desk the patient is called to."""
    entry_id: TimedEntryId | None = None
    """Call exactly this one; None: whose turn it is. New in version 2."""


class _EntryCommand(_QueueCommand):
    entry_id: TimedEntryId


class Recall(_EntryCommand):
    """Call the same patient once more."""

    offline: ClassVar[Offline] = Offline.LOCAL


class StartService(_EntryCommand):
    """The called patient has come."""

    offline: ClassVar[Offline] = Offline.LOCAL


class CompleteService(_EntryCommand):
    """The patient has been served."""

    offline: ClassVar[Offline] = Offline.LOCAL


class MarkNoShow(_EntryCommand):
    """The called patient has not come."""

    offline: ClassVar[Offline] = Offline.LOCAL


class Requeue(_EntryCommand):
    """A patient who missed the call waits again, from the original arrival."""

    offline: ClassVar[Offline] = Offline.LOCAL


class ChangePriority(_EntryCommand):
    """The entry becomes more or less urgent.

    Offline: shows at once, since it changes whom the unit calls next.
    """

    offline: ClassVar[Offline] = Offline.LOCAL
    priority: Priority


class TransferEntry(_EntryCommand):
    """The patient goes on to another department's queue, with a new entry there.

    Offline: never; the other department works from its own list, and a ticket there is the centre's to give.
    """

    offline: ClassVar[Offline] = Offline.NEVER
    to_department: Department
    new_entry_id: TimedEntryId


class Leave(_EntryCommand):
    """The patient has left without being served."""

    offline: ClassVar[Offline] = Offline.LOCAL


class CloseEntry(_EntryCommand):
    """The visit is over, so its place in the queue is closed whatever its state."""

    may: ClassVar[frozenset[Role]] = frozenset()


class _QueueEvent(Event):
    context: ClassVar[str] = "queue"
    department: Department
    service_day: date
    entry_id: QueueEntryId
    patient_id: PatientId


class PatientEnqueued(_QueueEvent):
    """A patient took a place in the queue."""

    encounter_id: EncounterId
    priority: Priority
    ticket: int
    """Unique per queue and day, free of identity."""
    arrived_at: Instant
    transferred_from: QueueEntryId | None = None


class PatientCalled(_QueueEvent):
    """It is the patient's turn."""

    ticket: int
    counter: str | None = None


class PatientRecalled(_QueueEvent):
    """The patient was called once more."""

    ticket: int


class ServiceStarted(_QueueEvent):
    """The called patient came."""


class ServiceCompleted(_QueueEvent):
    """The patient has been served."""


class PatientNoShow(_QueueEvent):
    """The called patient did not come."""


class PatientRequeued(_QueueEvent):
    """A patient who missed the call waits again."""


class PriorityChanged(_QueueEvent):
    """The entry became more or less urgent."""

    priority: Priority


class EntryTransferred(_QueueEvent):
    """The patient went on to another department's queue."""

    encounter_id: EncounterId
    priority: Priority
    arrived_at: Instant
    to_department: Department
    new_entry_id: QueueEntryId


class PatientLeft(_QueueEvent):
    """The patient left, or the visit ended, without (further) service."""


class QueueEmpty(Refusal):
    """Nobody is waiting in this queue."""

    leaves_work = False


class QueueEntryNotFound(Refusal):
    """The queue has no entry with this id."""


class QueueEntryAlreadyExists(Refusal):
    """An entry with this id exists with other data."""


class AlreadyInQueue(Refusal):
    """The patient has an active entry in this queue."""


class EntryNotWaiting(Refusal):
    """The entry is not waiting."""


class EntryNotCalled(Refusal):
    """The entry has not been called."""


class EntryNotInService(Refusal):
    """The entry is not in service."""


class EntryNotNoShow(Refusal):
    """The entry is not marked as no-show."""


class EntryClosed(Refusal):
    """The entry is done, left or transferred."""


class SameDepartment(Refusal):
    """An entry can only be transferred to another department."""


QueueCommands = (
    Enqueue
    | CallNext
    | Recall
    | StartService
    | CompleteService
    | MarkNoShow
    | Requeue
    | ChangePriority
    | TransferEntry
    | Leave
    | CloseEntry
)
QueueEvents = (
    PatientEnqueued
    | PatientCalled
    | PatientRecalled
    | ServiceStarted
    | ServiceCompleted
    | PatientNoShow
    | PatientRequeued
    | PriorityChanged
    | EntryTransferred
    | PatientLeft
)
