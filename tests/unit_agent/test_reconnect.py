"""When an agent comes back: soon, then later and later, never all at once, and as it was told."""

from __future__ import annotations

import random

import pytest

from contracts.frames import CLOSINGS, CloseCode
from unit_agent.reconnect import FIRST, LONGEST, RARELY, Ended, Reconnecting

UNLUCKY = max
"""The longest pause there can be: `max` of the two ends."""


def test_pauses_double_up_to_a_ceiling_and_begin_anew_after_a_good_session() -> None:
    reconnecting = Reconnecting(UNLUCKY)
    pauses = [reconnecting.after(Ended("OSError")).seconds for _ in range(9)]
    assert pauses[:4] == [FIRST, FIRST * 2, FIRST * 4, FIRST * 8]
    assert pauses[-1] == LONGEST
    assert reconnecting.after(Ended("closed_1006", lasted=60)).seconds == FIRST


def test_a_fleet_does_not_come_back_as_one() -> None:
    draw = random.Random(7).uniform
    pauses = [Reconnecting(draw).after(Ended("OSError")).seconds for _ in range(200)]
    assert min(pauses) < FIRST / 10
    assert max(pauses) > FIRST * 9 / 10


def test_what_the_centre_says_goes_first() -> None:
    reconnecting = Reconnecting(UNLUCKY)
    assert reconnecting.after(Ended("closed_1001", close_code=1001, retry_after=12)).seconds == pytest.approx(14.2)
    assert reconnecting.after(Ended("http_503", http_status=503, retry_after=2)).seconds == pytest.approx(3.2)


def test_one_that_was_turned_away_for_another_agent_says_so_while_it_waits() -> None:
    pause = Reconnecting(UNLUCKY).after(Ended("closed_4410", close_code=CloseCode.CONTESTED, retry_after=60))
    assert (pause.seconds >= 60, pause.remedy) == (True, CLOSINGS[CloseCode.CONTESTED].remedy)


@pytest.mark.parametrize("code", list(CloseCode))
def test_where_coming_back_cannot_help_it_is_rare_and_loud(code: CloseCode) -> None:
    pause = Reconnecting(UNLUCKY).after(Ended(f"closed_{code}", close_code=code))
    if CLOSINGS[code].may_reconnect:
        assert pause.seconds <= LONGEST
    else:
        assert (pause.seconds, pause.remedy) == (RARELY, CLOSINGS[code].remedy)


@pytest.mark.parametrize(("status", "longest"), [(401, LONGEST), (403, RARELY), (404, RARELY), (500, FIRST)])
def test_http_refusals_say_what_somebody_has_to_do(status: int, longest: float) -> None:
    pause = Reconnecting(UNLUCKY).after(Ended(f"http_{status}", http_status=status))
    assert pause.seconds == longest
    assert (pause.remedy is None) == (status == 500)
