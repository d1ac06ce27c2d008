"""Whatever is asked, told, lost and tried again, and wherever the agent dies: at most one effect, and always an end.

The centre is the real rules, the agent the real journal and execution on a real store; between them the test decides
what arrives when. The agent dies before or after any access to its disk, and before or after the site does something.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_handlers.domain.unit_command import OPEN_COMMANDS
from contracts.unit_command import (
    CancelUnitCommand,
    OnReconnect,
    QueueUnitCommand,
    RetryUnitCommand,
    UnitCommandRetried,
)
from tests.unit_agent.lives import ORDERS, Agent, Centre, Site
from unit_agent import mailbox

Script = list[tuple[Any, ...]]  # Any: what a step needs differs
FIRST, SECOND, THIRD = ORDERS
CATCHES_UP: Script = [("comes back",), ("hears", 100)]
orders = st.sampled_from([FIRST, FIRST, SECOND])
seconds = st.sampled_from([59, 61, 200])
policies = st.sampled_from([OnReconnect.RUN, OnReconnect.RUN, OnReconnect.REVALIDATE, OnReconnect.DROP])
keys = st.sampled_from([None, "key"])
working = st.tuples(st.just("works"), st.sampled_from([-1, -1, *range(1, 9)]), st.booleans()).map(lambda one: [one])
beginnings = st.tuples(seconds, keys, policies, seconds, policies, st.booleans(), working).map(
    lambda drawn: [
        ("comes back",),
        ("queue", FIRST, *drawn[:3]),
        ("queue", SECOND, drawn[3], None, drawn[4]),
        *([("hears", 100), *drawn[6]] if drawn[5] else []),
    ]
)
retrying = st.booleans().map(lambda sure: [("retry", FIRST, sure), ("retry", SECOND, sure)])
goes_on = st.one_of(
    working,
    working,
    st.just([("time", 200)]),
    st.just([("time", 30)]),
    retrying,
    retrying,
    st.tuples(retrying, working).map(lambda two: [("time", 200), *two[0], *CATCHES_UP, *two[1]]),
    st.tuples(retrying, working).map(lambda two: [*two[0], ("hears", 100), *two[1]]),
    working.map(lambda work: [*CATCHES_UP, *work]),
    st.just([("hears", 100)]),
    st.just([("hears", 1)]),
    st.booleans().map(lambda twice: [("reports", twice)]),
    orders.map(lambda order: [("cancel", order)]),
    st.just([("queue", THIRD, 200, "key", OnReconnect.RUN)]),
)
scripts = st.tuples(beginnings, st.lists(goes_on, min_size=4, max_size=14)).map(
    lambda drawn: [*drawn[0], *(one for part in drawn[1] for one in part)]
)
answering = ("does it", "declines", "silent", "news, does it", "news, declines", "news, silent")
moods = st.lists(st.sampled_from([*answering, "dies before", "dies after", "dies after"]), min_size=2, max_size=6)
pytestmark = pytest.mark.timeout(400)  # a failure is told only after hypothesis has made it small


async def step(agent: Agent, what: tuple[Any, ...]) -> None:  # Any: see `Script`
    """One thing happens."""
    centre = agent.centre
    match what:
        case ("queue", order, until, key, on_reconnect):
            deadline = centre.history.at + timedelta(seconds=until)
            centre.give(
                QueueUnitCommand(
                    unit_command_id=order,
                    type="ping",
                    deadline=deadline,
                    supersede_key=key,
                    on_reconnect=on_reconnect,
                )
            )
        case ("cancel", order):
            centre.give(CancelUnitCommand(unit_command_id=order))
        case ("retry", order, confirm):
            centre.give(RetryUnitCommand(unit_command_id=order, confirm=confirm))
        case ("time", passing):
            centre.time_passes(passing)
        case ("hears", facts):
            agent.hears(facts)
        case ("comes back",):
            agent.comes_back()
        case ("works", accesses, after):
            await agent.works(accesses, after=after)
        case ("reports", twice):
            agent.reports(twice=twice)
        case _:
            raise ValueError(what)


async def happens(script: Script, site: Site) -> Agent:
    """All of it, one after the other; then peace returns, and everything arrives."""
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder), Centre(), site)
        try:
            for what in script:
                await step(agent, what)
                agent.centre.holds()
            agent.centre.time_passes(100_000)
            agent.centre.holds()
            assert not agent.centre.history.counts[OPEN_COMMANDS], "every command is final by its deadline"
            site.moods, site.silent_asks = [], 0
            for _ in range(3):
                agent.comes_back()
                agent.hears(1000)
                await agent.works(-1, after=False)
                agent.reports(twice=False)
            assert mailbox.open_count(agent.store.db) == 0
        finally:
            agent.store.close()
    return agent


def confirmed(agent: Agent, order: UUID) -> int:
    """How often somebody has said that it may be done again."""
    return sum(
        isinstance(event, UnitCommandRetried) and event.unit_command_id == order and event.confirmed
        for event in agent.centre.log
    )


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit_agent.execution.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("unit_agent.execution.LONGEST_PAUSE", 0.004)


relentless = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@relentless
@given(scripts, moods, st.integers(0, 4))
def test_a_site_that_remembers_does_each_command_at_most_once_and_the_centre_hears_of_it(
    script: Script, drawn: list[str], silent_asks: int
) -> None:
    agent = asyncio.run(happens(script, Site(knows=True, moods=drawn, silent_asks=silent_asks)))
    for order in ORDERS:
        done, state = agent.site.effects[order], agent.centre.state(order)
        assert done <= 1
        assert bool(done) == state.is_done or state.in_doubt


@relentless
@given(scripts, moods)
def test_a_site_that_cannot_tell_does_again_only_what_somebody_has_confirmed(script: Script, drawn: list[str]) -> None:
    agent = asyncio.run(happens(script, Site(knows=False, moods=drawn)))
    for order in ORDERS:
        done, state = agent.site.effects[order], agent.centre.state(order)
        assert done <= 1 + confirmed(agent, order)
        if done:
            assert state.is_done or state.in_doubt
        if state.is_done:
            assert done
