"""What an operator sees of an import: lines refused with their reason, breaking off, going on, saying it twice."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import orjson
import psycopg
import pytest

from contracts.identity import Role
from contracts.ids import keyed_command_id
from infra import synthetic
from infra.api import Api
from infra.fhir.trail import Checkpoint
from tests.flows.importing import Network, network
from tests.kit.processes import installation
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def center(postgres: str, rabbitmq: str, tmp_path: Path) -> AsyncIterator[Network]:
    with installation(postgres, rabbitmq, tmp_path) as installed:
        async with network(installed, tmp_path / "var") as center:
            yield center


def count_of_events(postgres: str) -> int:
    with psycopg.connect(postgres) as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    assert row
    return int(row[0])


async def test_every_refused_line_is_reported_and_the_rest_is_imported(
    center: Network, postgres: str, tmp_path: Path
) -> None:
    organizations, patients = synthetic.write(tmp_path / "fhir", units=5, people=60)
    good = patients.read_bytes().splitlines()
    secret = "Zaphodina"
    twin = orjson.loads(good[0])
    twin |= {"id": "twin", "name": [{"family": secret, "given": ["A"]}]}
    twin["managingOrganization"] = orjson.loads(good[0])["managingOrganization"]
    changed = orjson.loads(good[2]) | {"birthDate": "1901-01-01"}
    bad = [
        b"{not json",
        orjson.dumps({"resourceType": "Organization"}),
        orjson.dumps(orjson.loads(good[1]) | {"name": [{"family": secret}]}),
        orjson.dumps(twin),
        orjson.dumps(changed),
        orjson.dumps(orjson.loads(good[3]) | {"id": "future", "birthDate": "2199-01-01"}),
    ]
    patients.write_bytes(b"\n".join([*good, *bad]) + b"\n")

    done = await asyncio.to_thread(center.imports, "--organizations", organizations, "--patients", patients)

    assert done.code == 6
    assert done.summary["organizations"]["registered"] == 5
    assert done.summary["patients"]["registered"] == 60
    assert sorted((entry["line"], entry["code"]) for entry in center.report) == [
        (61, "not_json"),
        (62, "wrong_resource_type"),
        (63, "missing_field"),
        (64, "mrn_taken"),
        (65, "patient_already_registered"),
        (66, "birth_date_in_future"),
    ]
    assert secret not in done.said + json.dumps(center.report) + json.dumps(done.summary)
    listed = await eventually(lambda: center.every("/api/patients"), what="the read model")
    assert len(listed) == 60


async def test_saying_it_again_changes_nothing_whoever_says_it(center: Network, postgres: str, tmp_path: Path) -> None:
    files = synthetic.write(tmp_path / "fhir", units=4, people=40)
    words = ("--organizations", files[0], "--patients", files[1])
    first = await asyncio.to_thread(center.imports, *words)
    events = count_of_events(postgres)

    again = await asyncio.to_thread(center.imports, *words)
    by_another = await asyncio.to_thread(lambda: center.imports(*words, role=Role.ADMIN))

    assert first.code == again.code == by_another.code == 0
    for repeated in (again, by_another):
        assert repeated.summary["organizations"]["unchanged"] == 4
        assert repeated.summary["patients"]["unchanged"] == 40
        assert repeated.summary["patients"]["registered"] == 0
    assert count_of_events(postgres) == events


async def test_an_import_that_was_broken_off_goes_on_where_it_was(
    center: Network, postgres: str, tmp_path: Path
) -> None:
    files = synthetic.write(tmp_path / "fhir", units=3, people=1200)
    words = ("--organizations", files[0], "--patients", files[1])
    running = center.begin_import(*words)
    checkpoints = tmp_path / "var" / "import"
    await eventually(lambda: list(checkpoints.glob("*.json")), within=60, what="a checkpoint")

    running.send_signal(signal.SIGKILL)
    await asyncio.to_thread(running.communicate)
    done = await asyncio.to_thread(center.imports, *words)

    assert done.code == 0
    tally = done.summary["patients"]
    assert tally["skipped"] >= 100
    assert tally["skipped"] + tally["registered"] + tally["unchanged"] == 1200
    assert count_of_events(postgres) >= 1203
    assert not list(checkpoints.glob("*.json"))
    with psycopg.connect(postgres) as connection:
        registered = connection.execute(
            "SELECT count(*), count(DISTINCT stream) FROM events WHERE type = 'patient.PatientRegistered'"
        ).fetchone()
    assert registered == (1200, 1200)


async def test_a_checkpoint_is_believed_only_while_the_network_knows_its_last_command(
    center: Network, tmp_path: Path
) -> None:
    files = synthetic.write(tmp_path / "fhir", units=1, people=5)
    await asyncio.to_thread(center.imports, "--organizations", files[0], "--patients", files[1])
    listed = await eventually(lambda: center.every("/api/units"), what="the read model")
    known = listed[0]["id"]
    checkpoint = Checkpoint(tmp_path / "checkpoints", url=center.url, files=files, settings={})
    async with Api(center.url, center.installation.token()) as api:
        ended = await api.command("unit.ResumeUnit", known, {}, key="any")
        assert ended.command_id
        for command_id, line in (
            (ended.command_id, 30),
            (keyed_command_id("staff", known, "never sent"), 0),
            (UUID(int=7), 0),
        ):
            checkpoint.keep(30, command_id)
            assert await checkpoint.line(api) == line
        files[1].write_bytes(files[1].read_bytes() * 2)
        checkpoint.keep(30, ended.command_id)
        changed = Checkpoint(tmp_path / "checkpoints", url=center.url, files=files, settings={})
        assert await changed.line(api) == 0


async def test_the_gateway_may_die_in_the_middle(center: Network, tmp_path: Path) -> None:
    files = synthetic.write(tmp_path / "fhir", units=3, people=1000)
    running = center.begin_import("--organizations", files[0], "--patients", files[1])
    await eventually(lambda: list((tmp_path / "var" / "import").glob("*.json")), within=60, what="a checkpoint")

    center.gateway.kill()
    center.gateway.start()
    done = await asyncio.to_thread(center.end_import, running)

    assert done.code == 0, done.said
    assert done.summary["patients"]["refused"] == 0
    assert done.summary["patients"]["registered"] + done.summary["patients"]["unchanged"] == 1000


async def test_what_is_wrong_with_the_call_itself_has_its_own_exit_code(center: Network, tmp_path: Path) -> None:
    files = synthetic.write(tmp_path / "fhir", units=1, people=1)
    nurse = await asyncio.to_thread(lambda: center.imports("--organizations", files[0], role=Role.NURSE))
    nothing = await asyncio.to_thread(center.imports)
    missing = await asyncio.to_thread(center.imports, "--organizations", tmp_path / "no-such-file")
    no_units = await asyncio.to_thread(center.imports, "--patients", files[1])
    nowhere = await asyncio.to_thread(
        center.imports, "--organizations", files[0], "--zone", "Mars/Olympus", "--url", "http://127.0.0.1:1"
    )

    assert (nurse.code, nothing.code, missing.code, no_units.code, nowhere.code) == (4, 2, 2, 2, 2)
