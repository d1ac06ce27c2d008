"""A whole network imported: 835 organizations and 1,144 patients, counted by readers, delivered to every unit's disk.

The public sample of synthetic records where it lies beside the checkout, else records of our own in the same numbers.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from contracts.identity import Role
from infra import synthetic
from infra.demo.units import read_position, read_store
from tests.flows.importing import network
from tests.kit.processes import ROOT, installation
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(600)

SAMPLE = ROOT.parent / "shared" / "data" / "synthea-1000"
UNITS, PATIENTS = 835, 1144


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    if SAMPLE.exists():
        return SAMPLE / "Organization.000.ndjson", SAMPLE / "Patient.000.ndjson"
    return synthetic.write(tmp_path / "fhir", units=UNITS, people=PATIENTS)


async def test_a_network_is_imported_counted_and_delivered_and_a_second_import_changes_nothing(
    postgres: str, rabbitmq: str, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    words = ("--organizations", files[0], "--patients", files[1], "--zone", "America/Chicago")
    with installation(postgres, rabbitmq, tmp_path) as installed:
        async with network(installed, tmp_path / "var") as center:
            bridge = installed.start("ws_bridge")
            await bridge.ready(within=60)

            done = await asyncio.to_thread(center.imports, *words)

            assert done.code == 0, (done.summary, done.said)
            assert done.summary["organizations"]["registered"] == UNITS
            assert done.summary["patients"]["registered"] == PATIENTS
            assert done.summary["patients"]["units"] >= 500

            async def counted() -> bool:
                return len(await center.every("/api/patients")) == PATIENTS

            await eventually(counted, within=30, what="every patient in the read API")
            units = [unit["id"] for unit in await center.every("/api/units")]
            assert len(set(units)) == UNITS
            at_units = Counter(patient["unitId"] for patient in await center.every("/api/patients"))
            assert len(at_units) == done.summary["patients"]["units"]

            disks = tmp_path / "units"
            members = [
                {"credential": installed.token(Role.UNIT, unit=unit_id), "data": str(disks / unit_id)}
                for unit_id in units
            ]
            (tmp_path / "fleet.json").write_text(json.dumps(members))
            url = f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}/unit"
            installed.start("unit_agent", "--url", url, "--fleet", str(tmp_path / "fleet.json"), name="fleet")
            with psycopg.connect(postgres, autocommit=True) as connection:
                before = connection.execute("SELECT count(*) FROM events").fetchone()
                feeds: dict[str, list[tuple[int, str, str]]] = {unit_id: [] for unit_id in units}
                for unit_id, *fact in connection.execute(
                    "SELECT unit_id, position, type, command_id::text FROM events ORDER BY partition, position"
                ):
                    feeds[unit_id].append(tuple(fact))

            def behind() -> list[str]:
                return [u for u, feed in feeds.items() if read_position(disks / u / "agent.db") < feed[-1][0]]

            await eventually(lambda: not behind(), within=120, what="every unit's feed on its disk")
            assert {unit_id: read_store(disks / unit_id / "agent.db").facts for unit_id in units} == feeds

            again = await asyncio.to_thread(center.imports, *words)

            assert again.code == 0
            assert again.summary["organizations"]["unchanged"] == UNITS
            assert again.summary["patients"]["unchanged"] == PATIENTS
            with psycopg.connect(postgres, autocommit=True) as connection:
                assert connection.execute("SELECT count(*) FROM events").fetchone() == before
