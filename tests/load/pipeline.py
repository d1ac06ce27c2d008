"""Carespine itself as a contestant: its processes over a fresh database and virtual host, its units and patients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import psycopg

from contracts.identity import Role
from infra import tokens
from infra.services.ports import free_ports
from tests.load import workload
from tests.load.generator import Job, write_requests
from tests.load.processes import Child, Trouble, drive
from tests.load.saturation import CONNECTIONS
from tests.load.watcher import Watcher

PACKAGES = {"gateway": "gateway", "handlers": "command_handlers", "projections": "projections"}
READY_DEADLINE = 60.0
SETTLE_DEADLINE = 120.0
PATH = "/api/check-in"
TOKEN_SECONDS = 3600


class Pipeline:
    """The running processes, and a watcher of what they publish."""

    def __init__(self, folder: Path, postgres_url: str, rabbitmq_url: str) -> None:
        self.folder = folder
        self.children: dict[str, Child] = {}
        self.watcher: Watcher
        self.port, *self._health_ports = free_ports(1 + len(PACKAGES))
        self._postgres_url = postgres_url
        self._rabbitmq_url = rabbitmq_url
        self._private_key, self._public_key = tokens.generate_key_pair()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path, postgres_url: str, rabbitmq_url: str) -> AsyncIterator[Self]:
        """Start everything, wait until it is ready, stop it afterwards."""
        pipeline = cls(folder, postgres_url, rabbitmq_url)
        try:
            await pipeline._start()
            pipeline.watcher = await Watcher.start(rabbitmq_url)
            try:
                yield pipeline
            finally:
                await pipeline.watcher.stop()
        finally:
            await asyncio.gather(*(child.stop() for child in pipeline.children.values()))

    @property
    def pids(self) -> dict[str, int | None]:
        """Process ids by name."""
        return {name: child.pid for name, child in self.children.items()}

    def token(self, unit: str) -> str:
        """A receptionist's token."""
        return tokens.mint(
            self._private_key, role=Role.RECEPTIONIST, unit=unit, subject=f"desk-{unit}", ttl=TOKEN_SECONDS
        )

    async def register(self, *, units: list[str], patients_per_unit: int) -> list[tuple[str, UUID]]:
        """Register units and patients over HTTP; answers (unit, patient), units taking turns."""
        staff = tokens.mint(self._private_key, role=Role.STAFF, subject="bench", ttl=TOKEN_SECONDS)
        everyone = [
            workload.Errand(unit, json.dumps({"unitId": unit, "name": f"Unit {unit}"}).encode()) for unit in units
        ]
        await self._settled(workload.rendered(everyone, path="/api/units", token=lambda unit: staff))
        people = [
            workload.Errand(unit, json.dumps(workload.person(number)).encode())
            for number in range(patients_per_unit)
            for unit in units
        ]
        answers = await self._settled(workload.rendered(people, path="/api/patients", token=self.token))
        return [(person.unit, UUID(answer["id"])) for person, answer in zip(people, answers, strict=True)]

    def stored(self) -> tuple[int, int, int]:
        """Accepted receipts of check-ins, their encounters in the read model, partitions whose projection is behind."""
        with psycopg.connect(self._postgres_url) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM command_receipts"
                "   WHERE type = 'encounter.CheckIn' AND status = 'accepted'),"
                " (SELECT count(*) FROM read_encounters),"
                " (SELECT count(*) FROM log_partitions JOIN projection_checkpoints USING (partition)"
                "   WHERE head <> position)"
            ).fetchone()
        assert row
        return row

    async def _start(self) -> None:
        environment = {
            "CARESPINE_MODE": "development",
            "CARESPINE_POSTGRES_URL": self._postgres_url,
            "CARESPINE_RABBITMQ_URL": self._rabbitmq_url,
            "CARESPINE_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "CARESPINE_TOKEN_PRIVATE_KEY": self._private_key,
            "CARESPINE_TOKEN_PUBLIC_KEY": self._public_key,
            "CARESPINE_HTTP_PORT": str(self.port),
        }
        for (name, package), port in zip(PACKAGES.items(), self._health_ports, strict=True):
            self.children[name] = await Child.start(
                name,
                [sys.executable, "-m", package],
                log=self.folder / f"{name}.log",
                env={**environment, "CARESPINE_INSTANCE": f"bench-{name}", "CARESPINE_HEALTH_PORT": str(port)},
            )
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            for child, port in zip(self.children.values(), self._health_ports, strict=True):
                await _ready(client, child, f"http://127.0.0.1:{port}/health/ready")

    async def _settled(self, requests: list[bytes]) -> list[dict[str, str]]:
        """Send each request once, wait for each outcome; the answers in the requests' order."""
        file = self.folder / "register.requests"
        write_requests(file, requests)
        job = Job(
            host="127.0.0.1", port=self.port, connections=CONNECTIONS, requests=str(file), first=0,
            seconds=SETTLE_DEADLINE, expect=(201,), keep=True, limit=len(requests),
        )  # fmt: skip
        driven = await drive(job, self.folder)
        file.unlink()
        if driven.accepted != len(requests):
            raise Trouble(
                f"{driven.accepted} of {len(requests)} registrations were done; first refusal: {driven.first_refusal}"
            )
        by_index = dict(zip(driven.indexes, driven.bodies, strict=True))
        return [json.loads(by_index[index]) for index in range(len(requests))]


async def _ready(client: httpx.AsyncClient, child: Child, url: str) -> None:
    try:
        async with asyncio.timeout(READY_DEADLINE):
            while True:
                if child.process.returncode is not None:
                    raise Trouble(f"{child.name} ended{child.last_words()}")
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(url)).is_success:
                        return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Trouble(f"{child.name} was not ready within {READY_DEADLINE:.0f} s{child.last_words()}") from None
