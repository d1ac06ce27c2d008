"""Deciding one command: the aggregate's rule, then what follows from what happened, all or nothing. Pure.

What is not at hand is asked for by raising `NotLoaded`; `command_handlers.batch` loads it and decides again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from command_handlers.book import Book, Draft
from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Counted, Freed, Notice, Taken, Timer
from command_handlers.domain.processes import conflict, notices, reactions, timers, timers_over
from command_handlers.domain.unit import admits
from contracts.envelope import CommandEnvelope, Json, Origin, Status
from contracts.identity import SYSTEM
from contracts.ids import keyed_command_id
from contracts.model import Command, Refusal
from contracts.refusals import VersionConflict
from contracts.task import CONFLICT

MOST_REACTIONS = 20
"""A command that sets off more than this is going in circles."""


class ClaimBroken(Exception):
    """An event takes what another stream holds: the aggregate decided without asking (a bug)."""


@dataclass(slots=True)
class Decision:
    """What one command comes to."""

    status: Status
    stream: str | None = None
    """The stream it was decided on; None when it did not get that far."""
    result: Json | None = None
    code: str | None = None
    detail: str | None = None
    about: dict[str, str] | None = None
    draft: Draft | None = None
    """Its changes, when accepted."""
    timers: list[Timer] = field(default_factory=list)
    follow_up: FollowUp | None = None
    """What its refusal leads to; None: nothing."""
    timers_over: list[UUID] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


class FollowUp(NamedTuple):
    """A command that follows from a refusal, decided; it is written with it, as a command with a receipt of its own."""

    envelope: CommandEnvelope
    decision: Decision


def decide(book: Book, envelope: CommandEnvelope, command: Command, *, at: datetime) -> Decision:
    """Decide `command` on what `book` knows; changes are only in the returned draft until it is entered."""
    draft = Draft(book, envelope, at)
    decision = Decision(Status.ACCEPTED, draft=draft)
    try:
        admits(command, draft.unit)
        decision.stream = aggregate_for(command).stream(command, draft)
        if envelope.expected_version is not None:
            _expect(draft, command, decision.stream, envelope.expected_version)
        decision.result = _carry_out(draft, command, decision, depth=0)
    except Refusal as no:
        refused = Decision(
            Status.REFUSED, stream=decision.stream, code=no.code(), detail=no.message(), about=no.about or None
        )
        if envelope.origin is Origin.UNIT and no.leaves_work:
            refused.follow_up = _followed_up(book, envelope, command, refused, at=at)
        return refused
    if not draft.events:
        decision.status = Status.UNCHANGED
    return decision


def _followed_up(
    book: Book, envelope: CommandEnvelope, command: Command, refused: Decision, *, at: datetime
) -> FollowUp | None:
    """What follows from the refusal of what was done at a unit: a command of ours, with an id that follows from it."""
    draft = Draft(book, envelope, at)
    if draft.unit.status is None or refused.code is None:
        return None  # there is nobody whose task it could be
    follows = conflict(command, refused.code, draft)
    ours = envelope.model_copy(
        update={
            "command_id": keyed_command_id(f"{SYSTEM.subject}:{CONFLICT}", envelope.unit_id, str(envelope.command_id)),
            "type": follows.type_name(),
            "type_version": follows.version,
            "payload": follows.to_dict(),
            "actor": SYSTEM,
            "request_hash": f"{CONFLICT}:{envelope.command_id}",
            "origin": Origin.PROCESS,
            "causation_id": envelope.command_id,
            "expected_version": None,
            "reply_to": None,
            "replay": None,
        }
    )
    return FollowUp(ours, decide(book, ours, follows, at=at))


def _expect(draft: Draft, command: Command, stream: str, version: int) -> None:
    if draft.known(aggregate_for(command), stream).version != version:
        raise VersionConflict(stream_version=draft.known(aggregate_for(command), stream).version)


def _carry_out(draft: Draft, command: Command, decision: Decision, *, depth: int) -> Json:
    if depth > MOST_REACTIONS:
        raise RecursionError(f"more than {MOST_REACTIONS} reactions to one command")
    aggregate = aggregate_for(command)
    stream = aggregate.stream(command, draft)
    state: Any = draft.known(aggregate, stream).state  # Any: the state of whatever aggregate this is
    events = aggregate.decide(command, state, draft)
    for event in events:
        for change in aggregate.claims(state, event):
            _settle_claim(draft, change, stream)
        state = aggregate.evolve(state, event)
        draft.write(stream, event, state)
        decision.notices.extend(notices(event, state))
        decision.timers_over.extend(timers_over(event, state))
    answer = aggregate.answer(command, state)
    for event in events:
        decision.timers.extend(timers(event))
        for reaction in reactions(event, draft):
            answer = {**_carry_out(draft, reaction, decision, depth=depth + 1), **answer}
    return answer


def _settle_claim(draft: Draft, change: Taken | Freed | Counted, stream: str) -> None:
    match change:
        case Taken(claim, from_anybody):
            if not from_anybody and draft.holder(claim) not in (None, stream):
                raise ClaimBroken(f"{claim.kind} is held by another stream")
            draft.hold(claim, stream)
        case Freed(claim):
            if draft.holder(claim) == stream:
                draft.hold(claim, None)
        case Counted(kind, by):
            draft.add(kind, by)
