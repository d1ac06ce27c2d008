"""The log as portals may read it: clear fields, of the unit that is named, as far as queries can see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import AsyncConnection

from contracts.identity import PEOPLE, Role
from contracts.ids import PatientId, partition_of
from contracts.portal import READERS, TOPIC_READERS, Topic
from contracts.unit import UnitSuspended
from gateway import callers
from infra.database import pool
from infra.portals.log import PostgresPortalLog
from tests.kit.commands import new_id
from tests.projections.logbook import PARTITIONS
from tests.ws_bridge.centre import Centre, centre_of, patient

UNIT, OTHER = "north", "south"


@pytest.fixture
async def centre(postgres: str, rabbitmq: str) -> AsyncIterator[Centre]:
    async with centre_of(postgres, rabbitmq) as one:
        await one.unit(UNIT)
        await one.unit(OTHER)
        yield one


@pytest.mark.parametrize("role", ["bridge", "gateway"])
async def test_a_unit_is_read_as_far_as_it_is_visible_and_no_further(centre: Centre, postgres: str, role: str) -> None:
    partition = partition_of(UNIT, PARTITIONS)
    seen = await centre.happens(UNIT, patient(), UnitSuspended(unit_id=UNIT, reason="works"), pushed=False)
    await centre.happens(UNIT, patient(), visible=False, pushed=False)
    await centre.happens(OTHER, patient(), pushed=False)
    async with pool(postgres, role=role) as connections:
        log = PostgresPortalLog(connections)
        standing = await log.standing(UNIT)
        assert standing is not None
        assert (standing.status, standing.partition) == ("active", partition)
        assert [fact.type for fact in standing.history] == ["unit.UnitRegistered", "unit.UnitSuspended"]
        assert await log.standing("nowhere") is None
        page = await log.page(UNIT, partition, 0, 100)
        assert [fact.type for fact in page.facts] == [
            "unit.UnitRegistered", "patient.PatientRegistered", "unit.UnitSuspended",
        ]  # fmt: skip
        assert page.through == standing.visible >= seen
        assert "Quillfeather" not in str(page)
        assert set(page.facts[1].payload) == {"patientId", "gender"}
        first = await log.page(UNIT, partition, 0, 1)
        assert first.through == first.facts[-1].position
        streams = await log.streams(UNIT, partition, {f"unit-{UNIT}": 2, f"unit-{OTHER}": 9})
        assert [fact.type for fact in streams] == ["unit.UnitRegistered"]
        visible = await log.visible()
        reached = await log.reached([(UNIT, partition, 0, visible[partition]), (UNIT, partition, seen, seen)])
        assert [(one.unit_id, one.position) for one in reached] == [(UNIT, seen), (UNIT, None)]


async def test_the_view_shows_nothing_sealed_and_nothing_of_a_unit_that_was_not_named(
    centre: Centre, postgres: str
) -> None:
    await centre.happens(UNIT, patient(patient_id=PatientId(new_id())), pushed=False)
    async with await AsyncConnection.connect(postgres, options="-c role=carespine_gateway") as reader:
        for named, expected in ((None, set()), ("nowhere", set()), (UNIT, {UNIT}), ("*", {UNIT, OTHER})):
            async with reader.transaction():
                if named is not None:
                    await reader.execute("SELECT set_config('carespine.unit', %s, true)", (named,))
                cursor = await reader.execute("SELECT * FROM portal_log")
                columns = [column.name for column in cursor.description or ()]
                rows = [dict(zip(columns, row, strict=True)) for row in await cursor.fetchall()]
                assert {row["unit_id"] for row in rows} == expected
                assert not {"sealed", "subject", "actor"} & set(columns)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reader.execute("SELECT * FROM events")


def test_no_topic_tells_a_role_what_it_may_not_read_over_http() -> None:
    for topic, roles in TOPIC_READERS.items():
        assert roles <= (callers.NETWORK if topic is Topic.UNITS else callers.READERS)
    assert PEOPLE | {Role.OPS} == READERS
    assert [topic for topic, roles in TOPIC_READERS.items() if Role.OPS in roles] == [Topic.UNITS]
