"""Deadlines are the centre's: setting a unit's clock, while its link stands or is down, does not move them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest

from tests.unit_agent.told import NOON
from unit_agent import link_state
from unit_agent.link_state import LinkState


class Wall(datetime):
    """A clock that somebody sets."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp((datetime.now(UTC) + cls.ahead).timestamp(), tz)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["forward", "back"])
def test_a_clock_that_is_set_after_the_welcome_moves_no_deadline(
    monkeypatch: pytest.MonkeyPatch, jump: timedelta
) -> None:
    monkeypatch.setattr(link_state, "datetime", Wall)
    monkeypatch.setattr(Wall, "ahead", timedelta())
    passed = [100.0]
    monkeypatch.setattr(link_state, "elapsed", lambda: passed[0])
    state = LinkState(clock_skew=timedelta(minutes=5))
    assert abs(state.now() - datetime.now(UTC) - timedelta(minutes=5)) < timedelta(seconds=1), "as it was the last time"
    state.heard_time(NOON)
    monkeypatch.setattr(Wall, "ahead", jump)
    passed[0] += 30
    assert state.now() == NOON + timedelta(seconds=30)


def test_time_passes() -> None:
    state = LinkState()
    state.heard_time(NOON)
    assert timedelta() <= state.now() - NOON < timedelta(seconds=5)
