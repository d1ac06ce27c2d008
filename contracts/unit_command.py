"""UnitCommand: a durable command to a unit, executed once by its agent - what may be asked, what can happen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from contracts.envelope import Json
from contracts.identity import ADMINS, CLINICAL, Role
from contracts.ids import PatientId, UnitCommandId, UnitId
from contracts.model import Command, Event, Instant, Offline, Refusal, Sealed
from contracts.text import holds_odd_number


def _with_plain_numbers(content: Json) -> Json:
    if holds_odd_number(content):
        raise ValueError("must hold only finite numbers, whole ones of at most 64 bits")
    return content


SiteJson = Annotated[Json, AfterValidator(_with_plain_numbers)]
"""What only the site's system understands. Anything JSON can say, with numbers that can be kept."""

UnitCommandType = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9_.-]{0,79}$")]
"""What the unit's connector understands, for example `orders.place` or `ping`."""

RejectionCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
"""A code of the unit's own system. It is not sealed, so it cannot be a sentence; what is to be told is the result."""


SupersedeKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
"""What only the newest word counts of, for example `price-list`. It is not sealed: a code, never a person's number."""

OUTCOME_UNKNOWN: Final = "outcome_unknown"
"""The unit began, and neither it nor the site's system can tell whether it was done."""
MAILBOX_LIMIT: Final = 1_000
"""Open unit commands that a unit may have where its settings say nothing."""


class OnReconnect(StrEnum):
    """What an agent that was away does with a command it receives late."""

    RUN = "run"
    REVALIDATE = "revalidate"
    """Ask the site's system whether it still makes sense before running it."""
    DROP = "drop"


class UnitCommandStatus(StrEnum):
    """Where a unit command stands. All but `queued` are final; a report that comes late changes none of them.

    `expired` and `rejected` ones can be tried again: they are queued once more, as the next attempt.
    """

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    """A newer command with the same supersede key was queued before the unit said anything."""


class _MailboxCommand(Command):
    model_config = ConfigDict(use_attribute_docstrings=True)  # callers read them in the API's description
    context: ClassVar[str] = "unit_command"
    may: ClassVar[frozenset[Role]] = ADMINS | CLINICAL | {Role.OPS}
    unit_command_id: UnitCommandId


class QueueUnitCommand(_MailboxCommand):
    """Have the unit do something, durably.

    It is done once, or ends as rejected, expired, cancelled or superseded, and by its deadline one of these is known.
    With a `supersedeKey`, an older command with the same key that the unit has not answered is superseded: of what is
    said under one key, the newest word counts.

    Refused: `mailbox_full` when the unit has as many open commands as it takes (1,000 unless its settings say
    otherwise), `deadline_in_past`, `patient_not_found`. `GET /api/commands/{id}` tells how far it has come, and by
    whose word.
    """

    version: ClassVar[int] = 2
    type: UnitCommandType
    """What the unit's connector understands, for example `orders.place`."""
    payload: Sealed[SiteJson] = Field(default_factory=dict)
    """What the system at the site needs to do it."""
    patient_id: PatientId | None = None
    """Whom it is about; the payload is sealed under that person's key, or the unit's own when None."""
    deadline: Instant
    """Final by then: without a word from the unit it ends as `expired`. Over HTTP 24 hours from now if left out."""
    on_reconnect: OnReconnect = OnReconnect.RUN
    """If the unit was away as it was queued: `run` it all the same, `revalidate` it with the site's system first, or
    `drop` it.
    """
    supersede_key: SupersedeKey | None = None
    """An open command to the unit with the same key is superseded by this one. New in version 2."""


class ReportUnitCommand(_MailboxCommand):
    """The unit tells what became of it.

    Offline: waits; made by the agent itself.
    """

    offline: ClassVar[Offline] = Offline.LATER
    version: ClassVar[int] = 2
    may: ClassVar[frozenset[Role]] = frozenset({Role.UNIT})
    applied: bool
    code: RejectionCode | None = None
    """Why it was rejected, or None."""
    result: Sealed[SiteJson | None] = None
    attempt: int = Field(1, ge=1)
    """Which attempt it tells of: what an earlier one was rejected for says nothing about the present one.

    New in version 2.
    """


class ExpireUnitCommand(_MailboxCommand):
    """The deadline has passed without a word from the unit (asked by the timer)."""

    version: ClassVar[int] = 2
    may: ClassVar[frozenset[Role]] = frozenset()
    attempt: int = Field(1, ge=1)
    """The attempt whose deadline it was. New in version 2."""


class SupersedeUnitCommand(_MailboxCommand):
    """A newer command with the same key takes its place (follows from queueing that one)."""

    may: ClassVar[frozenset[Role]] = frozenset()
    by: UnitCommandId


class RetryUnitCommand(_MailboxCommand):
    """Have a unit command that expired or was rejected run again, as its next attempt.

    One that the unit did after all is not done twice: it stays as it is. Where nobody knows whether it was done (code
    `outcome_unknown`), `confirm` says that it may be done a second time.

    Refused: `outcome_unknown` where that is needed and missing, `newer_unit_command` when a newer one with its key was
    queued, `unit_command_final` when it was cancelled or superseded, `mailbox_full`, `deadline_in_past`,
    `patient_erased`.
    """

    deadline: Instant | None = None
    """If left out: as long from now as it was given at first."""
    confirm: bool = False
    """It may be done although it may have been done already (code `outcome_unknown`)."""


class CancelUnitCommand(_MailboxCommand):
    """Have the unit not do it, if it has not yet.

    What the unit does all the same, because it had begun, is shown as its late report.

    Refused: `unit_command_final` when it has ended otherwise.
    """

    reason: Sealed[str | None] = Field(None, max_length=200)
    """For those who look later."""


class _MailboxEvent(Event):
    context: ClassVar[str] = "unit_command"
    unit_command_id: UnitCommandId
    unit_id: UnitId
    patient_id: PatientId | None = None

    def subject(self) -> str | None:
        return str(self.patient_id) if self.patient_id else f"unit:{self.unit_id}"


class UnitCommandQueued(_MailboxEvent):
    """The unit is to do something."""

    version: ClassVar[int] = 2
    type: UnitCommandType
    payload: Sealed[Json | None] = None
    deadline: Instant
    on_reconnect: OnReconnect
    supersede_key: SupersedeKey | None = None
    """New in version 2, as are the two below."""
    supersedes: UnitCommandId | None = None
    """The open command with the same key whose place it takes; None: there was none."""
    decided_at: Instant | None = None
    """When it was queued; None in version 1."""


class UnitCommandApplied(_MailboxEvent):
    """The unit did it."""

    result: Sealed[Json | None] = None
    late: bool = False
    """Reported after it had expired, been cancelled or superseded."""


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


class UnitCommandSuperseded(_MailboxEvent):
    """A newer command with the same key took its place before the unit said anything."""

    by: UnitCommandId


class UnitCommandRetried(_MailboxEvent):
    """The unit is to do it after all; what the unit has done already, it only reports again."""

    attempt: int
    """2 for the first time that it is tried again."""
    deadline: Instant
    confirmed: bool = False
    """Somebody has said that it may be done although it may have been done before."""


class UnitCommandNotFound(Refusal):
    """The unit has no command with this id in its mailbox."""


class UnitCommandAlreadyExists(Refusal):
    """A unit command with this id exists with other data."""


class UnitCommandFinal(Refusal):
    """The unit command has already ended."""


class DeadlineInPast(Refusal):
    """The deadline has already passed."""


class MailboxFull(Refusal):
    """The unit has as many open commands as its mailbox takes; queue this one when some of them have ended."""


class OutcomeUnknown(Refusal):
    """Nobody knows whether the unit has done it: confirm that it may be done twice, or leave it."""


class NewerUnitCommand(Refusal):
    """A newer unit command with the same supersede key was queued; this one is out of date."""


MailboxCommands = (
    QueueUnitCommand
    | ReportUnitCommand
    | ExpireUnitCommand
    | CancelUnitCommand
    | SupersedeUnitCommand
    | RetryUnitCommand
)
MailboxEvents = (
    UnitCommandQueued
    | UnitCommandApplied
    | UnitCommandRejected
    | UnitCommandExpired
    | UnitCommandCancelled
    | UnitCommandSuperseded
    | UnitCommandRetried
)
