"""Whatever is asked, told, lost and tried again, and wherever the agent dies: at most one effect, and always an end.

The centre is the real rules, the agent the real journal and execution on a real store; between them the test decides
what arrives when. The agent dies before or after any access to its disk, and before or after the site does something.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_handlers.domain.decider import Timer
from command_handlers.domain.processes import timers
from command_handlers.domain.unit_command import MAILBOX, OPEN_COMMANDS, UnitCommandState, unit_command_stream
from contracts.ids import UnitCommandId
from contracts.model import Command, Event, Refusal
from contracts.unit_command import (
    CancelUnitCommand,
    OnReconnect,
    QueueUnitCommand,
    ReportUnitCommand,
    RetryUnitCommand,
    UnitCommandRetried,
    UnitCommandStatus,
)
from tests.domain.examples import clinic
from tests.kit.deciding import UNIT_ID, History
from tests.unit_agent.told import frame, told
from unit_agent import mailbox, outbox
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.execution import Execution
from unit_agent.mailbox import Order
from unit_agent.store import Store

P = ParamSpec("P")
T = TypeVar("T")

ORDERS = [UnitCommandId(UUID(int=number)) for number in (1, 2, 3)]
QUIET_SECONDS = 0.05
"""Real time after which an agent that still tries is cut off: another place to die."""


class Died(Exception):
    """kill -9."""


@dataclass
class Centre:
    """The real rules, their timers, and the log in its order."""

    history: History = field(default_factory=lambda: History().note(clinic))
    log: list[Event] = field(default_factory=list)
    due: list[Timer] = field(default_factory=list)

    def give(self, command: Command) -> None:
        with suppress(Refusal):
            events = self.history.carry_out(command)
            self.log += events
            self.due += [timer for event in events for timer in timers(event)]

    def time_passes(self, seconds: float) -> None:
        until = self.history.at + timedelta(seconds=seconds)
        while self.due and (timer := min(self.due, key=lambda one: one.due_at)).due_at <= until:
            self.due.remove(timer)
            self.history.at = self.history.issued_at = max(self.history.at, timer.due_at)
            self.give(timer.command)
        self.history.at = self.history.issued_at = until

    def state(self, order: UnitCommandId) -> UnitCommandState:
        return self.history.state(MAILBOX, unit_command_stream(order))

    def holds(self) -> None:
        """What is true at any moment."""
        states = [self.state(order) for order in ORDERS]
        still = [one for one in states if one.status is UnitCommandStatus.QUEUED]
        assert len(still) == self.history.counts[OPEN_COMMANDS]
        assert all(one.deadline is not None and one.deadline > self.history.at for one in still), (
            "final by its deadline"
        )
        keys = [one.queued.supersede_key for one in still if one.queued is not None and one.queued.supersede_key]
        assert len(keys) == len(set(keys)), "one open command a key"
        ended = [one for one in states if one.status is UnitCommandStatus.EXPIRED]
        assert all(one.deadline is not None and one.deadline <= self.history.at for one in ended), "none before it"


@dataclass
class Site:
    """The site's system: counts what it did. `knows` what it did when asked, or can never tell."""

    knows: bool
    moods: list[str]
    """How it takes what it is asked to do, one after the other; then it does it."""
    silent_asks: int = 0
    """So often it does not answer what it did."""
    effects: Counter[UUID] = field(default_factory=Counter)
    meanwhile: Callable[[Order], Awaitable[None]] = field(default=lambda order: asyncio.sleep(0))
    """What reaches the agent while the site is at it."""

    async def run(self, order: Order) -> Done | Declined | Unsure:
        mood = self.moods.pop(0) if self.moods else "does it"
        if mood == "dies before":
            raise Died
        if mood.startswith("news, "):
            await self.meanwhile(order)
        if mood.endswith("declines"):
            return Declined("no_bed")
        if (
            mood.endswith("silent") and self.knows
        ):  # one that cannot tell is not asked twice, so it always says something
            return Unsure("silence")
        self.effects[order.id] += 1
        if mood == "dies after":
            raise Died
        return Done({"count": self.effects[order.id]})

    async def ask(self, order: Order) -> Done | NotDone | Unsure | None:
        if not self.knows:
            return None
        if self.silent_asks > 0 and not order.in_doubt:
            self.silent_asks -= 1
            return Unsure("silence")
        return Done({"count": self.effects[order.id]}) if self.effects[order.id] else NotDone()

    async def still_wanted(self, order: Order) -> bool:
        return True


class Mortal(Store):
    """A store whose agent dies at its n-th access from now, before or after what that does."""

    accesses_left: int = -1
    after: bool = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.accesses_left -= 1
        if self.accesses_left == 0 and not self.after:
            raise Died
        answer = await super().run(work, *args, **kwargs)
        if self.accesses_left == 0:
            raise Died
        return answer


class Agent:
    """One agent through its lives."""

    def __init__(self, folder: Path, centre: Centre, site: Site) -> None:
        self._folder, self.centre, self.site = folder, centre, site
        self.store = Mortal(folder, UNIT_ID)
        self.head = 0
        site.meanwhile = self._news

    async def _news(self, order: Order) -> None:
        await Store.run(self.store, self._begun, order)
        await Store.run(self.store, self.hears, 100)

    def _begun(self, order: Order) -> None:
        """Nothing is asked of the site that is not in the journal as begun, or that the centre is known not to want."""
        row = self.store.db.execute(
            "SELECT state, centre FROM unit_commands WHERE unit_command_id = ?", (str(order.id),)
        ).fetchone()
        assert (row["state"], row["centre"]) == ("executing", None)

    def comes_back(self) -> None:
        """A session begins: the centre says how far the feed reaches."""
        self.head = len(self.centre.log)
        self.store.caught_up(self.head)

    def hears(self, facts: int) -> None:
        """So many more facts arrive."""
        before = self.store.position
        news = self.centre.log[before : before + facts]
        if news:
            batch = [told(before + 1 + number, event) for number, event in enumerate(news)]
            self.store.take([frame(*batch, after=before)], head=self.head, now=self.centre.history.at)

    async def works(self, accesses: int, *, after: bool) -> None:
        """Execute until there is nothing to do, or until it dies; then it lives again."""
        self.store.accesses_left, self.store.after = accesses, after
        execution = Execution(self.store, self.site, now=lambda: self.centre.history.at, reported=lambda: None)
        serving = asyncio.create_task(execution.serve())
        clock = asyncio.get_running_loop().time
        until = clock() + QUIET_SECONDS
        while not serving.done() and clock() < until and self._has_work():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.001)
        serving.cancel()
        await asyncio.wait([serving])
        if not serving.cancelled() and (why := serving.exception()) is not None:
            assert isinstance(why, ExceptionGroup), why
            assert why.split(Died)[1] is None, why
        self.store.close()
        self.store = Mortal(self._folder, UNIT_ID)
        self.comes_back()

    def _has_work(self) -> bool:
        row = self.store.db.execute(
            "SELECT count(*) FROM unit_commands WHERE state = 'executing' OR (state = 'received' AND runnable = 1)"
        ).fetchone()
        return bool(row[0])

    def reports(self, *, twice: bool) -> None:
        """What is in the outbox goes up; the answer may get lost, so it goes up again."""
        for one in outbox.waiting(self.store.db, after=0, limit=100):
            for _ in range(2 if twice else 1):
                self.centre.give(ReportUnitCommand.model_validate(one.payload))
            outbox.accepted(self.store.db, [one.command_id], self.centre.history.at)


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
