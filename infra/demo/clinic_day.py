"""The demo from the import to the closing account: here is the order of things, each part is a module of its own.

Traffic, faults and a poison command run at the same time on purpose: the account has to balance all the same.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from contracts.envelope import Json
from contracts.identity import Role
from contracts.unit import UnitSettings
from infra import synthetic
from infra.demo.account import Account, balance
from infra.demo.agents import Agents, behind, end_leftovers
from infra.demo.day import Desk, Pace, Visits, keep_open, order_for
from infra.demo.faults import Faults, Story
from infra.demo.gauges import Gauges, Reading
from infra.demo.ledger import Ledger, WritingApi
from infra.demo.network import Network
from infra.demo.units import Sites
from infra.demo.view import Numbers, View
from infra.fhir.importer import Import, Source
from infra.fhir.trail import Checkpoint
from infra.http_server import serving
from infra.services.detached import ServiceTrouble, wait_until

SUBJECT = "demo"
REAL_AGENTS = 3
KEPT_BACK = 4
"""Patients of each unit whom its desk leaves to the script."""
ORDER_EVERY = 0.5
LOOK_EVERY = 0.5
LINK_SECONDS = 30.0
SETTLE_SECONDS = 60.0
SETTINGS = UnitSettings(zone="Europe/Berlin", mrn_pattern="[A-Za-z0-9][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True)
class Shape:
    """How large a day."""

    units: int = 20
    patients: int = 600
    steps_per_second: float = 40.0
    seconds: float = 40.0
    """Of traffic, at least: it goes on until the script is through."""
    seed: int = 1


class ClinicDay:
    """One day, on a network that has been entered."""

    def __init__(self, network: Network, shape: Shape, view: View) -> None:
        self.ledger = Ledger()
        self.visits = Visits()
        self.story = Story()
        self.surprises: list[str] = []
        """Answers that desks did not expect; none on a good day."""
        self._network = network
        self._shape = shape
        self._view = view
        self._folder = network.places.var / "units"
        self._sites = Sites()
        self._agents: list[Agents] = []
        self._people: dict[str, list[Json]] = {}
        """By unit: the records of who is registered there and alive."""
        self._reading = Reading()
        self.numbers: Numbers = {}
        """What the view shows, as it was half a second ago at most."""

    def _look_around(self) -> Numbers:
        seen, ended, visits = self._reading, self.ledger.by_status(), self.visits.counts()
        return {
            "commands": f"{len(self.ledger.entries)} sent, {ended['accepted'] + ended['unchanged']} accepted, "
            f"{ended['refused']} refused, {ended['failed']} dead-lettered, {ended['open']} under way",
            "visits": f"{visits['waiting']} waiting, {visits['called']} called, {visits['in-service']} being seen, "
            f"{visits['finished']} finished",
            "facts": f"{seen.stored} stored, {seen.projected} visible",
            "units": f"{seen.linked} of {self._shape.units} linked, {seen.orders_open} commands to units under way",
            "desk": f"{seen.letters} dead letters",
        }

    async def run(self) -> Account:
        """The whole day; `end` stops the agents. Raises what kept it from going on, without what that brought about."""
        try:
            return await self._run()
        except ExceptionGroup as group:
            raise _first(group) from None

    async def _run(self) -> Account:
        async with AsyncExitStack() as closing:
            gauges = await asyncio.to_thread(Gauges, self._network.postgres_url)
            closing.callback(gauges.close)
            site_url = await closing.enter_async_context(serving(self._sites.app, host="127.0.0.1", port=0, grace=2))
            token = self._network.token(Role.STAFF, subject=SUBJECT)
            api = WritingApi(self._network.plan.gateway_url, token, subject=SUBJECT, ledger=self.ledger)
            await closing.enter_async_context(api)
            watching = asyncio.create_task(self._watch(gauges))
            closing.callback(watching.cancel)
            await self._import(api)
            await self._link_units(site_url)
            await self._open(api, gauges)
            await self._settle(gauges)
            return await asyncio.to_thread(self._balance)

    async def end(self) -> None:
        """Stop the agents."""
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in self._agents))

    async def _watch(self, gauges: Gauges) -> None:
        while True:
            self._reading = await asyncio.to_thread(gauges.read)
            self.numbers = self._look_around()
            await asyncio.sleep(LOOK_EVERY)

    async def _import(self, api: WritingApi) -> None:
        """Made-up units and people, by the same code as `carespine import`."""
        var, shape = self._network.places.var, self._shape
        organizations, patients = synthetic.write(
            var / "fhir", units=shape.units, people=shape.patients, seed=shape.seed
        )
        work = Import(
            api,
            Source(organizations=organizations, patients=patients, settings=SETTINGS),
            report=var / "import-report.jsonl",
            checkpoint=Checkpoint(var / "import", url=self._network.plan.gateway_url, files=(patients,), settings={}),
            moved=lambda kind: None,
        )
        began = self._view.elapsed
        await work.run()
        self._view.say(
            f"imported {work.organizations.registered} units and {work.patients.registered} patients from FHIR NDJSON "
            f"in {self._view.elapsed - began:.1f} s"
        )
        self._people = {entry.unit_id: [] for entry in self.ledger.accepted("unit.RegisterUnit")}
        for entry in self.ledger.accepted("patient.RegisterPatient"):
            if "deceasedAt" not in entry.body:
                self._people[entry.unit_id].append(entry.body)

    async def _link_units(self, site_url: str) -> None:
        """Some units as agents of their own, all others in one process."""
        await asyncio.to_thread(end_leftovers, self._folder)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        tokens = {unit_id: self._network.token(Role.UNIT, unit=unit_id) for unit_id in self._people}
        bridges = [bridge["unit_url"] for bridge in self._network.plan.bridges]
        for number, unit_id in enumerate(list(tokens)[:REAL_AGENTS]):
            turn = [bridges[number % len(bridges)]]
            own = {unit_id: tokens.pop(unit_id)}
            self._agents.append(Agents(f"agent-{number}", self._folder, own, bridge_urls=turn, site_url=site_url))
        self._agents.append(Agents("fleet", self._folder, tokens, bridge_urls=bridges, site_url=site_url))
        for process in self._agents:
            await asyncio.to_thread(process.start)
        all_linked = partial(wait_until, lambda: self._reading.linked == len(self._people))
        await asyncio.to_thread(all_linked, timeout=LINK_SECONDS, what="the link of every unit")
        self._view.say(
            f"{len(self._people)} units are linked: {REAL_AGENTS} agents as processes of their own, "
            f"{len(tokens)} in one process"
        )

    async def _open(self, api: WritingApi, gauges: Gauges) -> None:
        """Desks at work and, at the same time, what the script does to the system."""
        kept_back = {unit_id: people[:KEPT_BACK] for unit_id, people in self._people.items()}
        desks = [
            Desk(
                api,
                unit_id,
                [str(person["patientId"]) for person in people[KEPT_BACK:]],
                self.visits,
                seed=self._shape.seed,
            )
            for unit_id, people in self._people.items()
        ]
        faults = Faults(self._network, self._agents, api, self.ledger, self.visits, kept_back, gauges, self._view.say)
        self.story = faults.story
        closing = asyncio.Event()
        began = self._view.elapsed

        async def at(part: float) -> None:
            await asyncio.sleep(max(0.0, began + part * self._shape.seconds - self._view.elapsed))

        self._view.say(f"the day begins: {self._shape.steps_per_second:.0f} steps a second at {len(desks)} desks")
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_open(desks, Pace(self._shape.steps_per_second), closing))
            group.create_task(self._orders(api, closing))
            try:
                await faults.run(at)
                await at(1.0)
            finally:
                closing.set()
        self.surprises = [surprise for desk in desks for surprise in desk.surprises]
        finished = self.visits.counts()["finished"]
        self._view.say(f"the day ends: {len(self.visits.all())} visits, {finished} of them finished")

    async def _orders(self, api: WritingApi, closing: asyncio.Event) -> None:
        """Durable commands to units, round and round, whether a unit is there or not."""
        units, number = list(self._people), 0
        while not closing.is_set():
            unit_id = units[number % len(units)]
            people = self._people[unit_id]
            about = str(people[0]["patientId"]) if people and number % 2 else None
            path = f"/api/units/{unit_id}/commands"
            await api.ask("unit_command.QueueUnitCommand", unit_id, path, order_for(number, about))
            number += 1
            await asyncio.sleep(ORDER_EVERY)

    async def _settle(self, gauges: Gauges) -> None:
        """Wait until nothing is under way any more; what is late by the deadline, the account will show."""

        def settled() -> bool:
            seen = gauges.read()
            taken = [entry.command_id for entry in self.ledger.entries.values() if entry.taken]
            return (
                seen.stored == seen.projected
                and seen.orders_open == 0
                and gauges.unanswered(taken) == 0
                and not behind(self._agents, gauges.heads())
            )

        began = self._view.elapsed
        try:
            await asyncio.to_thread(wait_until, settled, timeout=SETTLE_SECONDS, what="rest")
            self._view.say(f"everything has arrived {self._view.elapsed - began:.1f} s later; now the account")
        except ServiceTrouble:
            self._view.say(f"something is still under way after {SETTLE_SECONDS:.0f} s; now the account")

    def _balance(self) -> Account:
        stores = {unit_id: process.store(unit_id) for process in self._agents for unit_id in process.units}
        return balance(
            self._network.postgres_url,
            self.ledger,
            self.visits,
            stores,
            done_at_sites=self._sites.done,
            replayed=self.story.poison,
        )


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """What went wrong first of all that went wrong together."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
