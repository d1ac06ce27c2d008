"""With something away: commands are taken without Postgres, refused without the broker; nothing is lost either way."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest

from tests.gateway.conftest import Clinic, JsonObject, Network, arrival, person, problem, url_of
from tests.infra.cable import Cable
from tests.kit.processes import Started
from tests.kit.waiting import eventually


@contextlib.asynccontextmanager
async def another_gateway(network: Network, **environment: str) -> AsyncIterator[tuple[Started, httpx.AsyncClient]]:
    """One more gateway of the same network, told otherwise, and a client of it with a network-wide token."""
    gateway = network.installed.start("gateway", name=f"gateway-{uuid4().hex[:6]}", **environment)
    try:
        await gateway.ready()
        async with httpx.AsyncClient(base_url=url_of(gateway), timeout=35, headers=network.caller()) as client:
            yield gateway, client
    finally:
        gateway.stop()


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port on which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
async def cable(network: Network) -> AsyncIterator[Cable]:
    """A cable to the broker that the test may pull."""
    async with Cable(network.installed.rabbitmq_url) as cable:
        yield cable


async def test_without_postgres_commands_are_still_taken(network: Network, nowhere: int) -> None:
    unit_id = f"clinic-{uuid4().hex[:8]}"
    away = f"postgresql://nobody:nothing@127.0.0.1:{nowhere}/none"
    async with another_gateway(network, CARESPINE_POSTGRES_URL=away) as (gateway, client):
        answer = await client.post(
            "/api/patients", json=person(unitId=unit_id), headers={"Prefer": "respond-async", "Idempotency-Key": "1"}
        )
        assert answer.status_code == 202

        health = (await client.get("/health")).json()
        assert (health["status"], health["commands"], health["questions"]) == ("degraded", "taken", "not answered")
        assert (await client.get("/health/ready")).status_code == 200, "its duty is to take commands"
        problem(await client.get("/api/patients"), 503, "database_unavailable")
        problem(await client.get(answer.headers["Location"]), 503, "database_unavailable")
        assert gateway.running()
    async with httpx.AsyncClient(base_url=network.url, headers=network.caller()) as client:
        await eventually(lambda: settled(client, answer.headers["Location"]), within=20)


async def test_a_waiting_caller_hears_the_outcome_without_the_gateways_postgres(
    network: Network, clinic: Clinic, nowhere: int
) -> None:
    away = f"postgresql://nobody:nothing@127.0.0.1:{nowhere}/none"
    async with another_gateway(network, CARESPINE_POSTGRES_URL=away) as (_, client):
        answer = await client.post("/api/patients", json=person(unitId=clinic.unit_id), headers={"Prefer": "wait=20"})
        assert answer.status_code == 201, answer.text


async def test_without_the_broker_commands_are_refused_and_taken_again_when_it_is_back(
    network: Network, clinic: Clinic, cable: Cable
) -> None:
    async with another_gateway(network, CARESPINE_RABBITMQ_URL=cable.url) as (_, client):
        path, body, key = "/api/patients", person(unitId=clinic.unit_id), {"Idempotency-Key": str(uuid4())}
        cable.pull()
        answer = await client.post(path, json=body, headers=key)

        problem(answer, 503, "broker_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert (await client.get("/health/ready")).status_code == 503
        health = (await client.get("/health")).json()
        assert (health["status"], health["commands"], health["questions"]) == ("degraded", "not taken", "answered")
        assert (await client.get("/api/patients", params={"unit": clinic.unit_id})).status_code == 200

        cable.plug()

        async def taken() -> httpx.Response | None:
            again = await client.post(path, json=body, headers=key)
            return again if again.status_code == 201 else None

        await eventually(taken, within=20)


async def test_a_command_whose_confirm_was_lost_can_be_repeated_and_happens_once(
    network: Network, clinic: Clinic, cable: Cable
) -> None:
    async with another_gateway(network, CARESPINE_RABBITMQ_URL=cable.url) as (_, client):
        body, key = person(unitId=clinic.unit_id), {"Idempotency-Key": str(uuid4()), "Prefer": "wait=10"}
        cable.hold_answers()
        problem(await client.post("/api/patients", json=body, headers=key), 503, "broker_unavailable")
        cable.let_answers_through()

        async def taken() -> httpx.Response | None:
            again = await client.post("/api/patients", json=body, headers=key)
            return again if again.status_code == 201 else None

        answer = await eventually(taken, within=20)
        assert answer is not None
        query = {
            "search": body["medicalRecordNumber"],
            "total": "true",
            "position": answer.headers["Carespine-Position"],
        }
        assert (await clinic.api.get("/api/patients", params=query)).json()["total"] == 1


async def test_without_handlers_a_caller_is_told_it_is_pending_and_the_command_waits(
    network: Network, clinic: Clinic
) -> None:
    handlers = network.installed.started["command-handlers-1"]
    patient = await clinic.patient()
    handlers.freeze()
    try:
        answer = await clinic.api.post("/api/check-in", json=arrival(patient["id"]), headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
        assert (await clinic.api.get(answer.headers["Location"])).json()["status"] == "pending"
    finally:
        handlers.thaw()

    found = await eventually(lambda: settled(clinic.api, answer.headers["Location"]), within=30)
    assert found is not None
    assert found["status"] == "accepted"


async def test_a_gateway_that_cuts_units_differently_is_not_ready(network: Network) -> None:
    gateway = network.installed.start("gateway", name=f"gateway-{uuid4().hex[:6]}", CARESPINE_PARTITIONS="8")
    try:
        async with httpx.AsyncClient(base_url=gateway.health_url) as client:

            async def failing() -> bool:
                try:
                    answer = await client.get("/health/ready", params={"verbose": ""})
                except httpx.TransportError:
                    return False
                return answer.status_code == 503 and "partitions" in answer.json()["failing"]

            await eventually(failing, within=20)
    finally:
        gateway.stop()


async def test_told_to_stop_a_gateway_finishes_and_leaves(network: Network, clinic: Clinic) -> None:
    async with another_gateway(network) as (gateway, client):
        assert (await client.post("/api/patients", json=person(unitId=clinic.unit_id))).status_code == 201
        assert gateway.stop() == 0
        assert '"event":"crashed"' not in gateway.log_text()


async def settled(client: httpx.AsyncClient, location: str) -> JsonObject | None:
    """What became of a command, once something has."""
    found: JsonObject = (await client.get(location)).json()
    return found if found.get("status") not in ("pending", 503) else None
