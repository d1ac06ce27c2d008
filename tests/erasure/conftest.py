"""A network of its own for each test: its clinic, its admin, and a person who is to be erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from contracts.identity import Role
from infra.database import pool
from infra.master_keys import MasterKey
from infra.sealing import Sealer
from infra.services.launcher import Services
from projections.catalogue import READ_MODELS
from projections.rebuild import rebuild
from tests.kit.processes import Installation, installation
from tests.kit.waiting import eventually

JsonObject = dict[str, Any]  # Any: JSON
UNIT = "north-clinic"


@dataclass
class Clinic:
    """What a test speaks to."""

    api: httpx.AsyncClient
    installed: Installation
    database: psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for
    positions: list[str] = field(default_factory=list)

    async def done(self, method: str, path: str, **body: Any) -> JsonObject:  # Any: JSON
        """A command that is accepted."""
        answer = await self.api.request(method, path, json=body)
        assert answer.status_code in (200, 201), answer.text
        self.positions.append(answer.headers.get("Carespine-Position", ""))
        found: JsonObject = answer.json()
        return found

    async def everything_visible(self) -> None:
        """Until the read tables know all of the log."""

        def behind() -> bool:
            row = self.database.execute(
                "SELECT count(*) FROM log_partitions l JOIN projection_checkpoints c USING (partition) "
                "WHERE c.position < l.head"
            ).fetchone()
            return row == (0,)

        await eventually(behind, what="the read tables")

    async def rebuild_all(self) -> None:
        """Every read model anew from the log, as `python -m projections --rebuild all` does."""
        sealer = Sealer(MasterKey(self.installed.master_key))
        async with pool(self.installed.postgres_url, role="projections", largest=1) as ours:
            for model in READ_MODELS:
                assert all([part.left_out == 0 async for part in rebuild(ours, sealer, model)])

    def forget_broker(self, services: Services) -> None:
        """The drained queues go and are made anew; a restart then writes the node's own log anew."""
        virtual_host = urlsplit(self.installed.rabbitmq_url).path.lstrip("/")
        management = services.management_url
        assert management is not None
        with httpx.Client(base_url=management, timeout=30) as node:
            for queue in node.get(f"/api/queues/{virtual_host}").raise_for_status().json():
                assert queue.get("messages", 0) == 0, "not drained"
                node.delete(f"/api/queues/{virtual_host}/{quote(queue['name'], safe='')}").raise_for_status()
        services.restart_rabbitmq()

    async def erased(self, patient_id: str, *, within: float = 30) -> JsonObject:
        """The report once it is complete."""
        reports: list[JsonObject] = []

        async def complete() -> bool:
            answer = await self.api.get(f"/api/patients/{patient_id}/erasure")
            reports.append(answer.json())
            return bool(answer.status_code == 200 and reports[-1]["status"] == "complete")

        await eventually(complete, within=within, what="the erasure")
        return reports[-1]


@pytest.fixture
def installed(postgres: str, rabbitmq: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation without processes yet."""
    with installation(postgres, rabbitmq, tmp_path) as one:
        yield one


@pytest.fixture
async def clinic(installed: Installation, postgres: str) -> AsyncIterator[Clinic]:
    """Handlers, projections and a gateway, and a registered unit."""
    async with running_clinic(installed, postgres) as one:
        yield one


@asynccontextmanager
async def running_clinic(installed: Installation, postgres: str) -> AsyncIterator[Clinic]:
    """Handlers, projections and a gateway on this database, and a registered unit."""
    gateway = installed.start("gateway")
    started = [gateway, installed.start("command_handlers"), installed.start("projections")]
    await asyncio.gather(*(one.ready() for one in started))
    headers = {"Authorization": f"Bearer {installed.token(Role.STAFF, UNIT, 3600)}"}
    url = f"http://127.0.0.1:{gateway.environment['CARESPINE_HTTP_PORT']}"
    with psycopg.connect(postgres, autocommit=True) as database:
        async with httpx.AsyncClient(base_url=url, timeout=35, headers=headers) as api:
            one = Clinic(api, installed, database)
            await one.done("POST", "/api/units", name="A clinic")
            yield one
