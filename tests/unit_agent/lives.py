"""A centre with the real rules, a site that does things or dies over them, and an agent that lives more than once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

from command_handlers.domain.decider import Timer
from command_handlers.domain.processes import timers
from command_handlers.domain.unit_command import MAILBOX, OPEN_COMMANDS, UnitCommandState, unit_command_stream
from contracts.ids import UnitCommandId
from contracts.model import Command, Event, Refusal
from contracts.unit_command import (
    ReportUnitCommand,
    UnitCommandStatus,
)
from tests.domain.examples import clinic
from tests.kit.deciding import UNIT_ID, History
from tests.unit_agent.told import frame, told
from unit_agent import outbox
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
