"""UnitCommand: a durable command to a unit, executed once by its agent - what may be asked, what can happen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from contracts.envelope import Json
from contracts.identity import ADMINS, CLINICAL, Role
from contracts.ids import PatientId, UnitCommandId, UnitId
from contracts.model import Command, Event, Instant, Offline, Refusal, Sealed

UnitCommandType = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9_.-]{0,79}$")]
"""What the unit's connector understands, for example `orders.place` or `ping`."""

RejectionCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
"""A code of the unit's own system. It is not sealed, so it cannot be a sentence; what is to be told is the result."""


class OnReconnect(StrEnum):
    """What an agent that was away does with a command it receives late."""

    RUN = "run"
    REVALIDATE = "revalidate"
    """Ask the site's system whether it still makes sense before running it."""
    DROP = "drop"


class UnitCommandStatus(StrEnum):
    """Where a unit command stands. All but `queued` are final; a report that comes late changes none of them."""

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class _MailboxCommand(Command):
    context: ClassVar[str] = "unit_command"
    may: ClassVar[frozenset[Role]] = ADMINS | CLINICAL | {Role.OPS}
    unit_command_id: UnitCommandId


class QueueUnitCommand(_MailboxCommand):
    """Have the unit do something, durably."""

    type: UnitCommandType
    payload: Sealed[Json] = Field(default_factory=dict)
    patient_id: PatientId | None = None
    """Whom it is about; the payload is sealed under that person's key, or the unit's own when None."""
    deadline: Instant
    on_reconnect: OnReconnect = OnReconnect.RUN


class ReportUnitCommand(_MailboxCommand):
    """The unit tells what became of it.

    Offline: waits; made by the agent itself.
    """

    offline: ClassVar[Offline] = Offline.LATER
    may: ClassVar[frozenset[Role]] = frozenset({Role.UNIT})
    applied: bool
    code: RejectionCode | None = None
    """Why it was rejected, or None."""
    result: Sealed[Json | None] = None


class ExpireUnitCommand(_MailboxCommand):
    """The deadline has passed without a word from the unit (asked by the timer)."""

    may: ClassVar[frozenset[Role]] = frozenset()


class CancelUnitCommand(_MailboxCommand):
    """Have the unit not do it, if it has not yet."""

    reason: Sealed[str | None] = Field(None, max_length=200)


class _MailboxEvent(Event):
    context: ClassVar[str] = "unit_command"
    unit_command_id: UnitCommandId
    unit_id: UnitId
    patient_id: PatientId | None = None

    def subject(self) -> str | None:
        return str(self.patient_id) if self.patient_id else f"unit:{self.unit_id}"


class UnitCommandQueued(_MailboxEvent):
    """The unit is to do something."""

    type: UnitCommandType
    payload: Sealed[Json | None] = None
    deadline: Instant
    on_reconnect: OnReconnect


class UnitCommandApplied(_MailboxEvent):
    """The unit did it."""

    result: Sealed[Json | None] = None
    late: bool = False
    """Reported after it had expired or been cancelled."""


class UnitCommandRejected(_MailboxEvent):
    """The unit did not do it and says why."""

    code: str
    result: Sealed[Json | None] = None
    late: bool = False


class UnitCommandExpired(_MailboxEvent):
    """The deadline passed without a word from the unit."""


class UnitCommandCancelled(_MailboxEvent):
    """It was called off before the unit said anything."""

    reason: Sealed[str | None] = None


class UnitCommandNotFound(Refusal):
    """The unit has no command with this id in its mailbox."""


class UnitCommandAlreadyExists(Refusal):
    """A unit command with this id exists with other data."""


class UnitCommandFinal(Refusal):
    """The unit command has already ended."""


class DeadlineInPast(Refusal):
    """The deadline has already passed."""


MailboxCommands = QueueUnitCommand | ReportUnitCommand | ExpireUnitCommand | CancelUnitCommand
MailboxEvents = UnitCommandQueued | UnitCommandApplied | UnitCommandRejected | UnitCommandExpired | UnitCommandCancelled
