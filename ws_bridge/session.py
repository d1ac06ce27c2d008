"""One unit's session at the bridge, without I/O: who may say what when, and where its feed stands.

Bytes in, bytes out; the socket is `ws_bridge.link`'s, the log `ws_bridge.catch_up`'s. Every offer of facts - a live
batch or a page of the log, early, late, twice or never - goes through one rule: what was covered is skipped, what
overlaps is cut, and what leaves a gap is not sent but read from the log. So the unit sees every fact once, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar
from uuid import UUID

from pydantic import ValidationError

from contracts.envelope import Json
from contracts.frames import (
    FARTHEST,
    MAX_FRAME_BYTES,
    PAGE,
    UP,
    Ack,
    Answer,
    AnyUp,
    Ask,
    Check,
    CloseCode,
    Hello,
    Ping,
    Pong,
    Renew,
    Submit,
)
from contracts.unit import UnitResumed, UnitRetired, UnitSuspended

LARGEST_WINDOW: Final = 5_000
"""However many unacknowledged facts an agent offers to take."""

_STANDING: Final = {
    UnitSuspended.type_name(): CloseCode.UNIT_SUSPENDED,
    UnitResumed.type_name(): None,
    UnitRetired.type_name(): CloseCode.UNIT_NOT_FOUND,
}


class Tellable(Protocol):
    """A fact as far as a session looks at it: `contracts.envelope.Fact`, or one that is written down already."""

    @property
    def position(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def recorded_at(self) -> datetime: ...
    @property
    def payload(self) -> Json: ...
    def to_json(self) -> bytes: ...


T = TypeVar("T", bound=Tellable)


class Violation(Exception):
    """The other end broke the protocol; the link ends with this code. `reason` never repeats what was sent."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Feed:
    """Where a unit's feed stands: what it was told, what is safe there, what is still to be read from the log."""

    __slots__ = ("_covered", "_held", "_in_flight", "_unacked", "_wanted", "_window", "acked", "told")

    def __init__(self, position: int, *, head: int, window: int) -> None:
        self.told = position
        """Through where the unit was told: what the next frame follows on."""
        self.acked = position
        self._covered = position
        """Through where nothing is left to send; at or beyond `told`, since other units' events lie between."""
        self._wanted = head
        """Through where there is something to send."""
        self._window = min(window, LARGEST_WINDOW)
        self._in_flight: list[tuple[int, int]] = []
        """(through, facts) of each unacknowledged frame, oldest first. Mostly empty: an empty deque has 700 bytes."""
        self._unacked = 0
        self._held = False
        """A snapshot is being sent: until it is, the log has to wait."""

    @property
    def covered(self) -> int:
        """Through where nothing is left to send."""
        return self._covered

    @property
    def is_behind(self) -> bool:
        """There is something in the log that the unit was not sent."""
        return self._wanted > self._covered

    @property
    def unacked(self) -> int:
        """Facts sent and not yet safe at the unit."""
        return self._unacked

    def page(self) -> tuple[int, int] | None:
        """(after, at most how many) to read from the log now; None when there is nothing to read, or no room."""
        room = 0 if self._held else self._window - self._unacked
        # Rather wait for an acknowledgement than read crumbs: there is one coming for what is under way.
        worthwhile = room > 0 and (not self._unacked or room >= min(PAGE, self._window // 2))
        return (self._covered, min(PAGE, room)) if self.is_behind and worthwhile else None

    def exists(self, position: int) -> None:
        """The unit's feed is known to reach this far (a sweep has seen it)."""
        self._wanted = max(self._wanted, position)

    def offer(self, after: int, through: int, facts: Sequence[T]) -> Sequence[T]:
        """What of `facts`, all of the unit's in (after, through], is to be sent now; it then counts as covered."""
        if through <= self._covered:
            return []
        if after > self._covered or self._held:
            self.exists(through)
            return []
        fresh = facts if after == self._covered else [fact for fact in facts if fact.position > self._covered]
        room = self._window - self._unacked
        if len(fresh) > room:
            self.exists(through)
            fresh = fresh[: max(room, 0)]
            if fresh:
                self._covered = fresh[-1].position
        else:
            self._covered = through
        return fresh

    def hold(self) -> None:
        """Nothing of the log is to be sent: its place is taken by a snapshot that may be on its way."""
        self._held = True

    def go_on(self) -> None:
        """There is no snapshot: the log is sent from where the unit is."""
        self._held = False

    def jump(self, position: int) -> None:
        """The unit was sent its state as of `position`: the log goes on from there. Acknowledged like facts."""
        self._covered = max(self._covered, position)
        self.sent(position, 0)
        self._held = False

    def sent(self, through: int, facts: int) -> None:
        """A frame with that many facts, the last of them at `through`, is on its way."""
        self.told = through
        self._in_flight.append((through, facts))
        self._unacked += facts

    def ack(self, position: int) -> None:
        """Everything through `position` is safe at the unit."""
        if position > self.told:
            raise Violation(CloseCode.NOT_THE_PROTOCOL, "acknowledged what was never sent")
        self.acked = max(self.acked, position)
        while self._in_flight and self._in_flight[0][0] <= self.acked:
            self._unacked -= self._in_flight.pop(0)[1]


class Session:
    """One link of one unit, from hello to the end. `unit_id` is what its token says."""

    __slots__ = ("_held_back", "_hello", "epoch", "feed", "head_at_hello", "snapshot_beyond", "snapshot_due", "unit_id")

    def __init__(self, unit_id: str) -> None:
        self.unit_id: Final = unit_id
        self.epoch = 0
        """0 before the session is open."""
        self.head_at_hello = 0
        self.feed = Feed(0, head=0, window=1)
        self.snapshot_due = False
        """The unit asks for a snapshot and may be far enough behind for one; nobody has looked yet."""
        self.snapshot_beyond = FARTHEST
        """Further behind than this many events, the unit is to be sent a snapshot; beyond every log when never."""
        self._hello: Hello | None = None
        """Until the session is open."""
        self._held_back: UUID | None = None
        """The command that has to come again before any other is taken; None: whatever comes is taken."""

    @property
    def is_open(self) -> bool:
        """The unit was welcomed."""
        return self.epoch > 0

    def hello(self, data: str | bytes) -> Hello:
        """The first frame, which must be this unit's hello. Raises Violation."""
        frame = _decoded(data)
        if not isinstance(frame, Hello):
            raise Violation(CloseCode.NOT_THE_PROTOCOL, "the first frame was not a hello")
        if frame.unit_id != self.unit_id:
            raise Violation(CloseCode.NOT_ALLOWED, "the token is for another unit")
        self._hello = frame
        return frame

    def open(self, *, epoch: int, head: int) -> None:
        """The session holds the unit's link: its epoch, and how far the unit's feed reaches now."""
        hello, self._hello = self._hello, None
        if hello is None:
            raise RuntimeError("a session opens after its hello")
        self.epoch = epoch
        self.head_at_hello = head
        self.feed = Feed(hello.position, head=head, window=hello.window)
        # Positions between are other units' too, so the distance is the most that the unit can be behind.
        self.snapshot_beyond = hello.snapshot_beyond or FARTHEST
        self.snapshot_due = head - self.feed.told > self.snapshot_beyond
        if self.snapshot_due:
            self.feed.hold()

    def snapshot_under_way(self) -> None:
        """Somebody looks after the snapshot this unit asks for."""
        self.snapshot_due = False

    def without_snapshot(self) -> None:
        """The unit is sent the events."""
        self.snapshot_due = False
        self.feed.go_on()

    def hear(self, data: str | bytes) -> Submit | Answer | Ask | Ack | Renew | Ping | Pong:
        """A further frame of the open session; an ack has already moved the feed. Raises Violation."""
        frame = _decoded(data)
        if isinstance(frame, Hello):
            raise Violation(CloseCode.NOT_THE_PROTOCOL, "hello was said twice")
        if isinstance(frame, (Ping, Pong)):
            return frame
        if frame.epoch != self.epoch:
            raise Violation(CloseCode.SUPERSEDED, "a frame of another session")
        if isinstance(frame, Ack):
            self.feed.ack(frame.position)
        return frame

    def tell(self, after: int, through: int, facts: Sequence[Tellable]) -> list[bytes]:
        """The frames to send for an offer of facts, none larger than it must be."""
        frames = []
        for batch in _by_size(self.feed.offer(after, through, facts)):
            last = batch[-1][0]
            frames.append(_facts_frame(self.epoch, self.feed.told, last, [text for _, text in batch]))
            self.feed.sent(last, len(batch))
        return frames

    def check(self) -> bytes | None:
        """The frame that has the unit compare positions; None while facts are under way, which say as much."""
        feed = self.feed
        if not self.is_open or feed.is_behind or feed.acked != feed.told:
            return None
        return Check(epoch=self.epoch, position=feed.told).to_json()

    def in_turn(self, submit: Submit) -> bool:
        """Whether this command may be taken now: none overtakes one that was answered with `retry`."""
        return self._held_back is None or self._held_back == submit.command_id

    def taken(self) -> None:
        """The command whose turn it was is safe, or refused for good: the next may come."""
        self._held_back = None

    def hold_back(self, submit: Submit) -> None:
        """The command whose turn it was could not be taken: it comes again before any other."""
        self._held_back = submit.command_id

    def standing(self, facts: Iterable[Tellable]) -> CloseCode | None:
        """How these facts end the link: the unit was suspended or retired in them since it said hello."""
        code = None
        for fact in facts:
            if fact.position > self.head_at_hello and fact.type in _STANDING:
                code = _STANDING[fact.type]
        return code


def _decoded(data: str | bytes) -> AnyUp:
    if isinstance(data, bytes):
        raise Violation(CloseCode.NOT_THE_PROTOCOL, "a binary frame")
    try:
        return UP.validate_json(data)
    except ValidationError as wrong:
        raise Violation(CloseCode.NOT_THE_PROTOCOL, f"a frame was not the protocol's: {fault(wrong)}") from None


def fault(wrong: ValidationError) -> str:
    """Which field of which frame, for whoever writes an agent; short enough for a close, and never what stood there."""
    first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":  # the name is the sender's, and nobody knows what it tells of
        names[-1:] = ["(unknown)"]
    return f"{'.'.join(names)} {first['type']}".strip()[:80]


def _by_size(facts: Sequence[Tellable]) -> list[list[tuple[int, bytes]]]:
    """(position, JSON) of each fact, in as few lots as frames of the usual size need; a large fact is a lot alone."""
    lots: list[list[tuple[int, bytes]]] = []
    size = MAX_FRAME_BYTES
    for fact in facts:
        text = fact.to_json()
        size += len(text) + 1
        if size > MAX_FRAME_BYTES - 200:  # room for the rest of the frame
            lots.append([])
            size = len(text)
        lots[-1].append((fact.position, text))
    return lots


def _facts_frame(epoch: int, after: int, through: int, texts: Sequence[bytes]) -> bytes:
    """`contracts.frames.Facts` as JSON, from facts that are JSON already."""
    head = b'{"type":"facts","epoch":%d,"after":%d,"through":%d,"facts":[' % (epoch, after, through)
    return head + b",".join(texts) + b"]}"
