"""Whatever happens to pushes, whoever comes and goes: every event once, in order, and nothing that is not visible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.envelope import Fact
from contracts.frames import CloseCode
from contracts.identity import Role
from contracts.portal import Topic
from contracts.unit import RetireUnit
from infra.portals import channel, hub
from infra.portals.following import Follower, ResetReason
from infra.portals.hub import Hub, UnitNotKnown
from infra.portals.log import Page
from infra.portals.views import Shown
from infra.telemetry.metrics import Metrics
from tests.infra.portals.facts import Day, DayLog, between
from tests.infra.portals.test_views import busy_day, shown_of
from tests.kit.deciding import UNIT_ID
from tests.kit.waiting import eventually

NOBODY_THERE = "amqp://127.0.0.1:1/"
TOPICS = frozenset(Topic)


class Recorder(Follower):
    """Keeps what it is told."""

    def __init__(self, log: DayLog, unit_id: str = UNIT_ID, role: Role = Role.STAFF) -> None:
        super().__init__(unit_id, subject="somebody", role=role, since=2**40, topics=TOPICS)
        self.log = log
        self.start: int | None = None
        """After which position it is told everything; None: it was not let in yet."""
        self.told: list[int] = []
        self.through = 0
        self.reset: ResetReason | None = None
        self.ended: CloseCode | None = None
        self.too_early: list[int] = []
        """Positions that were not visible yet."""

    def asks(self, after: int | None) -> None:
        self.start = after

    def begin(self, partition: int, position: int, missed: Sequence[Shown], reset: ResetReason | None) -> None:
        self.reset = reset
        if reset is not None or self.start is None:
            self.start = position
        self.take(missed, position)

    def take(self, shown: Sequence[Shown], through: int) -> None:
        self.told += [one.position for one in shown]
        self.too_early += [one.position for one in shown if one.position > self.log.visible_until]
        self.through = through

    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        self.ended = code


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and memories so small that a day overflows them."""
    monkeypatch.setattr(hub, "PAGE", 5)
    monkeypatch.setattr(hub, "RESUME_AT_MOST", 20)
    monkeypatch.setattr(channel, "KEPT", 4)


@cache
def the_day() -> tuple[Day, list[int]]:
    day = busy_day()
    return day, [one.position for one in shown_of(day)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("happens"), st.integers(1, 3)),
        st.tuples(st.just("is pushed"), st.integers(1, 3)),
        st.tuples(st.just("push"), st.integers(0, 5)),
        st.tuples(st.just("push again"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("join"), st.integers(0, 25)),
        st.tuples(st.just("join from now"), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("turn"), st.integers(1, 20)),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_event_once_and_in_order_whatever_becomes_of_the_pushes(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_run(steps))


async def _run(steps: list[tuple[str, int]]) -> None:
    day, positions = the_day()
    log = DayLog(day)
    log.visible_until = day.facts[1].position
    house = Hub(log, NOBODY_THERE, instance="test", metrics=Metrics())
    running = asyncio.create_task(house.run())
    pushes: list[tuple[int, int, list[Fact]]] = []
    followers = [Recorder(log)]
    await house.attach(followers[0], None)
    joining: list[asyncio.Task[None]] = []
    visible = 1  # index into the facts

    def push(number: int, *, keep: bool) -> None:
        if pushes:
            at = number % len(pushes)
            house.batch(UNIT_ID, *(pushes[at] if keep else pushes.pop(at)))

    for what, number in steps:
        match what:
            case "happens" | "is pushed":
                after = log.visible_until
                visible = min(visible + number, len(day.facts) - 1)
                log.visible_until = day.facts[visible].position
                if after < log.visible_until:
                    pushes.append((after, log.visible_until, between(day.facts, after, log.visible_until)))
                    if what == "is pushed":
                        push(len(pushes) - 1, keep=False)
            case "push":
                push(number, keep=False)
            case "push again":
                push(number, keep=True)
            case "lose" if pushes:
                pushes.pop(number % len(pushes))
            case "join" | "join from now":
                follower = Recorder(log)
                after_position = None if what == "join from now" else day.facts[max(0, visible - number)].position
                follower.asks(after_position)
                followers.append(follower)
                joining.append(asyncio.create_task(house.attach(follower, after_position)))
            case "leave" if followers:
                house.detach(followers[number % len(followers)])
            case "look":
                house.look_now()
            case _:
                for _ in range(number):
                    await asyncio.sleep(0)
    await asyncio.gather(*joining)
    here = [one for one in followers if one in house._channels[UNIT_ID].followers]

    def all_told() -> bool:
        house.look_now()
        return all(one.through >= log.visible_until or not _due(positions, one, log) for one in here)

    await eventually(all_told, within=10, what="everybody told everything")
    for one in followers:
        assert one.start is not None
        told = [position for position in positions if one.start < position <= log.visible_until]
        assert one.told == (told if one in here else told[: len(one.told)])
        assert one.too_early == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _due(positions: list[int], one: Recorder, log: DayLog) -> list[int]:
    assert one.start is not None
    last = one.told[-1] if one.told else one.start
    return [position for position in positions if last < position <= log.visible_until]


async def test_who_was_away_too_long_or_comes_from_elsewhere_reads_anew() -> None:
    day, positions = the_day()
    log = DayLog(day)
    log.visible_until = day.head
    house = Hub(log, NOBODY_THERE, instance="test", metrics=Metrics())
    for after, expected in ((1, "too_far_back"), (day.head + 100, "unknown_position"), (positions[-3], None)):
        one = Recorder(log)
        one.asks(after)
        await house.attach(one, after)
        assert (one.reset, one.start) == (expected, day.head if expected else after)
        assert one.told == ([] if expected else positions[-2:])


async def test_a_thousand_that_come_back_together_ask_the_log_once() -> None:
    day, positions = the_day()
    log = DayLog(day)
    log.visible_until = day.facts[-4].position
    house = Hub(log, NOBODY_THERE, instance="test", metrics=Metrics())
    await house.attach(Recorder(log), None)
    before, log.visible_until = log.visible_until, day.head
    house.batch(UNIT_ID, before, day.head, between(day.facts, before, day.head))
    await eventually(lambda: not house._channels[UNIT_ID].is_behind or _read_by_hand(house), within=5)
    reads = log.reads
    crowd = [Recorder(log) for _ in range(1_000)]
    for one in crowd:
        one.asks(before)
    await asyncio.gather(*(house.attach(one, before) for one in crowd))
    assert {tuple(one.told) for one in crowd} == {tuple(position for position in positions if position > before)}
    assert log.reads == reads


async def _read_by_hand(house: Hub) -> bool:
    return await house._read_page(house._channels[UNIT_ID])


async def test_an_unknown_unit_is_not_followed_and_a_retired_one_no_longer() -> None:
    day = busy_day()
    log = DayLog(day)
    log.visible_until = day.head
    house = Hub(log, NOBODY_THERE, instance="test", metrics=Metrics())
    with pytest.raises(UnitNotKnown):
        await house.attach(Recorder(log, "elsewhere"), None)
    assert house.units == 0
    assert house.inbox.units == frozenset()
    one = Recorder(log)
    await house.attach(one, None)
    assert house.inbox.units == {UNIT_ID}
    (retired,) = day.does(RetireUnit(reason="closed"))
    log.visible_until = day.head
    house.batch(UNIT_ID, retired.position - 3, retired.position, [retired])
    assert (one.told, one.ended) == ([retired.position], CloseCode.UNIT_NOT_FOUND)
    with pytest.raises(UnitNotKnown):
        await house.attach(Recorder(log), None)


async def test_a_unit_somebody_is_about_to_follow_is_kept_however_long_the_log_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "LINGER_SECONDS", 0.0)
    day, positions = the_day()
    log = DayLog(day)
    log.visible_until = day.facts[-4].position
    house = Hub(log, NOBODY_THERE, instance="test", metrics=Metrics())
    first = Recorder(log)
    await house.attach(first, None)
    house.detach(first)
    reading, go_on = asyncio.Event(), asyncio.Event()
    page = log.page

    async def slowly(*asked: Any) -> Page:  # Any: as the log is asked
        reading.set()
        await go_on.wait()
        return await page(*asked)

    monkeypatch.setattr(log, "page", slowly)
    one = Recorder(log)
    one.asks(day.facts[-8].position)
    joining = asyncio.create_task(house.attach(one, one.start))
    await reading.wait()
    house._close_unneeded()
    go_on.set()
    await joining
    before, log.visible_until = log.visible_until, day.head
    house.batch(UNIT_ID, before, day.head, between(day.facts, before, day.head))
    assert house.units == 1
    await _read_by_hand(house)
    assert one.told == [position for position in positions if position > day.facts[-8].position]
    assert house.inbox.units == {UNIT_ID}
