"""How many may come, and when those who may not are told to come back. No clock but the test's."""

from __future__ import annotations

import pytest

from contracts.frames import Ask, CloseCode, Ping, Submit
from infra.telemetry.metrics import Metrics
from tests.kit.commands import new_id
from tests.ws_bridge.facts import NOON
from ws_bridge.line import FLOOD_SECONDS, Line
from ws_bridge.pacing import LONGEST_AWAY, Allowance, Turnstile, Visits
from ws_bridge.session import Violation

SUBMIT = Submit(epoch=1, command_id=new_id(), command="queue.CallNext", payload={}, issued_at=NOON)


def test_what_was_not_used_may_be_taken_at_once_and_no_more() -> None:
    allowance = Allowance(100, burst=0.5)
    waits = [allowance.take(1, 10.0) for _ in range(60)]
    assert waits[:50] == [0.0] * 50
    assert waits[59] == pytest.approx(0.1)
    assert allowance.take(1, 100.0) == 0.0


def test_whoever_was_turned_away_has_used_nothing_up() -> None:
    allowance = Allowance(1, burst=1)
    assert [allowance.has(1, 5.0) for _ in range(3)] == [0.0, 1.0, 1.0]
    assert allowance.has(1, 6.0) == 0.0


def test_a_crowd_is_told_to_come_back_as_a_queue() -> None:
    turnstile = Turnstile(1000)
    waits = [turnstile.enter(7.0) for _ in range(10_000)]
    assert waits.count(0.0) == 1000
    told = waits[1000:]
    assert told == sorted(told)
    for second in range(1, 9):
        assert 990 <= sum(second - 1 < wait <= second for wait in told) <= 1010, "a thousand in each second"


def test_nobody_is_told_to_stay_away_for_long() -> None:
    turnstile = Turnstile(10)
    assert max(turnstile.enter(7.0) for _ in range(5_000)) <= LONGEST_AWAY


def test_a_unit_in_a_loop_is_slowed_down_and_others_are_not() -> None:
    visits = Visits(60)
    assert [visits.enter("north", 0.0) for _ in range(12)] == [0.0] * 12
    assert visits.enter("north", 0.0) == pytest.approx(1.0)
    assert visits.enter("south", 0.0) == 0.0
    assert visits.enter("north", 1.0) == 0.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_link_that_sends_too_much_is_read_from_at_its_rate() -> None:
    clock = Clock()
    line = Line(100, 1_000_000, clock, Metrics())
    waits = [line.arrived(50) for _ in range(110)]
    assert waits[:100] == [0.0] * 100
    assert waits[109] == pytest.approx(0.1)
    assert Line(1000, 100, clock, Metrics()).arrived(300) == pytest.approx(2.0), "bytes count as well"


def test_asking_costs_more_than_saying() -> None:
    line = Line(100, 1_000_000, Clock(), Metrics())
    for _ in range(10):
        assert line.arrived(50) == 0.0
        line.asked(Ask(epoch=1, command_ids=[new_id()]))
    assert line.arrived(50) > 0


def test_one_that_pours_out_frames_nobody_waits_for_is_cut() -> None:
    clock = Clock()
    line = Line(100, 1_000_000, clock, Metrics())

    def pours() -> None:
        while clock.now < 2 * FLOOD_SECONDS:
            clock.now += line.arrived(20)
            line.asked(Ping())

    with pytest.raises(Violation) as cut:
        pours()
    assert cut.value.code is CloseCode.TRY_LATER
    assert clock.now >= FLOOD_SECONDS


def test_one_that_pauses_is_not_flooding() -> None:
    clock = Clock()
    line = Line(100, 1_000_000, clock, Metrics())
    for _ in range(20):
        for _ in range(200):
            clock.now += line.arrived(20)
            line.asked(Ping())
        clock.now += 4


def test_an_agent_with_many_commands_is_slowed_down_and_never_cut() -> None:
    clock = Clock()
    line = Line(100, 1_000_000, clock, Metrics())
    for _ in range(10_000):
        clock.now += line.arrived(200)
        line.asked(SUBMIT)
    assert clock.now == pytest.approx(99, abs=1)
