"""What is done to the system while people work on it: killed processes, a unit that is away, a poison command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from contracts.envelope import Json
from infra.demo.agents import Agents
from infra.demo.day import DEPARTMENTS, Visit, Visits
from infra.demo.gauges import Gauges
from infra.demo.ledger import Ledger, WritingApi
from infra.demo.network import Network
from infra.demo.poison import Poison
from infra.demo.view import Say
from infra.services.detached import wait_until

CATCH_UP_SECONDS = 30.0
At = Callable[[float], Awaitable[None]]
"""Wait for a part of the day: 0 is its beginning, 1 its end."""


@dataclass
class Story:
    """What was done, for the account to tell."""

    faults: list[str] = field(default_factory=list)
    missed: int = 0
    """Facts the unit that was away had missed when it came back."""
    catch_up_seconds: float = 0.0
    poison: list[UUID] = field(default_factory=list)
    """The poison command and the one behind it."""


class Faults:
    """The script of a day's faults. `people` by unit: records nobody else will check in, for the units to do."""

    def __init__(
        self,
        network: Network,
        agents: list[Agents],
        api: WritingApi,
        ledger: Ledger,
        visits: Visits,
        people: Mapping[str, list[Json]],
        gauges: Gauges,
        say: Say,
    ) -> None:
        self.story = Story()
        self._network = network
        self._agents = agents
        self._api = api
        self._ledger = ledger
        self._visits = visits
        self._people = people
        self._gauges = gauges
        self._say = say

    async def run(self, at: At) -> None:
        """Fault after fault; whatever takes longer than planned moves the rest."""
        first, second, third = self._agents[:3]
        poison = Poison(self._network, self._api, self._say)
        unit_id, (*_, person) = max(self._people.items(), key=lambda unit: (unit[0] not in first.units, len(unit[1])))
        await at(0.08)
        await self._check_in(first)
        await self._kill_agent(first)
        await at(0.16)
        await asyncio.to_thread(third.stop)
        away_since = third.position(third.units[0])
        self._say(f"unit {third.units[0]} goes offline: what concerns it waits in the log")
        await at(0.22)
        await self._kill("handlers-1")
        await at(0.34)
        await self._kill("bridge-1")
        await self._check_in(first)
        await self._check_in(second)
        await at(0.44)
        await poison.strike(unit_id, person)
        await poison.show()
        await self._kill_agent(second)
        await poison.repair_and_replay()
        self.story.poison = poison.commands
        await at(0.8)
        await self._come_back(third, away_since)
        await at(0.9)
        await self._check_in(second)
        await self._kill_agent(third)

    async def _kill(self, name: str) -> None:
        pid = await asyncio.to_thread(self._network.kill, name)
        self.story.faults.append(f"kill -9 {name}")
        self._say(f"kill -9 {name} (pid {pid}); its supervisor starts it again")

    async def _kill_agent(self, agent: Agents) -> None:
        pid = await asyncio.to_thread(agent.kill)
        await asyncio.to_thread(agent.start)
        self.story.faults.append(f"kill -9 the agent of {agent.units[0]}")
        self._say(f"kill -9 the agent of {agent.units[0]} (pid {pid}), and started again")

    async def _check_in(self, agent: Agents) -> None:
        """Somebody arrives at a unit and is checked in there, through its agent, whether its link is up or not."""
        (unit_id,) = agent.units
        if not self._people[unit_id]:
            return
        patient_id = str(self._people[unit_id].pop()["patientId"])
        payload = {"patientId": patient_id, "department": DEPARTMENTS[0], "reason": "came in by itself"}
        key = f"demo-{patient_id}"
        told = await asyncio.to_thread(agent.submit, "encounter.CheckIn", payload, key=key, ledger=self._ledger)
        self._visits.made_at_units.append(
            Visit(unit_id, patient_id, told["encounterId"], told["queueEntryId"], DEPARTMENTS[0])
        )
        self._say(f"a patient is checked in at {unit_id} itself, through its agent")

    async def _come_back(self, agent: Agents, away_since: int) -> None:
        (unit_id,) = agent.units
        head = (await asyncio.to_thread(self._gauges.heads))[unit_id]
        self.story.missed = await asyncio.to_thread(self._gauges.count, unit_id, away_since)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.to_thread(agent.start)
        arrived = partial(wait_until, lambda: agent.position(unit_id) >= head)
        await asyncio.to_thread(arrived, timeout=CATCH_UP_SECONDS, what=f"the catching up of {unit_id}")
        self.story.catch_up_seconds = loop.time() - began
        self.story.faults.append(f"{unit_id} offline")
        self._say(
            f"unit {unit_id} is back: the {self.story.missed} facts it had missed are on its disk "
            f"{self.story.catch_up_seconds:.1f} s after its agent was started"
        )
