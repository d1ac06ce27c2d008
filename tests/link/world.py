"""Both ends of the link with everything around them in memory: log, broker and database here, disk and outbox there.

The state machines are the real ones; what stands around them does what processes do, one step at a time, so that a
test can stop, repeat, lose or delay any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from contracts.envelope import Fact
from contracts.frames import (
    MAX_FRAME_BYTES,
    Accepted,
    Ack,
    Check,
    Facts,
    Pong,
    Renew,
    Renewed,
    Retry,
    Snapshot,
    Submit,
    Welcome,
)
from tests.link.frames_as_documented import fits
from tests.ws_bridge.facts import NOON, fact
from unit_agent.link import Link
from ws_bridge.session import Session
from ws_bridge.snapshot import Parts, State

UNIT = "north"
TINY_PART = 270
"""Bytes of a part of a snapshot: one record or two."""


def state_of(facts: list[Fact]) -> dict[str, int]:
    """What the facts come to: each sets one thing."""
    return {one.payload["thing"]: one.position for one in facts}


@dataclass
class Disk:
    """What survives the agent."""

    position: int = 0
    applied: list[int] = field(default_factory=list)
    """Positions of facts in the order in which they were applied."""
    state: dict[str, int] = field(default_factory=dict)
    staged: list[Snapshot] = field(default_factory=list)
    made: list[UUID] = field(default_factory=list)
    """Commands in the order in which they were made."""
    accepted: set[UUID] = field(default_factory=set)

    def take(self, frames: list[Facts | Snapshot]) -> None:
        """One transaction."""
        for frame in frames:
            if isinstance(frame, Facts):
                for one in frame.facts:
                    if one.position > self.position:
                        self.applied.append(one.position)
                        self.state[one.payload["thing"]] = one.position
                self.position = max(self.position, frame.through)
                continue
            if frame.part == 0:
                self.staged = []
            self.staged.append(frame)
            if frame.last:
                records = [record.body for part in self.staged for record in part.records]
                self.state = {body["thing"]: body["position"] for body in records}
                self.position, self.staged = frame.position, []

    def waiting(self) -> list[UUID]:
        """Commands the centre is not known to have."""
        return [one for one in self.made if one not in self.accepted]


@dataclass
class Centre:
    """Log, broker and database."""

    log: list[Fact] = field(default_factory=list)
    visible: int = 0
    marks: list[int] = field(default_factory=lambda: [0])
    """Where batches of projections ended."""
    epoch: int = 0
    acked: int = 0
    """As the database has it."""
    published: list[UUID] = field(default_factory=list)
    broker_is_up: bool = True

    def between(self, after: int, through: int) -> list[Fact]:
        """The unit's facts in (after, through]."""
        return [one for one in self.log if after < one.position <= through]

    def head(self) -> int:
        """How far the unit's feed reaches visibly."""
        return max((one.position for one in self.log if one.position <= self.visible), default=0)

    def happens(self, gap: int, thing: str) -> None:
        """A fact; `gap` positions before it are other units'."""
        position = (self.log[-1].position if self.log else 0) + gap
        self.log.append(fact(position).model_copy(update={"payload": {"thing": thing}}))

    def projects(self) -> None:
        """Everything written becomes visible."""
        if self.log and self.log[-1].position > self.visible:
            self.visible = self.log[-1].position
            self.marks.append(self.visible)

    def handled(self) -> list[UUID]:
        """Commands as their handlers see them: each once, when it came first."""
        return list(dict.fromkeys(self.published))


class Line:
    """One connection: a session, a link, and what is under way between them. Either end may be gone."""

    def __init__(self, centre: Centre, disk: Disk, *, window: int, snapshot_beyond: int | None) -> None:
        self.centre, self.disk, self.window = centre, disk, window
        self.link = Link(UNIT, disk.position, agent_version="1", window=window, snapshot_beyond=snapshot_beyond)
        self.session = Session(UNIT)
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.unwritten: list[Facts | Snapshot] = []
        """Heard by the agent, not on its disk."""
        self.unnoted: list[UUID] = []
        """Accepted, and the disk does not know."""
        self.sent_through = 0
        """How many of the commands that wait were sent, from the first."""
        self.pages: list[tuple[int, int, list[Fact]]] = []
        """Read from the log and not offered yet."""
        self.parts: Iterator[bytes] | None = None
        self.snapshot: State | None = None
        self._say_up(self.link.hello())

    def _say_up(self, frame: bytes) -> None:
        fits(frame, up=True)
        self.up.append(frame)

    def say_down(self, frame: bytes) -> None:
        fits(frame, up=False)
        self.down.append(frame)

    # The bridge

    def bridge_hears(self) -> None:
        """The next frame up."""
        data = self.up.pop(0).decode()
        if not self.session.is_open:
            self.session.hello(data)
            self.centre.epoch += 1
            head = self.centre.head()
            self.session.open(epoch=self.centre.epoch, head=head)
            welcome = Welcome(
                epoch=self.centre.epoch,
                head=head,
                heartbeat_seconds=20,
                max_frame_bytes=MAX_FRAME_BYTES,
                server_time=NOON,
                credential_expires_at=NOON + timedelta(minutes=10),
            )
            self.say_down(welcome.to_json())
            return
        match self.session.hear(data):
            case Ack():
                if self.session.epoch == self.centre.epoch:  # UPDATE ... WHERE epoch = mine
                    self.centre.acked = max(self.centre.acked, self.session.feed.acked)
            case Submit() as submit:
                self._takes(submit)
            case Renew():
                expires_at = NOON + timedelta(minutes=20)
                self.say_down(Renewed(epoch=self.session.epoch, expires_at=expires_at, token="t").to_json())
            case other:
                raise AssertionError(f"nobody said {other.type}")

    def _takes(self, submit: Submit) -> None:
        epoch = self.session.epoch
        if self.session.in_turn(submit):
            if self.centre.broker_is_up:
                self.session.taken()
                self.centre.published.append(submit.command_id)
                self.say_down(Accepted(epoch=epoch, command_id=submit.command_id).to_json())
                return
            self.session.hold_back(submit)
        self.say_down(Retry(epoch=epoch, command_id=submit.command_id, after_seconds=1).to_json())

    def offer(self, after: int, through: int, facts: list[Fact]) -> None:
        """A batch that was pushed, or a page."""
        for frame in self.session.tell(after, through, facts):
            self.say_down(frame)
        assert self.session.feed.unacked <= self.window

    def read_page(self) -> bool:
        """Read from the log what is missing; it is offered later, if ever."""
        page = self.session.feed.page() if self.session.is_open else None
        if page is None:
            return False
        after, limit = page
        found = self.centre.between(after, self.centre.visible)[:limit]
        through = found[-1].position if len(found) == limit else max(self.centre.visible, after)
        self.pages.append((after, through, found))
        return True

    def begin_snapshot(self, *, free: bool) -> None:
        """A worker takes it up, or none is free."""
        if not free:
            self.session.without_snapshot()
            return
        self.session.snapshot_under_way()
        missing = self.centre.between(self.session.feed.told, self.centre.visible)
        if len(missing) <= self.session.snapshot_beyond:
            self.session.without_snapshot()
            return
        parts = Parts(self.session.epoch, self.centre.visible, frame_bytes=TINY_PART)
        for thing, position in state_of(self.centre.between(0, self.centre.visible)).items():
            parts.record("thing", b'{"thing":"%b","position":%d}' % (thing.encode(), position))
        self.snapshot = parts.done()
        self.parts = iter(self.snapshot)

    def send_part(self) -> None:
        """The next part, or that all are sent."""
        assert self.parts is not None
        assert self.snapshot is not None
        part = next(self.parts, None)
        if part is not None:
            self.say_down(part)
            return
        self.session.feed.jump(self.snapshot.position)
        self.parts = None

    # The agent

    def agent_hears(self) -> None:
        """The next frame down. Nothing that the bridge says on a whole line is ever out of place."""
        match self.link.hear(self.down.pop(0), NOON):
            case Facts() | Snapshot() as frame:
                self.unwritten.append(frame)
            case Accepted(command_id=command_id):
                self.unnoted.append(command_id)
            case Retry():
                self.sent_through = 0
            case Check() | Renewed() | Welcome() | Pong() | None:
                pass
            case other:
                raise AssertionError(f"nobody said {other.type}")

    def commit(self, frames: int, *, say: bool) -> None:
        """Write what was heard; the ack comes after, if the agent lives to say it."""
        writing, self.unwritten = self.unwritten[:frames], self.unwritten[frames:]
        if writing:
            self.disk.take(writing)
            if say:
                self._say_up(self.link.stored(self.disk.position))

    def note(self) -> None:
        """Write which commands the centre has."""
        waiting = self.disk.waiting()
        self.sent_through -= sum(one in self.unnoted for one in waiting[: self.sent_through])
        self.disk.accepted |= set(self.unnoted)
        self.unnoted = []

    def submit(self) -> None:
        """Send up what waits, from where sending had come to, as much as there is room for."""
        waiting = self.disk.waiting()
        for one in waiting[self.sent_through : self.sent_through + self.link.room]:
            self._say_up(self.link.submit(one, "queue.CallNext", {"department": "intake"}, NOON, "agent"))
            self.sent_through += 1

    def renew(self) -> None:
        """A newer credential."""
        self._say_up(self.link.renew(assertion="a.b.c"))
