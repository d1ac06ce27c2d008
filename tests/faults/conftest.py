"""A whole installation under load: two of each process and agents at six units."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from contracts.identity import Role
from infra.services.launcher import Services
from tests.faults.ledger import Ledger, UnitCaller, audit, delivered, projected, read_side
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.processes import Installation, Started, installation
from tests.kit.waiting import eventually

UNITS = [f"unit-{number}" for number in range(6)]


@dataclass
class Clinic:
    """Everything that runs, and what was sent to it."""

    services: Services
    installed: Installation
    ledger: Ledger = field(default_factory=Ledger)
    beside: Ledger = field(default_factory=Ledger)
    """What was sent beside the callers, in no order with theirs."""
    stores: dict[str, Path] = field(default_factory=dict)

    def process(self, module: str, number: int = 0) -> Started:
        """One of the processes of a kind."""
        return [one for one in self.installed.started.values() if one.module == module][number]

    @property
    def gateways(self) -> list[str]:
        """Where callers ask."""
        return [
            f"http://127.0.0.1:{one.environment['CARESPINE_HTTP_PORT']}"
            for one in self.installed.started.values()
            if one.module == "gateway"
        ]

    async def start(self) -> None:
        """Start everything and wait until it is ready and the units are registered and linked."""
        for module in ("gateway", "command_handlers", "projections", "ws_bridge"):
            for _ in range(2):
                self.installed.start(module)
        for one in self.installed.started.values():
            await one.ready()
        async with httpx.AsyncClient(timeout=30) as client:
            for unit_id in UNITS:
                answer = await client.post(
                    self.gateways[0] + "/api/units",
                    json={"unitId": unit_id, "name": "A clinic"},
                    headers={"Authorization": f"Bearer {self.installed.token(Role.OPS)}"},
                )
                assert answer.status_code in (200, 201), answer.text
        self._start_agents()

    def _start_agents(self) -> None:
        bridges = [one for one in self.installed.started.values() if one.module == "ws_bridge"]
        for half, bridge in enumerate(bridges):
            fleet = []
            for unit_id in UNITS[half::2]:
                folder = self.installed.folder / "agents" / unit_id
                self.stores[unit_id] = folder / "agent.db"
                fleet.append(
                    {
                        "credential": self.installed.token(Role.UNIT, unit_id, ttl=7200),
                        "unit": unit_id,
                        "url": f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}/unit",
                        "data": str(folder),
                    }
                )
            path = self.installed.folder / f"fleet-{half}.json"
            path.write_text(json.dumps(fleet))
            self.installed.start("unit_agent", "--fleet", str(path))

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Callers at every unit for as long as the block lasts; then everything acknowledged is awaited and audited."""
        stop = asyncio.Event()
        async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as callers:
            for unit_id in UNITS:
                own = self.installed.token(Role.STAFF, unit_id)
                callers.create_task(UnitCaller(client, self.gateways, unit_id, own, self.ledger).run(stop))
            await self.progress(30)
            try:
                yield
                await self.progress(60)
            finally:
                stop.set()
        await self.settled()

    async def progress(self, more: int) -> None:
        """Wait until so many more commands have been acknowledged."""
        goal = len(self.ledger.sent) + more
        await eventually(lambda: len(self.ledger.sent) >= goal, within=60, what=f"{more} more commands acknowledged")

    async def settled(self) -> None:
        """Nothing lost, nothing doubled, order kept: in the log, the receipts, the read tables and at the units."""
        with psycopg.connect(self.installed.postgres_url, autocommit=True) as database:
            await balanced(lambda: audit(database, self.ledger) + audit(database, self.beside))
            await eventually(lambda: projected(database), within=60, what="the read side caught up")
            assert read_side(database) == []
            await balanced(lambda: delivered(database, self.stores))

    async def lease_over(self) -> None:
        """Wait until every lease that stands now has run out or was renewed by somebody alive."""
        with psycopg.connect(self.installed.postgres_url, autocommit=True) as database:
            (over,) = database.execute("SELECT max(expires_at) FROM leases").fetchone() or (None,)
            await eventually(
                lambda: database.execute("SELECT clock_timestamp() > %s", (over,)).fetchone() == (True,), within=30
            )

    async def acknowledged_only(self, count: int) -> None:
        """One command more at each of `count` units, acknowledged while nobody can handle it."""
        async with httpx.AsyncClient(timeout=10) as client:
            for unit_id in UNITS[:count]:
                own = self.installed.token(Role.STAFF, unit_id)
                caller = UnitCaller(client, self.gateways, unit_id, own, self.beside)
                answer = await caller.send("/api/queues/general/call-next", "call", {"counter": "2"}, wait=False)
                assert answer["status"] == "pending"


async def balanced(wrong: Callable[[], list[str]], *, within: float = 60) -> None:
    """Wait until nothing is wrong any more; fails with the first things that are."""
    found: list[str] = []

    def look() -> bool:
        found[:] = wrong()
        return not found

    try:
        await eventually(look, within=within)
    except AssertionError:
        raise AssertionError(f"{len(found)} wrong after {within:g} s: {found[:10]}") from None


@pytest.fixture
def clinic(breakable_services: Services, tmp_path: Path) -> Iterator[Clinic]:
    """A clinic on services that may be broken."""
    with (
        fresh_database(breakable_services.postgres_url) as database,
        fresh_virtual_host(breakable_services) as broker,
        installation(database, broker, tmp_path) as installed,
    ):
        yield Clinic(breakable_services, installed)
