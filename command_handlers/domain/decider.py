"""What an aggregate is: an initial state and pure functions over it, and what a decision may look at.

`command_handlers.deciding` calls, others load and append; the aggregates say what is right. Nothing here waits, logs or
reads a clock: the moment of decision is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from uuid import UUID, uuid5

from contracts.dead_letter import Reason
from contracts.envelope import Json
from contracts.identity import Actor
from contracts.model import Command, Event

if TYPE_CHECKING:
    from command_handlers.domain.unit import Unit

S = TypeVar("S")
C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that only one stream of a unit may hold: `Claim("mrn", "MRN-1")`. The key is stored only hashed."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The stream now holds the claim."""

    claim: Claim
    from_anybody: bool = False
    """Whoever held it before loses it; else nobody may have held it."""


@dataclass(frozen=True, slots=True)
class Freed:
    """The stream no longer holds the claim."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Counted:
    """The unit has so many more, or fewer, of something that is counted."""

    kind: str
    by: int


class Situation(Protocol):
    """What a decision may look at besides its own state. Everything in it belongs to the command's unit."""

    @property
    def at(self) -> datetime:
        """The moment of decision, UTC (ours)."""

    @property
    def issued_at(self) -> datetime:
        """When the command was given, UTC (claimed where it was given at a unit)."""

    @property
    def command_id(self) -> UUID:
        """The command's id; new ids are derived from it."""

    @property
    def unit_id(self) -> str:
        """The command's unit."""

    @property
    def actor(self) -> Actor:
        """Who asks."""

    @property
    def unit(self) -> Unit:
        """The unit's state; its initial state when no such unit is registered."""

    def look(self, aggregate: Aggregate[S, Any, Any], stream: str) -> S:  # Any: only the state's type matters here
        """The state of another stream of the same unit, its initial state when nothing happened there."""

    def holder(self, claim: Claim) -> str | None:
        """The stream that holds the claim within the unit, or None."""

    def count(self, kind: str) -> int:
        """How many the unit has of something that its events count (`Counted`)."""


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S, C, E]):
    """Data plus pure functions. An empty decision means: already so (`unchanged`)."""

    context: str
    initial: S
    stream: Callable[[C, Situation], str]
    """The stream the command is decided on: `<context>-<id>`."""
    decide: Callable[[C, S, Situation], list[E]]
    """New events, `[]` when it is already so; raises a `Refusal` when a rule says no."""
    evolve: Callable[[S, E], S]
    claims: Callable[[S, E], Sequence[Taken | Freed | Counted]]
    """What the event takes, frees and counts, by the state before it."""
    answer: Callable[[C, S], Json]
    """What the caller is told, by the state after the decision: ids, tickets and codes in camelCase; never identity."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A command that is to be given at `due_at`."""

    due_at: datetime
    command: Command
    key: UUID | None = None
    """What it can be found by when its time need not come any more; None: it always comes."""

    def id(self, cause: UUID) -> UUID:
        """Its id, which is its command's too: the same for every try of the command that caused it."""
        return timer_id(self.key or cause, self.command.type_name())


@dataclass(frozen=True, slots=True)
class Notice:
    """Something for the operators' desk: a command that ended otherwise than asked, and the command that tries again.

    Nothing in it is sealed: it is a letter's description, and the command in it must carry ids only.
    """

    id: UUID
    """The same end has one notice, however often it is told."""
    reason: Reason
    about: str
    """What was asked and, after a `/`, why it was not done: codes only."""
    stream: str
    again: Command
    resolution: str | None = None
    """How what an earlier notice told of was dealt with; None: this tells of something to be dealt with."""


def timer_id(key: UUID, type_name: str) -> UUID:
    """The id of the timer of a kind that a key has."""
    return uuid5(key, f"timer:{type_name}")
