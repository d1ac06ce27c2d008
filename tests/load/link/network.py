"""The system whose link is measured: one of each process on a fresh database and virtual host, and its units."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from contracts.identity import Role
from infra.services.launcher import Services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.processes import Installation, Started, installation
from tests.load import workload
from tests.load.figures import Spread, spread
from tests.load.generator import Driven, Job, write_requests
from tests.load.link.children import Told
from tests.load.link.fleet import unit_name
from tests.load.processes import Meter, Trouble, drive, listener_of
from tests.load.saturation import CONNECTIONS

MODULES = {
    "gateway": "gateway",
    "handlers": "command_handlers",
    "projections": "projections",
    "bridge": "ws_bridge",
}
REGISTER_SECONDS = 300.0


@dataclass
class Network:
    """What runs."""

    services: Services
    installed: Installation
    folder: Path
    units: int
    processes: dict[str, Started]

    @property
    def bridge_port(self) -> int:
        """Where units connect."""
        return int(self.processes["bridge"].environment["CARESPINE_BRIDGE_PORT"])

    def meter(self) -> Meter:
        """CPU of everything that runs now."""
        postgres, rabbitmq = self.services.postgres, self.services.rabbitmq
        servers = {
            "postgres": postgres.pid if postgres else listener_of(self.services.postgres_url),
            "rabbitmq": rabbitmq.pid if rabbitmq else listener_of(self.services.rabbitmq_url),
        }
        return Meter({name: one.pid for name, one in self.processes.items() if one.running()} | servers)

    def bridge_kib(self) -> float:
        """The bridge's resident memory."""
        return psutil.Process(self.processes["bridge"].pid).memory_info().rss / 1024

    def database_connections(self) -> int:
        """How many there are of this installation, ours not counted."""
        with psycopg.connect(self.installed.postgres_url, autocommit=True) as database:
            row = database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(row[0]) if row else 0

    async def fleet(self) -> Told:
        """The units' side, not connected yet."""
        return await Told.begin(
            "fleet",
            "unit",
            self.units,
            self.bridge_port,
            log=self.folder / "fleet.log",
            env={"CARESPINE_TOKEN_PRIVATE_KEY": self.installed.private_key},
        )

    async def register(self) -> None:
        """Every unit, over HTTP."""
        errands = [
            workload.Errand(unit_name(number), json.dumps({"unitId": unit_name(number), "name": "A clinic"}).encode())
            for number in range(self.units)
        ]
        operator = self.installed.token(Role.OPS)
        requests = workload.rendered(
            errands, path="/api/units", token=lambda unit: operator, headers=["Prefer: wait=20"]
        )
        driven = await self._drive(requests, seconds=REGISTER_SECONDS, limit=len(requests), expect=(200, 201))
        if driven.accepted != self.units:
            raise Trouble(f"{driven.accepted} of {self.units} units were registered; {driven.first_refusal}")

    async def calls(self, rate: float, seconds: float) -> tuple[Spread | None, Driven]:
        """Live calls to units in turn, over HTTP, each answered by its unit."""
        operator = self.installed.token(Role.OPS)
        requests = [
            request
            for number in range(round(rate * seconds))
            for request in workload.rendered(
                [workload.Errand("", b"{}")],
                path=f"/api/units/{unit_name(number * 7919 % self.units)}/calls/ping",
                token=lambda unit: operator,
                headers=["Prefer: wait=5"],
            )
        ]
        driven = await self._drive(requests, seconds=seconds, rate=rate, expect=(200,), keep=True)
        delays = [answered - due for answered, due in zip(driven.answered, driven.due, strict=True)]
        return (spread(delays) if delays else None), driven

    async def _drive(
        self,
        requests: list[bytes],
        *,
        seconds: float,
        rate: float | None = None,
        limit: int | None = None,
        expect: tuple[int, ...],
        keep: bool = False,
    ) -> Driven:
        file = self.folder / "link.requests"
        write_requests(file, requests)
        port = int(self.processes["gateway"].environment["CARESPINE_HTTP_PORT"])
        job = Job(
            host="127.0.0.1", port=port, connections=CONNECTIONS, requests=str(file), first=0, seconds=seconds,
            rate=rate, limit=limit, expect=expect, keep=keep,
        )  # fmt: skip
        try:
            return await drive(job, self.folder)
        finally:
            file.unlink()


@contextlib.asynccontextmanager
async def running(services: Services, folder: Path, units: int) -> AsyncIterator[Network]:
    """Start everything, and end it."""
    with (
        fresh_database(services.postgres_url) as postgres_url,
        fresh_virtual_host(services) as rabbitmq_url,
        installation(postgres_url, rabbitmq_url, folder) as installed,
    ):
        # The leases of a real installation: a busy machine is no reason to give partitions away.
        installed.extra["CARESPINE_LEASE_SECONDS"] = "6"
        processes = {name: installed.start(module, name=f"bench-{name}") for name, module in MODULES.items()}
        await asyncio.gather(*(one.ready() for one in processes.values()))
        yield Network(services, installed, folder, units, processes)
