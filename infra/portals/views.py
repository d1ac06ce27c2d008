"""What facts mean on a portal: each becomes at most one event that carries the whole of what it is about.

Whole, because a portal that cannot keep up is sent only the newest event of each thing. Most facts say only what
changed, so the state of each stream is kept and folded on; a fact whose stream is not known that far has to wait until
the stream was read from the log (`misses`). Pure, and nothing of a person but ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from contracts.catalogue import EVENTS, UPCASTS
from contracts.envelope import Fact
from contracts.portal import Event, PatientStatusChanged
from infra.portals.folds import FOLDS, Data, State

STREAMS_KNOWN: Final = 10_000
"""Streams whose state is kept; the one not asked for longest goes first, and is read again when something happens."""


class Shown:
    """An event on its way to portals, written as JSON once however many there are."""

    __slots__ = ("_json", "_sse", "department", "event", "key", "position", "topic")

    def __init__(self, event: Event, key: str, department: str | None) -> None:
        self.event = event
        self.key = key
        """A newer event with the same key makes this one needless."""
        self.department = department
        """None: not of one department."""
        self.topic = event.topic
        self.position = event.position
        self._json: bytes | None = None
        self._sse: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The frame of the socket."""
        if self._json is None:
            self._json = self.event.to_json()
        return self._json

    @property
    def sse(self) -> bytes:
        """The same as a Server-Sent Event: its id is the position to resume from."""
        if self._sse is None:
            self._sse = b"id: %d\nevent: %b\ndata: %b\n\n" % (self.position, self.event.event.encode(), self.frame)
        return self._sse


class Views:
    """Folds a unit's facts (or those of many units) and says what each means."""

    def __init__(self, most: int = STREAMS_KNOWN, *, fault: Callable[[Fact, Exception], None] | None = None) -> None:
        """`fault` is told of facts that cannot be shown; nothing else happens to them."""
        self._fault = fault
        self._streams: OrderedDict[str, tuple[int, State]] = OrderedDict()
        """stream -> (version, state), the one used longest ago first."""
        self._most = most

    def misses(self, facts: Iterable[Fact]) -> list[str]:
        """Streams that must be read from the log before these facts, in this order, can be shown."""
        ahead: dict[str, int] = {}
        missing: dict[str, None] = {}
        for fact in facts:
            if fact.type.partition(".")[0] not in FOLDS:
                continue
            known = ahead.get(fact.stream)
            if known is None:
                known = self._streams[fact.stream][0] if fact.stream in self._streams else 0
            if fact.stream_version > known + 1:
                missing[fact.stream] = None
            ahead[fact.stream] = max(known, fact.stream_version)
        return list(missing)

    def learn(self, facts: Iterable[Fact], before: Mapping[str, int]) -> None:
        """Fold what happened earlier in streams that were missing: facts below the version each is needed from."""
        for fact in facts:
            if fact.stream_version < before.get(fact.stream, 0):
                self._fold(fact)

    def show(self, unit_id: str, fact: Fact) -> Shown | None:
        """The event of a fact that misses nothing; None when portals are not told of it."""
        told = self._fold(fact)
        if told is None:
            return None
        name, topic, key, data = told
        event = Event(event=name, topic=topic, position=fact.position, unit_id=unit_id, at=fact.recorded_at, data=data)
        department = data.visit.department if isinstance(data, PatientStatusChanged) and data.visit else None
        return Shown(event, key, getattr(data, "department", department))

    def forget(self) -> None:
        """Nothing is known any more."""
        self._streams.clear()

    def _fold(self, fact: Fact) -> Data | None:
        fold = FOLDS.get(fact.type.partition(".")[0])
        if fold is None:
            return None
        version, state = self._streams.pop(fact.stream, (0, {}))
        if fact.stream_version <= version:  # seen already
            self._streams[fact.stream] = version, state
            return None
        told = None
        try:
            told = fold(_today(fact), state)
        except (LookupError, TypeError, ValueError) as why:  # of a newer release, or bad: the others go on
            if self._fault is not None:
                self._fault(fact, why)
        self._streams[fact.stream] = fact.stream_version, state
        if len(self._streams) > self._most:
            self._streams.popitem(last=False)
        return told


def _today(fact: Fact) -> Fact:
    """The fact as this release writes it. Raises LookupError for one of a newer release."""
    word = EVENTS.get(fact.type)
    if word is None or fact.version == word.version:
        return fact
    payload = fact.payload
    for version in range(fact.version, word.version):
        payload = UPCASTS[fact.type, version](payload)
    if fact.version > word.version:
        raise LookupError(fact.type)
    return fact.model_copy(update={"payload": payload})
