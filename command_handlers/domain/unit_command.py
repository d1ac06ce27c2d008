"""The rules of a unit's mailbox: queued until the unit reports, the deadline passes, somebody calls it off or a newer
command takes its place.

It ends once in each attempt. What the unit tells after an end that was not its own is recorded as late and changes
nothing; what expired or was rejected can be tried again, and what was done is never asked for twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeGuard, assert_never
from uuid import UUID, uuid5

from command_handlers.domain.decider import Aggregate, Claim, Counted, Notice, Situation, Taken
from command_handlers.domain.patient import PATIENT, patient_stream
from contracts.dead_letter import Reason
from contracts.envelope import Json
from contracts.ids import UnitCommandId
from contracts.model import Event
from contracts.unit_command import (
    MAILBOX_LIMIT,
    OUTCOME_UNKNOWN,
    CancelUnitCommand,
    DeadlineInPast,
    ExpireUnitCommand,
    MailboxCommands,
    MailboxEvents,
    MailboxFull,
    NewerUnitCommand,
    OutcomeUnknown,
    QueueUnitCommand,
    ReportUnitCommand,
    RetryUnitCommand,
    SupersedeUnitCommand,
    UnitCommandAlreadyExists,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandFinal,
    UnitCommandNotFound,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandStatus,
    UnitCommandSuperseded,
)

OPEN_COMMANDS: Final = "open_unit_commands"
"""What a unit's mailbox is full of."""
MailboxEnds = UnitCommandApplied | UnitCommandRejected | UnitCommandCancelled | UnitCommandSuperseded
USUAL_TIME: Final = timedelta(hours=24)
"""How long a further attempt is given where it is not known how long the first one was."""


@dataclass(frozen=True, slots=True)
class UnitCommandState:
    """What decisions need to know of a unit command; the defaults are one that was never queued."""

    queued: UnitCommandQueued | None = None
    """As it was queued; None: never."""
    status: UnitCommandStatus | None = None
    """None: never queued."""
    reported: UnitCommandStatus | None = None
    """What the unit said of this attempt, in time or late: applied or rejected; None: nothing so far."""
    code: str | None = None
    """Why the unit rejected this attempt; None: it has not."""
    in_doubt: bool = False
    """In this attempt or an earlier one the unit began, and nobody knows whether it was done."""
    attempt: int = 1
    deadline: datetime | None = None
    """Of this attempt; None: never queued."""

    @property
    def is_done(self) -> bool:
        """The unit has said, in time or late, that it did it."""
        return self.reported is UnitCommandStatus.APPLIED


def unit_command_stream(unit_command_id: UUID) -> str:
    """The stream of one unit command."""
    return f"unit_command-{unit_command_id}"


def supersede_claim(key: str) -> Claim:
    """Held by the newest command of a key, open or ended: whatever is older is out of date."""
    return Claim("supersede", key)


def attempt_key(unit_command_id: UUID, attempt: int) -> UUID:
    """What the timer and the notice of one attempt follow from."""
    return uuid5(unit_command_id, f"attempt:{attempt}")


def has_ended(event: Event) -> TypeGuard[MailboxEnds]:
    """Whether the event ends an attempt before its deadline does."""
    match event:
        case UnitCommandApplied(late=late) | UnitCommandRejected(late=late):
            return not late
        case _:
            return isinstance(event, UnitCommandCancelled | UnitCommandSuperseded)


def stream(command: MailboxCommands, situation: Situation) -> str:
    """`unit_command-<unit_command_id>`."""
    return unit_command_stream(command.unit_command_id)


def decide(command: MailboxCommands, state: UnitCommandState, situation: Situation) -> list[MailboxEvents]:
    """New events, `[]` when it is already so."""
    if isinstance(command, QueueUnitCommand):
        return _queued(command, state, situation)
    unit_command_id, queued = command.unit_command_id, state.queued
    if queued is None:
        raise UnitCommandNotFound(unit_command_id=str(unit_command_id))
    about = {"unit_command_id": unit_command_id, "unit_id": queued.unit_id, "patient_id": queued.patient_id}
    is_open = state.status is UnitCommandStatus.QUEUED
    match command:
        case ReportUnitCommand():
            return _reported(command, queued, state)
        case ExpireUnitCommand(attempt=attempt):
            # No look at the clock: only the timer asks, and a slow clock's second opinion would leave it open for ever.
            return [UnitCommandExpired(**about)] if is_open and attempt == state.attempt else []
        case SupersedeUnitCommand(by=by):
            return [UnitCommandSuperseded(**about, by=by)] if is_open else []
        case CancelUnitCommand() if state.status is UnitCommandStatus.CANCELLED:
            return []
        case CancelUnitCommand(reason=reason):
            if not is_open:
                raise UnitCommandFinal(unit_command_id=str(unit_command_id), status=str(state.status))
            return [UnitCommandCancelled(**about, reason=reason)]
        case RetryUnitCommand():
            return _retried(command, queued, state, situation)
        case _:
            assert_never(command)


def _queued(command: QueueUnitCommand, state: UnitCommandState, situation: Situation) -> list[MailboxEvents]:
    queued = UnitCommandQueued(
        unit_command_id=command.unit_command_id,
        unit_id=situation.unit_id,
        patient_id=command.patient_id,
        type=command.type,
        payload=command.payload,
        deadline=command.deadline,
        on_reconnect=command.on_reconnect,
        supersede_key=command.supersede_key,
    )
    if state.queued is not None:
        if state.queued.model_copy(update={"supersedes": None, "decided_at": None}) == queued:
            return []
        raise UnitCommandAlreadyExists(unit_command_id=str(command.unit_command_id))
    if command.deadline <= situation.at:
        raise DeadlineInPast
    if command.patient_id is not None:
        # The payload will be sealed under this person's key, so there has to be such a person.
        situation.look(PATIENT, patient_stream(command.patient_id)).require_kept(command.patient_id)
    older = _newest(command.supersede_key, situation)
    is_open = older is not None and older.status is UnitCommandStatus.QUEUED
    if not is_open:  # else one goes as one comes
        _require_room(situation)
    supersedes = older.queued.unit_command_id if is_open and older and older.queued else None
    return [queued.model_copy(update={"supersedes": supersedes, "decided_at": situation.at})]


def _newest(key: str | None, situation: Situation) -> UnitCommandState | None:
    """The newest command of the key, None when there was none."""
    holder = None if key is None else situation.holder(supersede_claim(key))
    return None if holder is None else situation.look(MAILBOX, holder)


def _require_room(situation: Situation) -> None:
    limit = situation.unit.settings.mailbox_limit or MAILBOX_LIMIT
    if situation.count(OPEN_COMMANDS) >= limit:
        raise MailboxFull(limit=limit)


def _retried(
    command: RetryUnitCommand, queued: UnitCommandQueued, state: UnitCommandState, situation: Situation
) -> list[MailboxEvents]:
    if state.is_done or state.status is UnitCommandStatus.QUEUED:
        return []
    if state.status not in (UnitCommandStatus.EXPIRED, UnitCommandStatus.REJECTED):
        raise UnitCommandFinal(unit_command_id=str(command.unit_command_id), status=str(state.status))
    newest = _newest(queued.supersede_key, situation)
    if newest is not None and newest.queued is not None and newest.queued.unit_command_id != queued.unit_command_id:
        raise NewerUnitCommand(unit_command_id=str(newest.queued.unit_command_id))
    if state.in_doubt and not command.confirm:
        raise OutcomeUnknown(unit_command_id=str(command.unit_command_id))
    if queued.patient_id is not None:
        # What exactly was asked went with the key of a person who was erased.
        situation.look(PATIENT, patient_stream(queued.patient_id)).require_kept(queued.patient_id)
    given = USUAL_TIME if queued.decided_at is None else queued.deadline - queued.decided_at
    deadline = command.deadline or situation.at + given
    if deadline <= situation.at:
        raise DeadlineInPast
    _require_room(situation)
    return [
        UnitCommandRetried(
            unit_command_id=queued.unit_command_id,
            unit_id=queued.unit_id,
            patient_id=queued.patient_id,
            attempt=state.attempt + 1,
            deadline=deadline,
            confirmed=command.confirm and state.in_doubt,
        )
    ]


def _reported(command: ReportUnitCommand, queued: UnitCommandQueued, state: UnitCommandState) -> list[MailboxEvents]:
    verdict = UnitCommandStatus.APPLIED if command.applied else UnitCommandStatus.REJECTED
    if state.reported is verdict or (command.attempt < state.attempt and not command.applied):
        return []  # told twice; or told of an attempt that another has followed: the unit says more of that one
    if state.reported is not None:
        raise UnitCommandFinal(unit_command_id=str(command.unit_command_id), status=str(state.status))
    late = state.status is not UnitCommandStatus.QUEUED
    if command.applied:
        return [
            UnitCommandApplied(
                unit_command_id=command.unit_command_id,
                unit_id=queued.unit_id,
                patient_id=queued.patient_id,
                result=command.result,
                late=late,
            )
        ]
    return [
        UnitCommandRejected(
            unit_command_id=command.unit_command_id,
            unit_id=queued.unit_id,
            patient_id=queued.patient_id,
            code=command.code or "rejected",
            result=command.result,
            late=late,
        )
    ]


def evolve(state: UnitCommandState, event: MailboxEvents) -> UnitCommandState:
    """The unit command after what happened."""
    match event:
        case UnitCommandQueued():
            return UnitCommandState(event, UnitCommandStatus.QUEUED, deadline=event.deadline)
        case UnitCommandApplied():
            return _told(state, UnitCommandStatus.APPLIED, None, late=event.late)
        case UnitCommandRejected():
            return _told(state, UnitCommandStatus.REJECTED, event.code, late=event.late)
        case UnitCommandExpired():
            return replace(state, status=UnitCommandStatus.EXPIRED)
        case UnitCommandCancelled():
            return replace(state, status=UnitCommandStatus.CANCELLED)
        case UnitCommandSuperseded():
            return replace(state, status=UnitCommandStatus.SUPERSEDED)
        case UnitCommandRetried():
            return UnitCommandState(
                state.queued,
                UnitCommandStatus.QUEUED,
                in_doubt=state.in_doubt,
                attempt=event.attempt,
                deadline=event.deadline,
            )
        case _:
            assert_never(event)


def _told(state: UnitCommandState, verdict: UnitCommandStatus, code: str | None, *, late: bool) -> UnitCommandState:
    in_doubt = state.in_doubt or code == OUTCOME_UNKNOWN
    return replace(state, reported=verdict, code=code, in_doubt=in_doubt, status=state.status if late else verdict)


def claims(state: UnitCommandState, event: MailboxEvents) -> Sequence[Taken | Counted]:
    """The newest command of a key holds it, for ever; and what is open fills the mailbox."""
    match event:
        case UnitCommandQueued(supersede_key=None) | UnitCommandRetried():
            return (Counted(OPEN_COMMANDS, 1),)
        case UnitCommandQueued(supersede_key=str(key)):
            return (Taken(supersede_claim(key), from_anybody=True), Counted(OPEN_COMMANDS, 1))
        case UnitCommandApplied(late=True) | UnitCommandRejected(late=True):
            return ()
        case _:
            return (Counted(OPEN_COMMANDS, -1),)


def notices_of(event: Event, state: UnitCommandState) -> list[Notice]:
    """A command that expired or that the unit rejected is the operators' to look at, once for each attempt.

    Unless it turns out to be done, or somebody has it tried again: then it is theirs no more.
    """
    has_expired = state.status is UnitCommandStatus.EXPIRED
    match event:
        case UnitCommandExpired():
            return _notice(state, Reason.UNIT_EXPIRED)
        case UnitCommandRejected(late=late, code=code) if has_expired or not late:
            return _notice(state, Reason.UNIT_REJECTED, code=code)
        case UnitCommandApplied(late=True) if has_expired:
            return _notice(state, Reason.UNIT_SETTLED, resolution="applied late")
        case UnitCommandRetried(attempt=attempt):
            return _notice(replace(state, attempt=attempt - 1), Reason.UNIT_SETTLED, resolution="tried again")
        case _:
            return []


def _notice(
    state: UnitCommandState, reason: Reason, *, code: str | None = None, resolution: str | None = None
) -> list[Notice]:
    if state.queued is None:
        return []
    codes = [state.queued.type, *([code] if code else [])]
    if state.in_doubt and code != OUTCOME_UNKNOWN:
        codes.append(OUTCOME_UNKNOWN)  # of an earlier attempt, and unknown to this day
    unit_command_id = UnitCommandId(state.queued.unit_command_id)
    return [
        Notice(
            id=attempt_key(unit_command_id, state.attempt),
            reason=reason,
            about="/".join(codes),
            stream=unit_command_stream(unit_command_id),
            again=RetryUnitCommand(unit_command_id=unit_command_id),
            resolution=resolution,
        )
    ]


def answer(command: MailboxCommands, state: UnitCommandState) -> Json:
    """The unit command's id and where it stands; of one that was tried again, which attempt this is."""
    told: Json = {"id": str(command.unit_command_id), "status": state.status}
    if state.attempt > 1:
        told["attempt"] = state.attempt
    if isinstance(command, RetryUnitCommand) and state.deadline is not None:
        told["deadline"] = state.deadline.isoformat()
    return told


MAILBOX: Final = Aggregate(
    context="unit_command",
    initial=UnitCommandState(),
    stream=stream,
    decide=decide,
    evolve=evolve,
    claims=claims,
    answer=answer,
)
