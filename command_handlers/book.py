"""What is known of streams and claims while commands are decided: loaded state, and a command's own changes on top.

`Book` belongs to one batch, `Draft` to one command of it; a draft that is refused is simply dropped. `Memory` keeps the
state of streams between batches, for as long as their partition is ours. Loading is `command_handlers.loading`'s.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Aggregate, Claim
from command_handlers.domain.unit import UNIT, Unit
from contracts.envelope import CommandEnvelope
from contracts.identity import Actor
from contracts.model import Event
from contracts.refusals import NotOfThisUnit

S = TypeVar("S")


class Known(NamedTuple):
    """A stream as it stands."""

    unit_id: str | None
    """Whose it is; None: nothing has happened in it."""
    version: int
    state: Any  # Any: the state of the stream's aggregate


class NotLoaded(Exception):
    """A decision looked at something that is not at hand yet; load it and decide again."""

    def __init__(self, *, stream: str | None = None, claim: Claim | None = None, count: str | None = None) -> None:
        super().__init__(stream or count or "a claim")
        self.stream = stream
        self.claim = claim
        self.count = count


class Written(NamedTuple):
    """One new event and its place in its stream."""

    stream: str
    version: int
    event: Event


class Memory:
    """States of streams between batches, least recently used first out."""

    def __init__(self, limit: int = 100_000) -> None:
        self._streams: dict[int, OrderedDict[str, Known]] = {}
        self._limit = limit

    def recall(self, partition: int, stream: str) -> Known | None:
        """The stream as it stood after our last commit, or None when it has to be loaded."""
        streams = self._streams.get(partition)
        if streams is None or (known := streams.get(stream)) is None:
            return None
        streams.move_to_end(stream)
        return known

    def keep(self, partition: int, streams: Iterable[tuple[str, Known]]) -> None:
        """Remember what was committed."""
        kept = self._streams.setdefault(partition, OrderedDict())
        for stream, known in streams:
            kept[stream] = known
            kept.move_to_end(stream)
        share = max(1_000, self._limit // max(1, len(self._streams)))
        while len(kept) > share:
            kept.popitem(last=False)

    def forget(self, partition: int) -> None:
        """The partition is not ours, or we cannot be sure what was written to it."""
        self._streams.pop(partition, None)


@dataclass(slots=True)
class Book:
    """Everything a batch knows of one partition."""

    partition: int
    memory: Memory
    loaded: dict[str, Known] = field(default_factory=dict)
    """Streams read, and those this batch has changed."""
    changed: set[str] = field(default_factory=set)
    holders: dict[tuple[str, Claim], str | None] = field(default_factory=dict)
    """Who holds a claim in a unit, as read and as changed by this batch."""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many of a kind a unit had before this batch, as read."""
    added: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many this batch has added, or taken away."""

    def known(self, stream: str) -> Known | None:
        """The stream as this batch sees it, or None when it has to be loaded."""
        if (known := self.loaded.get(stream)) is None and (known := self.memory.recall(self.partition, stream)):
            self.loaded[stream] = known
        return known

    def remember(self) -> None:
        """The batch is committed: keep what it knows."""
        self.memory.keep(self.partition, self.loaded.items())


class Draft:
    """One command's decision in the making; what it sees is its unit's alone (a `Situation`)."""

    def __init__(self, book: Book, envelope: CommandEnvelope, at: datetime) -> None:
        self._book = book
        self._streams: dict[str, Known] = {}
        self._holders: dict[Claim, str | None] = {}
        self.added: Final[Counter[str]] = Counter()
        """How many of a kind this command adds, or takes away."""
        self.events: list[Written] = []
        self._unit: Unit | None = None
        """The unit as last looked at; None: not yet, or written to since."""
        self.at: Final = at
        self.issued_at: Final[datetime] = envelope.issued_at
        self.command_id: Final[UUID] = envelope.command_id
        self.unit_id: Final[str] = envelope.unit_id
        self.actor: Final[Actor] = envelope.actor

    @property
    def unit(self) -> Unit:
        if self._unit is None:
            self._unit = self.look(UNIT, f"unit-{self.unit_id}")
        return self._unit

    def look(self, aggregate: Aggregate[S, Any, Any], stream: str) -> S:  # Any: only the state's type matters here
        state: S = self.known(aggregate, stream).state
        return state

    def known(self, aggregate: Aggregate[Any, Any, Any], stream: str) -> Known:  # Any: any aggregate
        """The stream as this command sees it."""
        known = self._streams.get(stream) or self._book.known(stream)
        if known is None:
            raise NotLoaded(stream=stream)
        if known.unit_id != self.unit_id:
            # Nothing happened there, or it is another unit's: to this unit both look the same.
            return Known(None, 0, aggregate.initial)
        return known

    def holder(self, claim: Claim) -> str | None:
        if claim in self._holders:
            return self._holders[claim]
        try:
            return self._book.holders[self.unit_id, claim]
        except KeyError:
            raise NotLoaded(claim=claim) from None

    def count(self, kind: str) -> int:
        place = (self.unit_id, kind)
        try:
            return self._book.counts[place] + self._book.added[place] + self.added[kind]
        except KeyError:
            raise NotLoaded(count=kind) from None

    def add(self, kind: str, by: int) -> None:
        """Note that there are so many more of a kind."""
        self.added[kind] += by

    def write(self, stream: str, event: Event, state: Any) -> None:  # Any: the aggregate's state after the event
        """Note an event and the state it leads to."""
        known = self._streams.get(stream) or self._book.known(stream)
        if known is not None and known.unit_id not in (None, self.unit_id):
            raise NotOfThisUnit
        version = (known.version if known else 0) + 1
        self._streams[stream] = Known(self.unit_id, version, state)
        self.events.append(Written(stream, version, event))
        self._unit = None

    def hold(self, claim: Claim, stream: str | None) -> None:
        """Note who holds a claim from now on (None: nobody)."""
        self._holders[claim] = stream

    @property
    def holds(self) -> dict[Claim, str | None]:
        """Claims this command changed."""
        return self._holders

    def streams(self) -> set[str]:
        """Streams this command writes to."""
        return set(self._streams)

    def enter(self) -> None:
        """The decision stands: the rest of the batch sees it."""
        self._book.loaded.update(self._streams)
        self._book.changed.update(self._streams)
        for claim, stream in self._holders.items():
            self._book.holders[self.unit_id, claim] = stream
        for kind, by in self.added.items():
            self._book.added[self.unit_id, kind] += by


def initial(stream: str) -> Known:
    """A stream in which nothing has happened."""
    return Known(None, 0, aggregate_for(stream.partition("-")[0]).initial)
