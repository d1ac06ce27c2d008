"""What identifies a person appears where it belongs and nowhere else: not in the log, logs, metrics or routing keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiormq
import httpx
import psycopg
import pytest

from contracts.identity import Role
from contracts.routing import COMMANDS, DEAD, EVENTS
from infra.broker import topology
from tests.kit.processes import Installation, installation
from tests.kit.waiting import eventually

SECRETS = (
    "Xanthippe",
    "Quillfeather",
    "MRN-SECRET-77",
    "1984-02-29",
    "+49-SECRET-1",
    "a cough that stays",
    "Umlaut-Straße",
)
PATIENT = {
    "firstName": "Xanthippe",
    "lastName": "Quillfeather",
    "medicalRecordNumber": "MRN-SECRET-77",
    "dateOfBirth": "1984-02-29",
    "contact": {"phone": "+49-SECRET-1", "line": "Umlaut-Straße 1"},
}
OPEN_TABLES = {"read_patients", "read_encounters", "read_units", "read_departments"}
"""Read tables answer questions about people; everything else has to do without."""


@pytest.fixture
def installed(postgres: str, rabbitmq: str, tmp_path: Path) -> Iterator[Installation]:
    """Every process at its most talkative; one command type is defective, so that dead letters are written too."""
    extra = {"CARESPINE_LOG_LEVEL": "debug", "CARESPINE_REHEARSE_DEFECT": "encounter.Triage"}
    with installation(postgres, rabbitmq, tmp_path, **extra) as one:
        yield one


async def test_identity_is_nowhere_but_in_the_read_tables_and_at_the_unit(installed: Installation) -> None:
    await topology.declare(installed.rabbitmq_url, partitions=16)
    async with aiormq.connect(installed.rabbitmq_url) as broker:
        channel = await broker.channel()
        keys: list[str] = []
        everything = (await channel.queue_declare("", exclusive=True)).queue or ""
        for exchange in (COMMANDS, EVENTS, DEAD):
            await channel.queue_bind(everything, exchange, "#")

        async def note(message: aiormq.abc.DeliveredMessage) -> None:
            keys.append(str(getattr(message.delivery, "routing_key", "")))

        await channel.basic_consume(everything, note, no_ack=True)
        await a_day_with_everything_that_can_go_wrong(installed)
        await eventually(lambda: any(key.startswith("commands.") for key in keys))
        metrics = await metrics_of(installed)

    said = {name: one.log_text() for name, one in installed.started.items()}
    with psycopg.connect(installed.postgres_url, autocommit=True) as database:
        kept = contents(database)
    assert kept["events"], "the log was looked at"
    assert len(keys) > 5
    for secret in SECRETS:
        assert [table for table, text in kept.items() if secret in text] == []
        assert [name for name, text in said.items() if secret in text] == []
        assert [name for name, text in metrics.items() if secret in text] == []
        assert [key for key in keys if secret in key] == []


async def a_day_with_everything_that_can_go_wrong(installed: Installation) -> None:
    """Registered, read, searched, checked in, refused, dead-lettered, delivered; tokens and bodies that are wrong."""
    gateway = installed.start("gateway")
    others = [installed.start(module) for module in ("command_handlers", "projections", "ws_bridge")]
    for one in (gateway, *others):
        await one.ready()
    base = f"http://127.0.0.1:{gateway.environment['CARESPINE_HTTP_PORT']}"
    staff = {"Authorization": f"Bearer {installed.token(Role.STAFF, 'u1')}"}
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        ops = {"Authorization": f"Bearer {installed.token(Role.OPS)}"}
        registered = await client.post("/api/units", json={"unitId": "u1", "name": "A clinic"}, headers=ops)
        assert registered.status_code == 201, registered.text
        agent = start_agent(installed, others[2].environment["CARESPINE_BRIDGE_PORT"])
        patient = (await client.post("/api/patients", json=PATIENT, headers=staff)).json()["id"]
        taken = await client.post("/api/patients", json=PATIENT, headers=staff)
        assert taken.status_code == 409, taken.text
        wrong = await client.post("/api/patients", json={**PATIENT, "dateOfBirth": ["1984-02-29"]}, headers=staff)
        assert wrong.status_code == 400, wrong.text
        for answer in (taken, wrong):
            assert not [secret for secret in SECRETS if secret in answer.text]
        check_in = {"patientId": patient, "department": "general", "reason": "a cough that stays"}
        visit = (await client.post("/api/check-in", json=check_in, headers=staff)).json()["encounterId"]
        dead = await client.post(
            f"/api/encounters/{visit}/triage", json={"acuity": 3, "note": "a cough that stays"}, headers=staff
        )
        assert "deadLetterId" in dead.json(), dead.text
        for search in ("Quillfeather", "MRN-SECRET-77", "1984-02-29"):
            found = await client.get("/api/patients", params={"search": search}, headers=staff)
            assert [one["id"] for one in found.json()["items"]] == [patient], found.text
        await client.get(
            "/api/patients", params={"search": "Quillfeather"}, headers={"Authorization": "Bearer nonsense"}
        )
        await client.get("/api/nothing/Quillfeather", headers=staff)
        await client.post("/api/patients", content=b'{"firstName": "Xanthippe', headers=staff)
        with psycopg.connect(installed.postgres_url, autocommit=True) as database:
            await eventually(lambda: database.execute("SELECT count(*) FROM dead_letters").fetchone() == (1,))
            await eventually(
                lambda: (
                    database.execute(
                        "SELECT count(*) FROM unit_sessions s WHERE acked_position = "
                        "(SELECT max(position) FROM events WHERE unit_id = s.unit_id)"
                    ).fetchone()
                    == (1,)
                ),
                within=30,
            )
        assert agent


def start_agent(installed: Installation, bridge_port: str) -> str:
    """The unit's agent, at its most talkative; the folder of its store."""
    folder = str(installed.folder / "agent")
    token = installed.token(Role.UNIT, "u1")
    url = f"ws://127.0.0.1:{bridge_port}/unit"
    installed.start(
        "unit_agent", "--url", url, "--credential", token, "--data", folder, "--log-level", "debug", name="agent"
    )
    return folder


async def metrics_of(installed: Installation) -> dict[str, str]:
    """What every process tells Prometheus, and its health."""
    told = {}
    async with httpx.AsyncClient(timeout=10) as client:
        for name, one in installed.started.items():
            if one.module == "unit_agent":
                continue
            pages = await asyncio.gather(
                *(client.get(one.health_url + path) for path in ("/metrics", "/health", "/health/ready?verbose"))
            )
            told[name] = "\n".join(page.text for page in pages)
            assert "carespine_" in told[name]
    return told


def contents(database: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    """Every table that has no business knowing who somebody is, as text."""
    tables = [
        str(row[0])
        for row in database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    ]
    return {
        # The name comes from Postgres' own catalogue.
        table: "\n".join(str(row) for row in database.execute(f'SELECT t::text FROM "{table}" t'.encode()))  # noqa: S608
        for table in tables
        if table not in OPEN_TABLES
    }
