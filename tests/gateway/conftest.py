"""One small network for all of these tests, and a clinic of its own for each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from contracts.identity import Role
from infra.services.launcher import Services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.processes import Installation, Started, installation

DEFECTIVE = "patient.MarkDeceased"
"""The one command whose handler has a (rehearsed) bug, for the dead-letter desk."""
JsonObject = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Network:
    """The processes and the way in."""

    installed: Installation
    gateway: Started

    @property
    def url(self) -> str:
        """Where callers ask."""
        return url_of(self.gateway)

    def caller(self, role: Role = Role.STAFF, unit: str | None = None, *, ttl: int = 3600) -> dict[str, str]:
        """Headers of a caller."""
        return {"Authorization": f"Bearer {self.installed.token(role, unit, ttl)}"}


@dataclass(frozen=True)
class Clinic:
    """A registered unit, and a client that speaks as its trusted staff system."""

    unit_id: str
    api: httpx.AsyncClient
    network: Network

    def role(self, role: Role) -> dict[str, str]:
        """Headers of somebody who works here."""
        return self.network.caller(role, self.unit_id)

    async def patient(self, **changes: object) -> JsonObject:
        """A registered patient: the answer's body."""
        answer = await self.api.post("/api/patients", json=person(**changes))
        assert answer.status_code == 201, answer.text
        return {**answer.json(), "position": answer.headers["Carespine-Position"]}

    async def checked_in(self, **changes: object) -> JsonObject:
        """A patient who has just arrived: the answer's body."""
        patient = await self.patient()
        answer = await self.api.post("/api/check-in", json={**arrival(patient["id"]), **changes})
        assert answer.status_code == 201, answer.text
        found: JsonObject = answer.json()
        return {**found, "patientId": patient["id"], "position": answer.headers["Carespine-Position"]}


def person(**changes: object) -> JsonObject:
    """What is told of a person who is registered."""
    return {
        "firstName": "Ana",
        "lastName": "Quillfeather",
        "dateOfBirth": "1984-02-29",
        "medicalRecordNumber": f"MRN-{secrets.token_hex(8)}",
        **changes,
    }


def arrival(patient_id: str, **changes: object) -> JsonObject:
    """What is told of a patient who arrives."""
    return {"patientId": patient_id, "department": "general", "priority": "routine", "reason": "a cough", **changes}


def url_of(gateway: Started) -> str:
    """Where a gateway answers."""
    return f"http://127.0.0.1:{gateway.environment['CARESPINE_HTTP_PORT']}"


def problem(answer: httpx.Response, status: int, code: str) -> JsonObject:
    """The problem document of an answer, which must be this one."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    found: JsonObject = answer.json()
    assert (found["code"], found["status"]) == (code, status), found
    return found


@pytest.fixture(scope="session")
def network(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A gateway, a handler process and a projections process on a database and a virtual host of their own."""
    with (
        fresh_database(services.postgres_url) as postgres,
        fresh_virtual_host(services) as rabbitmq,
        installation(postgres, rabbitmq, tmp_path_factory.mktemp("gateway")) as installed,
    ):
        gateway = installed.start("gateway", CARESPINE_BODY_LIMIT="16384")
        started = [
            gateway,
            installed.start("command_handlers", CARESPINE_REHEARSE_DEFECT=DEFECTIVE),
            installed.start("projections"),
        ]

        async def all_ready() -> None:
            await asyncio.gather(*(one.ready() for one in started))

        asyncio.run(all_ready())
        yield Network(installed, gateway)


@pytest.fixture
async def anyone(network: Network) -> AsyncIterator[httpx.AsyncClient]:
    """A client that says nothing of who it is."""
    async with httpx.AsyncClient(base_url=network.url, timeout=35) as client:
        yield client


@pytest.fixture
async def clinic(network: Network) -> AsyncIterator[Clinic]:
    """A fresh unit."""
    unit_id = f"clinic-{secrets.token_hex(6)}"
    headers = network.caller(Role.STAFF, unit_id)
    async with httpx.AsyncClient(base_url=network.url, timeout=35, headers=headers) as client:
        answer = await client.post("/api/units", json={"name": "A clinic"})
        assert answer.status_code == 201, answer.text
        yield Clinic(unit_id, client, network)


@pytest.fixture
async def other_clinic(network: Network) -> AsyncIterator[Clinic]:
    """Another fresh unit."""
    unit_id = f"clinic-{secrets.token_hex(6)}"
    headers = network.caller(Role.STAFF, unit_id)
    async with httpx.AsyncClient(base_url=network.url, timeout=35, headers=headers) as client:
        answer = await client.post("/api/units", json={"name": "Another clinic"})
        assert answer.status_code == 201, answer.text
        yield Clinic(unit_id, client, network)
