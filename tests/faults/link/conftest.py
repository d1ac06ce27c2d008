"""One installation for all of these tests, two bridges in it, and for each test units, agents and a line of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from contracts.identity import Role
from infra.services.launcher import Services
from tests.faults.conftest import balanced
from tests.faults.ledger import projected
from tests.faults.link.account import Account, Asked, Database, Made, wrong_with_asked, wrong_with_feed, wrong_with_made
from tests.faults.link.site import Site, site_system
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.lines import Line
from tests.kit.processes import Installation, Started, installation
from tests.kit.waiting import eventually

PROCESSES = ("gateway", "command_handlers", "projections", "ws_bridge", "ws_bridge")
AGAIN = 0.05
"""Seconds after which a caller that was not answered asks again."""
PACE = 0.05
"""Seconds a caller rests after an answer: the machine is to be in trouble, not the caller."""
SETTLE = 60.0
UNIT_TOKEN_SECONDS = 6
"""Lifetime of what an agent's own key is exchanged for; plain tokens last as long as they say."""


@dataclass
class Network:
    """What all tests of a run share."""

    services: Services
    installed: Installation
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def gateway(self) -> str:
        """Where callers ask."""
        return f"http://127.0.0.1:{self._of('gateway')[0].environment['CARESPINE_HTTP_PORT']}"

    @property
    def bridges(self) -> list[Started]:
        """Both bridges."""
        return self._of("ws_bridge")[:2]

    async def ready(self) -> None:
        """Everything runs, again if a test left it otherwise."""
        for module in dict.fromkeys(PROCESSES):
            for one in self._of(module)[: PROCESSES.count(module)]:
                if one.running():
                    one.thaw()
                else:
                    one.start()
        await asyncio.gather(*(one.ready() for module in dict.fromkeys(PROCESSES) for one in self._of(module)[:2]))

    def _of(self, module: str) -> list[Started]:
        return [one for one in self.installed.started.values() if one.module == module]


@pytest.fixture(scope="package")
def network(breakable_services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The installation; whatever a test breaks of it, the next one finds whole."""
    with (
        fresh_database(breakable_services.postgres_url) as database,
        fresh_virtual_host(breakable_services) as broker,
        installation(
            database, broker, tmp_path_factory.mktemp("link"), CARESPINE_UNIT_TOKEN_SECONDS=str(UNIT_TOKEN_SECONDS)
        ) as installed,
    ):
        for module in PROCESSES:
            installed.start(module)
        yield Network(breakable_services, installed)


def url_of(bridge: Started) -> str:
    """Where its units connect."""
    return f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}/unit"


@dataclass
class Scene:
    """A few units with their agents in one process, their site's system, and the line they reach the centre by."""

    network: Network
    line: Line
    site: Site
    folder: Path
    client: httpx.AsyncClient
    units: list[str] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    agents: Started | None = None
    _database: Database | None = None

    @property
    def stores(self) -> dict[str, Path]:
        """Each agent's own disk."""
        return {unit_id: self.folder / unit_id / "agent.db" for unit_id in self.units}

    @property
    def database(self) -> Database:
        """The auditor's own connection."""
        assert self._database is not None
        return self._database

    def token(self, unit_id: str, *, ttl: int = 3600) -> str:
        """A unit's own token."""
        return self.network.installed.token(Role.UNIT, unit_id, ttl=ttl)

    def start_agents(self, *, url: str | None = None, folder: Path | None = None) -> Started:
        """Agents for all units, by way of the line, in a process of their own."""
        members = [
            {
                "credential": self.token(unit_id),
                "unit": unit_id,
                "url": url or self.line.url,
                "data": str((folder or self.folder) / unit_id),
                "httpPort": 0,
                "webhook": f"{self.site.url}/{unit_id}",
            }
            for unit_id in self.units
        ]
        fleet = self.folder / f"fleet-{uuid4().hex[:8]}.json"
        fleet.write_text(json.dumps(members))
        agents = self.network.installed.start("unit_agent", "--fleet", str(fleet), name=f"agents-{fleet.stem}")
        self.agents = self.agents or agents
        return agents

    async def register(self, units: list[str]) -> None:
        """The scene's units from here on."""
        self.units = units
        operator = self.network.installed.token(Role.OPS)
        for unit_id in units:
            answer = await self.client.post(
                f"{self.network.gateway}/api/units",
                json={"unitId": unit_id, "name": "A clinic"},
                headers={"Authorization": f"Bearer {operator}", "Prefer": "wait=30"},
            )
            assert answer.status_code in (200, 201), answer.text

    def close(self) -> None:
        """Let go of the auditor's connection."""
        if self._database is not None:
            self._database.close()

    async def look_again(self) -> None:
        """Open the auditor's own connection, anew when the database was away."""
        self.close()
        self._database = await asyncio.to_thread(psycopg.connect, self.network.installed.postgres_url, autocommit=True)

    async def linked(self) -> None:
        """Every unit has a live session."""
        await eventually(
            lambda: (
                self.database.execute(
                    "SELECT count(*) FROM unit_sessions WHERE unit_id = ANY(%s) AND connected", (self.units,)
                ).fetchone()
                == (len(self.units),)
            ),
            within=60,
            what="every unit linked",
        )

    async def queue(self, unit_id: str, number: int, *, seconds: float = 120) -> Asked:
        """Ask for one command to a unit, again and again until it is acknowledged."""
        body = {
            "type": "note",
            "payload": {"number": number},
            "deadline": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        }
        answer = await self._until_taken(
            f"{self.network.gateway}/api/units/{unit_id}/commands",
            body,
            lambda: self.network.installed.token(Role.OPS),
            f"{unit_id}-{number}",
        )
        asked = Asked(unit_id, number, answer["id"])
        self.account.asked.append(asked)
        return asked

    async def make(self, unit_id: str, number: int) -> Made:
        """Make one command at a unit, again and again until its agent has it."""
        body = {
            "type": "patient.RegisterPatient",
            "payload": {
                "firstName": "Zoraida",
                "lastName": "Quillfeather",
                "medicalRecordNumber": f"MRN-{unit_id}-{number}",
                "dateOfBirth": "1984-02-29",
            },
        }
        answer = await self._until_taken(
            lambda: json.loads((self.folder / unit_id / "local-api.json").read_text())["url"] + "/commands",
            body,
            (self.folder / unit_id / "local-token").read_text,
            f"made-{number}",
        )
        made = Made(unit_id, number, answer["commandId"])
        self.account.made.append(made)
        return made

    async def _until_taken(
        self, url: str | Callable[[], str], body: Mapping[str, object], token: Callable[[], str], key: str
    ) -> dict[str, str]:
        deadline = asyncio.get_running_loop().time() + SETTLE
        told = "nothing"
        while asyncio.get_running_loop().time() < deadline:
            try:
                answer = await self.client.post(
                    url if isinstance(url, str) else url(),
                    json=body,
                    headers={
                        "Authorization": f"Bearer {token()}",
                        "Idempotency-Key": key,
                        "Prefer": "wait=5",
                    },
                )
            except (httpx.HTTPError, OSError, ValueError) as trouble:  # not there, or its address half written
                told = repr(trouble)
            else:
                told = f"{answer.status_code} {answer.text[:200]}"
                agent_has_it = answer.status_code == 202 and "/api/" not in str(answer.url)
                if answer.status_code in (200, 201) or agent_has_it:
                    return dict(answer.json())
                assert answer.status_code in (202, 429, 502, 503, 504, 507), told
            await asyncio.sleep(AGAIN)
        raise AssertionError(f"never acknowledged within {SETTLE:g} s; last: {told}")

    @asynccontextmanager
    async def busy(self, *, repeats: bool = False) -> AsyncIterator[None]:
        """Commands to and from every unit while the block lasts; then all that was acknowledged is audited."""
        stop = asyncio.Event()

        async def ask(unit_id: str) -> None:
            for number in count(1):
                await self.queue(unit_id, number)
                if stop.is_set():
                    return
                await asyncio.sleep(PACE)

        async def make(unit_id: str) -> None:
            for number in count(1):
                await self.make(unit_id, number)
                if stop.is_set():
                    return
                await asyncio.sleep(PACE)

        async with asyncio.TaskGroup() as callers:
            for unit_id in self.units:
                callers.create_task(ask(unit_id))
                callers.create_task(make(unit_id))
            await self.progress(10)
            try:
                yield
                await self.progress(20)
            finally:
                stop.set()
        await self.settled(repeats=repeats)

    async def progress(self, more: int) -> None:
        """So many more commands have been acknowledged."""
        goal = len(self.account) + more
        await eventually(lambda: len(self.account) >= goal, within=SETTLE, what=f"{more} more commands acknowledged")

    async def executed(self, more: int) -> None:
        """So many more commands have been executed at the units."""
        goal = len(self.site.runs) + more
        await eventually(lambda: len(self.site.runs) >= goal, within=SETTLE, what=f"{more} more commands executed")

    async def settled(self, *, repeats: bool = False) -> None:
        """Nothing lost, nothing done twice, order kept, all final in time."""
        await balanced(lambda: wrong_with_asked(self.database, self.account, self.site, repeats=repeats), within=SETTLE)
        await balanced(lambda: wrong_with_made(self.database, self.account), within=SETTLE)
        await eventually(lambda: projected(self.database), within=SETTLE, what="the read side caught up")
        await balanced(lambda: wrong_with_feed(self.database, self.stores), within=SETTLE)

    def runs_at(self, unit_id: str) -> int:
        """How many commands the unit's site was asked to execute."""
        return sum(run.unit_id == unit_id for run in self.site.runs)

    def acknowledged_at(self, unit_id: str) -> int:
        """How far the unit has said that the feed is on its disk."""
        row = self.database.execute(
            "SELECT acked_position FROM unit_sessions WHERE unit_id = %s", (unit_id,)
        ).fetchone()
        return int(row[0]) if row else 0

    def feed(self, unit_id: str) -> list[int]:
        """The positions of everything that has happened at the unit, as far as it is visible."""
        rows = self.database.execute(
            "SELECT e.position FROM events e JOIN projection_checkpoints c USING (partition) "
            "WHERE e.unit_id = %s AND e.position <= c.position ORDER BY e.position",
            (unit_id,),
        )
        return [position for (position,) in rows]

    def statuses(self) -> dict[str, str]:
        """Where each command to these units stands."""
        rows = self.database.execute(
            "SELECT unit_command_id, status FROM read_unit_commands WHERE unit_id = ANY(%s)", (self.units,)
        )
        return {str(command_id): status for command_id, status in rows}


@pytest.fixture
async def scene(network: Network, tmp_path: Path) -> AsyncIterator[Scene]:
    """Three units, registered and with a line to the first bridge; their agents are not started yet."""
    await network.ready()
    async with AsyncExitStack() as closing:
        number = next(network.numbers)
        one = Scene(
            network,
            await closing.enter_async_context(Line(url_of(network.bridges[0]))),
            await closing.enter_async_context(site_system()),
            tmp_path,
            await closing.enter_async_context(httpx.AsyncClient(timeout=10, trust_env=False)),
        )
        await one.look_again()
        try:
            await one.register([f"clinic-{number}-{letter}" for letter in "abc"])
            yield one
        finally:
            one.close()
            for process in list(network.installed.started.values()):
                if process.module == "unit_agent" and process.running():
                    process.thaw()
                    process.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]  # it runs
                    process.process.wait(20)  # type: ignore[union-attr]
