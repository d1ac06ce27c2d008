"""Given what happened, when this is asked, then that follows: the rules alone, in memory, without engine or services.

`History` is one unit's past, as much of it as a test tells; `given(...)` begins a sentence about one command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID

import pytest

from command_handlers.domain.catalogue import aggregate_for, aggregate_of_stream
from command_handlers.domain.decider import Aggregate, Claim, Counted, Freed, Taken
from command_handlers.domain.encounter import encounter_stream
from command_handlers.domain.patient import patient_stream
from command_handlers.domain.processes import reactions
from command_handlers.domain.queue import queue_stream
from command_handlers.domain.staff import staff_stream
from command_handlers.domain.task import task_stream
from command_handlers.domain.unit import UNIT, Unit, admits, unit_stream
from command_handlers.domain.unit_command import unit_command_stream
from contracts.catalogue import AnyEvent
from contracts.envelope import Json
from contracts.identity import Actor, Role
from contracts.model import Command, Event, Refusal

S = TypeVar("S")

UNIT_ID = "north-clinic"
MORNING = datetime(2025, 3, 3, 8, 0, tzinfo=UTC)
DESK = Actor(subject="desk-1", role=Role.RECEPTIONIST, unit=UNIT_ID)


def stream_of(event: Event, unit_id: str = UNIT_ID) -> str:
    """The stream an event belongs in."""
    told: Any = event  # Any: which ids an event has depends on its context
    by_context: dict[str, Callable[[], str]] = {
        "unit": lambda: unit_stream(unit_id),
        "patient": lambda: patient_stream(told.patient_id),
        "encounter": lambda: encounter_stream(told.encounter_id),
        "queue": lambda: queue_stream(unit_id, told.department, told.service_day),
        "unit_command": lambda: unit_command_stream(told.unit_command_id),
        "task": lambda: task_stream(told.task_id),
        "staff": lambda: staff_stream(told.account_id),
    }
    return by_context[event.context]()


@dataclass
class History:
    """What has happened at a unit, and the situation in which its next command is decided."""

    at: datetime = MORNING
    issued_at: datetime = MORNING
    command_id: UUID = field(default_factory=lambda: UUID(int=1))
    unit_id: str = UNIT_ID
    actor: Actor = DESK
    events: list[Event] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)  # Any: each stream's state is its aggregate's
    holders: dict[Claim, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    looked_at: set[str | Claim] = field(default_factory=set)

    @property
    def unit(self) -> Unit:
        """The unit as it stands."""
        return self.state(UNIT, unit_stream(self.unit_id))

    def state(self, aggregate: Aggregate[S, Any, Any], stream: str) -> S:  # Any: only the state's type matters here
        """The state of a stream."""
        state: S = self.states.get(stream, aggregate.initial)
        return state

    def look(self, aggregate: Aggregate[S, Any, Any], stream: str) -> S:  # Any: only the state's type matters here
        """The state of another stream, noted as looked at."""
        self.looked_at.add(stream)
        return self.state(aggregate, stream)

    def holder(self, claim: Claim) -> str | None:
        """Who holds a claim, noted as looked at."""
        self.looked_at.add(claim)
        return self.holders.get(claim)

    def count(self, kind: str) -> int:
        """How many the unit has of something, noted as looked at."""
        self.looked_at.add(kind)
        return self.counts[kind]

    def note(self, *events: Event) -> Self:
        """This happened."""
        for event in events:
            stream = stream_of(event, self.unit_id)
            aggregate = aggregate_of_stream(stream)
            state = self.state(aggregate, stream)
            for change in aggregate.claims(state, event):
                match change:
                    case Taken(claim, from_anybody):
                        assert from_anybody or self.holders.get(claim, stream) == stream, f"two streams hold {claim}"
                        self.holders[claim] = stream
                    case Freed(claim):
                        assert self.holders.pop(claim, stream) == stream, f"{claim} freed by another stream"
                    case Counted(kind, by):
                        self.counts[kind] += by
            self.states[stream] = aggregate.evolve(state, event)
            self.events.append(event)
        return self

    def decide(self, command: Command) -> list[Event]:
        """What the command comes to by itself; raises the refusal. Nothing is noted."""
        admits(command, self.unit)
        aggregate = aggregate_for(command)
        stream = aggregate.stream(command, self)
        self.looked_at.add(stream)
        events: list[Event] = aggregate.decide(command, self.state(aggregate, stream), self)
        return events

    def carry_out(self, command: Command) -> list[Event]:
        """What the command and all that follows from it come to, noted; a refusal is raised and nothing noted."""
        draft = self.copy()
        try:
            done = draft._carried_out(command)
        finally:
            self.looked_at |= draft.looked_at
        self.events, self.states, self.holders = draft.events, draft.states, draft.holders
        self.counts = draft.counts
        return done

    def _carried_out(self, command: Command) -> list[Event]:
        events = self.decide(command)
        self.note(*events)
        followed = [self._carried_out(reaction) for event in events for reaction in reactions(event, self)]
        return [*events, *(event for more in followed for event in more)]

    def answer(self, command: Command) -> Json:
        """What the caller is told, as things stand now."""
        aggregate = aggregate_for(command)
        return aggregate.answer(command, self.state(aggregate, aggregate.stream(command, self)))

    def copy(self) -> History:
        """The same past, from which another future may follow."""
        return replace(
            self,
            events=[*self.events],
            states={**self.states},
            holders={**self.holders},
            counts=Counter(self.counts),
            looked_at={*self.looked_at},
        )


@dataclass(frozen=True)
class When:
    """A command that is asked on a history."""

    history: History
    command: Command

    def then(self, *events: AnyEvent) -> None:
        """Exactly these events follow; none: it was already so."""
        assert self.history.decide(self.command) == list(events)

    def then_refused(self, refusal: type[Refusal], **about: str) -> None:
        """A rule says no, and tells at least this about it (JSON names)."""
        with pytest.raises(refusal) as caught:
            self.history.decide(self.command)
        assert caught.type is refusal
        assert caught.value.about.items() >= about.items()

    def answers(self, **said: object) -> None:
        """The caller is told exactly this (JSON names)."""
        history = self.history.copy()
        history.note(*history.decide(self.command))
        assert history.answer(self.command) == said


@dataclass(frozen=True)
class Given:
    """A history, before anything is asked."""

    history: History

    def at(self, at: datetime | timedelta) -> Given:
        """The moment of decision, or how long after the morning it is; the command was given just then."""
        now = MORNING + at if isinstance(at, timedelta) else at
        history = self.history.copy()
        history.at = history.issued_at = now
        return Given(history)

    def when(self, command: Command) -> When:
        """This is asked."""
        return When(self.history, command)


def given(*events: AnyEvent) -> Given:
    """This has happened at the unit, in this order."""
    return Given(History().note(*events))
