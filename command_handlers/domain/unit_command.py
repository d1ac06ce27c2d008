"""The rules of a unit's mailbox: queued until the unit reports, the deadline passes or somebody calls it off.

It ends once. What the unit tells after an end that was not its own is recorded as late and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never
from uuid import UUID

from command_handlers.domain.decider import Aggregate, Freed, Situation, Taken
from command_handlers.domain.patient import PATIENT, patient_stream
from contracts.envelope import Json
from contracts.unit_command import (
    CancelUnitCommand,
    DeadlineInPast,
    ExpireUnitCommand,
    MailboxCommands,
    MailboxEvents,
    QueueUnitCommand,
    ReportUnitCommand,
    UnitCommandAlreadyExists,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandFinal,
    UnitCommandNotFound,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandStatus,
)


@dataclass(frozen=True, slots=True)
class UnitCommandState:
    """What decisions need to know of a unit command; the defaults are one that was never queued."""

    queued: UnitCommandQueued | None = None
    """As it was queued; None: never."""
    status: UnitCommandStatus | None = None
    """None: never queued."""
    reported: UnitCommandStatus | None = None
    """What the unit said, in time or late: applied or rejected; None: nothing so far."""


def unit_command_stream(unit_command_id: UUID) -> str:
    """The stream of one unit command."""
    return f"unit_command-{unit_command_id}"


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
    match command:
        case ReportUnitCommand():
            return _reported(command, queued, state)
        case ExpireUnitCommand():
            # No look at the clock: only the timer asks, and a slow clock's second opinion would leave it open for ever.
            if state.status is not UnitCommandStatus.QUEUED:
                return []
            return [
                UnitCommandExpired(
                    unit_command_id=unit_command_id, unit_id=queued.unit_id, patient_id=queued.patient_id
                )
            ]
        case CancelUnitCommand() if state.status is UnitCommandStatus.CANCELLED:
            return []
        case CancelUnitCommand() if state.status is not UnitCommandStatus.QUEUED:
            raise UnitCommandFinal(unit_command_id=str(unit_command_id), status=str(state.status))
        case CancelUnitCommand(reason=reason):
            return [
                UnitCommandCancelled(
                    unit_command_id=unit_command_id,
                    unit_id=queued.unit_id,
                    patient_id=queued.patient_id,
                    reason=reason,
                )
            ]
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
    )
    if state.queued is not None:
        if state.queued == queued:
            return []
        raise UnitCommandAlreadyExists(unit_command_id=str(command.unit_command_id))
    if command.deadline <= situation.at:
        raise DeadlineInPast
    if command.patient_id is not None:
        # The payload will be sealed under this person's key, so there has to be such a person.
        situation.look(PATIENT, patient_stream(command.patient_id)).require_kept(command.patient_id)
    return [queued]


def _reported(command: ReportUnitCommand, queued: UnitCommandQueued, state: UnitCommandState) -> list[MailboxEvents]:
    verdict = UnitCommandStatus.APPLIED if command.applied else UnitCommandStatus.REJECTED
    if state.reported is verdict:
        return []
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
            return UnitCommandState(event, UnitCommandStatus.QUEUED)
        case UnitCommandApplied():
            return _told(state, UnitCommandStatus.APPLIED, late=event.late)
        case UnitCommandRejected():
            return _told(state, UnitCommandStatus.REJECTED, late=event.late)
        case UnitCommandExpired():
            return replace(state, status=UnitCommandStatus.EXPIRED)
        case UnitCommandCancelled():
            return replace(state, status=UnitCommandStatus.CANCELLED)
        case _:
            assert_never(event)


def _told(state: UnitCommandState, verdict: UnitCommandStatus, *, late: bool) -> UnitCommandState:
    return replace(state, reported=verdict, status=state.status if late else verdict)


def claims(state: UnitCommandState, event: MailboxEvents) -> Sequence[Taken | Freed]:
    """Nothing is unique about a unit command but its id."""
    return ()


def answer(command: MailboxCommands, state: UnitCommandState) -> Json:
    """The unit command's id and where it stands."""
    return {"id": str(command.unit_command_id), "status": state.status}


MAILBOX: Final = Aggregate(
    context="unit_command",
    initial=UnitCommandState(),
    stream=stream,
    decide=decide,
    evolve=evolve,
    claims=claims,
    answer=answer,
)
