"""Both ends of the link against each other in memory, over batches that come late, twice, out of order or never."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.envelope import Fact
from contracts.frames import (
    MAX_FRAME_BYTES,
    Accepted,
    Check,
    CloseCode,
    Facts,
    Hello,
    Retry,
    Snapshot,
    Submit,
    Welcome,
)
from tests.ws_bridge.facts import NOON, fact
from unit_agent.link import Link, LinkBroken
from ws_bridge.session import LARGEST_WINDOW, Session, Violation

UNIT = "north"


class Site:
    """A unit's disk: what it holds is what the link must have brought, once and in order."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.position = 0


class Line:
    """One connection between a session and a link, with whatever is under way in each direction."""

    def __init__(self, log: list[Fact], site: Site, *, epoch: int, window: int) -> None:
        self.log, self.site = log, site
        self.link = Link(UNIT, site.position, agent_version="1", window=window)
        self.session = Session(UNIT)
        self.session.hello(self.link.hello().decode())
        self.visible = 0
        """How far the log is visible: the projections' checkpoint."""
        self.down: list[bytes] = []
        self.unwritten: list[Facts] = []
        self.window = min(window, LARGEST_WINDOW)
        self.session.open(epoch=epoch, head=0)
        welcome = Welcome(epoch=epoch, head=0, heartbeat_seconds=20, max_frame_bytes=MAX_FRAME_BYTES, server_time=NOON)
        self.link.hear(welcome.to_json(), NOON)

    def offer(self, after: int, through: int) -> None:
        facts = [one for one in self.log if after < one.position <= through]
        self.down += self.session.tell(after, through, facts)
        assert self.session.feed.unacked <= self.window

    def read_page(self, at: int) -> tuple[int, int] | None:
        """What a reader of the log would find now; offered whenever it is done."""
        page = self.session.feed.page()
        if page is None:
            return None
        after, limit = page
        found = [one.position for one in self.log if after < one.position <= at][:limit]
        return (after, found[-1] if len(found) == limit else max(at, after))

    def deliver(self, frames: int) -> None:
        arriving, self.down = self.down[:frames], self.down[frames:]
        for data in arriving:
            frame = self.link.hear(data, NOON)
            if isinstance(frame, Facts):
                self.unwritten.append(frame)

    def write_and_ack(self) -> None:
        for frame in self.unwritten:
            self.site.positions += [one.position for one in frame.facts]
            self.site.position = frame.through
        if self.unwritten:
            self.session.hear(self.link.stored(self.site.position).decode())
            self.unwritten = []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_fact_arrives_once_and_in_order_however_batches_are_lost_repeated_or_reordered(
    data: st.DataObject,
) -> None:
    steps = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=40), label="distance to the unit's next event")
    positions = [sum(steps[: count + 1]) for count in range(len(steps))]
    log = [fact(position) for position in positions]
    cuts = sorted(data.draw(st.sets(st.sampled_from(positions)), label="where batches end") | {positions[-1]})
    batches = list(zip([0, *cuts], cuts, strict=False))
    site = Site()
    window = data.draw(st.integers(1, 12), label="window")
    line = Line(log, site, epoch=1, window=window)
    epoch = 1
    pages: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(0, 60), label="steps")):
        match data.draw(st.sampled_from(["batch", "read", "page", "deliver", "write", "sweep", "cut"])):
            case "batch":
                after, through = data.draw(st.sampled_from(batches))
                line.offer(after, through)
            case "read":
                page = line.read_page(data.draw(st.sampled_from(cuts)))
                if page is not None:
                    pages.append(page)
            case "page" if pages:
                line.offer(*pages.pop(data.draw(st.integers(0, len(pages) - 1))))
            case "deliver":
                line.deliver(data.draw(st.integers(0, 5)))
            case "write":
                line.write_and_ack()
            case "sweep":
                line.session.feed.exists(data.draw(st.sampled_from(cuts)))
            case _:
                epoch += 1
                pages = []
                line = Line(log, site, epoch=epoch, window=window)
        assert site.positions == positions[: len(site.positions)]
    line.session.feed.exists(positions[-1])
    for _ in range(2 * len(positions) + 2):
        line.deliver(len(line.down))
        line.write_and_ack()
        page = line.read_page(positions[-1])
        if page is not None:
            line.offer(*page)
    assert site.positions == positions
    assert line.session.feed.unacked == 0
    assert not line.session.feed.is_behind


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_commands_reach_the_broker_in_the_order_they_were_made_though_the_broker_fails_in_between(
    broker_works: list[bool], commands: int
) -> None:
    line = Line([], Site(), epoch=1, window=10)
    outbox = [UUID(int=number) for number in range(1, commands + 1)]
    taken: list[UUID] = []
    up: list[bytes] = []
    waiting, unsent = list(outbox), list(outbox)

    def bridge_hears(works: bool) -> bytes:
        submit = line.session.hear(up.pop(0).decode())
        assert isinstance(submit, Submit)
        if line.session.in_turn(submit) and works:
            line.session.taken()
            taken.append(submit.command_id)
            return Accepted(epoch=1, command_id=submit.command_id).to_json()
        if line.session.in_turn(submit):
            line.session.hold_back(submit)
        return Retry(epoch=1, command_id=submit.command_id, after_seconds=1).to_json()

    for works in [*broker_works, *[True] * 1000]:
        while unsent and line.link.room:
            up.append(line.link.submit(unsent.pop(0), "queue.CallNext", {}, NOON, "agent"))
        if up:
            line.down.append(bridge_hears(works))
        if works and line.down:  # answers linger while the broker is in trouble
            frame = line.link.hear(line.down.pop(0), NOON)
            if isinstance(frame, Accepted):
                waiting = [one for one in waiting if one != frame.command_id]
                unsent = [one for one in unsent if one != frame.command_id]
            if isinstance(frame, Retry):
                unsent = list(waiting)
    assert not waiting
    assert list(dict.fromkeys(taken)) == outbox


def opened(*, position: int = 0, window: int = 100, head: int = 0) -> Session:
    session = Session(UNIT)
    hello = Hello(unit_id=UNIT, position=position, agent_version="1", window=window)
    session.hello(hello.to_json().decode())
    session.open(epoch=7, head=head)
    return session


def test_the_first_frame_must_be_a_hello() -> None:
    with pytest.raises(Violation) as violation:
        Session(UNIT).hello('{"type": "ping"}')
    assert violation.value.code is CloseCode.NOT_THE_PROTOCOL


def test_a_hello_for_another_unit_than_the_token_s_is_not_allowed() -> None:
    with pytest.raises(Violation) as violation:
        Session(UNIT).hello(Hello(unit_id="south", position=0, agent_version="1").to_json().decode())
    assert violation.value.code is CloseCode.NOT_ALLOWED


@pytest.mark.parametrize(
    "frame",
    [
        "not json",
        "[]",
        '{"type": "unheard-of"}',
        '{"type": "ack", "epoch": 7}',
        '{"type": "ack", "epoch": 7, "position": -1}',
        '{"type": "ack", "epoch": 7, "position": 0, "more": 1}',
        '{"type": "hello", "unitId": "north", "position": 0, "agentVersion": "1"}',
        '{"type": "ack", "epoch": 7, "position": 99}',
        b"\x00\x01",
    ],
    ids=str,
)
def test_what_is_not_the_protocol_s_ends_the_session_without_repeating_what_was_said(frame: str | bytes) -> None:
    with pytest.raises(Violation) as violation:
        opened().hear(frame)
    assert violation.value.code is CloseCode.NOT_THE_PROTOCOL
    assert "99" not in violation.value.reason


def test_whoever_writes_an_agent_is_told_which_field_was_wrong_and_never_what_stood_there() -> None:
    told = []
    for frame in (
        '{"type": "ack", "epoch": 7, "position": -1}',
        '{"type": "ack", "epoch": 7}',
        '{"type": "ack", "epoch": 7, "position": 0, "Zebedee": 1}',
    ):
        with pytest.raises(Violation) as violation:
            opened().hear(frame)
        told.append(violation.value.reason.removeprefix("a frame was not the protocol's: "))
    assert told == ["ack.position greater_than_equal", "ack.position missing", "ack.(unknown) extra_forbidden"]


def test_a_frame_with_another_session_s_epoch_changes_nothing() -> None:
    session = opened()
    session.tell(0, 3, [fact(3)])
    with pytest.raises(Violation) as violation:
        session.hear('{"type": "ack", "epoch": 6, "position": 3}')
    assert violation.value.code is CloseCode.SUPERSEDED
    assert session.feed.acked == 0


def test_large_facts_go_in_frames_of_the_usual_size_and_one_too_large_for_that_goes_alone() -> None:
    facts = [fact(position, padding=100_000) for position in range(1, 6)] + [fact(6, padding=300_000), fact(7)]
    frames = opened().tell(0, 7, facts)
    sent = [[one["position"] for one in json.loads(frame)["facts"]] for frame in frames]
    assert sent == [[1, 2], [3, 4], [5], [6], [7]]
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in frames[:3])
    assert [(json.loads(frame)["after"], json.loads(frame)["through"]) for frame in frames] == [
        (0, 2), (2, 4), (4, 5), (5, 6), (6, 7),
    ]  # fmt: skip


def test_a_frame_of_facts_is_what_its_model_would_write() -> None:
    frame = opened().tell(0, 4, [fact(2), fact(4)])[0]
    assert Facts.model_validate_json(frame).to_json() == frame


def test_a_suspension_ends_the_link_unless_it_is_old_or_lifted_again() -> None:
    session = opened(position=2, head=5)
    suspended, resumed = fact(6, type_name="unit.UnitSuspended"), fact(7, type_name="unit.UnitResumed")
    assert session.standing([suspended]) is CloseCode.UNIT_SUSPENDED
    assert session.standing([suspended, resumed]) is None
    assert session.standing([fact(5, type_name="unit.UnitSuspended")]) is None
    assert session.standing([fact(8, type_name="unit.UnitRetired")]) is CloseCode.UNIT_NOT_FOUND


def test_the_agent_leaves_when_facts_leave_a_gap() -> None:
    line = Line([], Site(), epoch=3, window=10)
    with pytest.raises(LinkBroken, match="gap_in_facts"):
        line.link.hear(Facts(epoch=3, after=4, through=5, facts=[fact(5)]).to_json(), NOON)


def test_the_agent_refuses_frames_of_another_epoch() -> None:
    line = Line([], Site(), epoch=3, window=10)
    with pytest.raises(LinkBroken, match="another_session"):
        line.link.hear(Facts(epoch=2, after=0, through=5, facts=[fact(5)]).to_json(), NOON)


def test_the_agent_knows_how_far_its_clock_is_from_the_centre_s() -> None:
    link = Link(UNIT, 0, agent_version="1")
    welcome = Welcome(epoch=1, head=0, heartbeat_seconds=20, max_frame_bytes=1, server_time=NOON)
    link.hear(welcome.to_json(), NOON + timedelta(minutes=5))
    assert link.clock_skew == timedelta(minutes=-5)


def test_nothing_of_the_log_comes_between_the_parts_of_a_snapshot() -> None:
    session = Session(UNIT)
    session.hello(Hello(unit_id=UNIT, position=2, agent_version="1", snapshot_beyond=10).to_json().decode())
    session.open(epoch=7, head=40)
    assert session.snapshot_due
    session.snapshot_under_way()
    assert session.feed.page() is None
    assert session.tell(2, 40, [fact(40)]) == []
    assert session.check() is None
    session.feed.jump(39)
    assert session.feed.page() is not None
    [frame] = session.tell(2, 40, [fact(30), fact(40)])
    assert (json.loads(frame)["after"], [one["position"] for one in json.loads(frame)["facts"]]) == (39, [40])
    session.hear('{"type": "ack", "epoch": 7, "position": 39}')
    assert session.feed.unacked == 1


def test_an_agent_that_asks_for_no_snapshot_or_is_near_gets_the_events() -> None:
    assert not opened(position=2, head=1_000_000).snapshot_due
    session = Session(UNIT)
    session.hello(Hello(unit_id=UNIT, position=2, agent_version="1", snapshot_beyond=10).to_json().decode())
    session.open(epoch=7, head=12)
    assert not session.snapshot_due
    assert session.feed.page() == (2, 500)


def snapshot(part: int, *, last: bool = False, position: int = 9, epoch: int = 3) -> bytes:
    return Snapshot(epoch=epoch, position=position, part=part, last=last).to_json()


@pytest.mark.parametrize(
    "frames",
    [
        [snapshot(1)],
        [snapshot(0), snapshot(2)],
        [snapshot(0), snapshot(0)],
        [snapshot(0), snapshot(1, position=10)],
        [snapshot(0, position=1)],
        [snapshot(0), Facts(epoch=3, after=2, through=5, facts=[fact(5)]).to_json()],
        [snapshot(0), Check(epoch=3, position=2).to_json()],
    ],
    ids=["begins late", "leaves one out", "repeats one", "of another position", "of the past", "facts", "check"],
)
def test_the_agent_leaves_when_a_snapshot_is_not_whole(frames: list[bytes]) -> None:
    link = Link(UNIT, 2, agent_version="1", snapshot_beyond=1)
    welcome = Welcome(epoch=3, head=9, heartbeat_seconds=20, max_frame_bytes=1, server_time=NOON)
    link.hear(welcome.to_json(), NOON)
    for frame in frames[:-1]:
        link.hear(frame, NOON)
    with pytest.raises(LinkBroken):
        link.hear(frames[-1], NOON)
    assert link.received == 2


def test_the_agent_takes_no_snapshot_it_did_not_ask_for() -> None:
    line = Line([], Site(), epoch=3, window=10)
    with pytest.raises(LinkBroken, match="snapshot_not_wanted"):
        line.link.hear(snapshot(0, last=True), NOON)
