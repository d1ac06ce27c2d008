"""A network of its own for each test: its clinic, its admin, and a person who is to be erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from contracts.identity import Role
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
