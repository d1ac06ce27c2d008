"""Who sees what: the gateway one unit's rows or all, the bridge the units, and nobody but the projections writes."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from infra.database import connected, pool
from migrations.versions import r0002_read_models, r0004_unit_credentials, r0006_tasks, r0009_staff
from projections import encounters, patient_search, patients, units, waiting_room
from projections.read_model import metadata
from tests.projections.facts import MORNING, NORTH, SOUTH, arrival, enqueued, patient, told, unit
from tests.projections.readside import ReadSide

OF_CARE = r0002_read_models.READ_TABLES
READ_TABLES = (
    *OF_CARE,
    *r0004_unit_credentials.READ_TABLES,
    *r0006_tasks.READ_TABLES,
    *r0009_staff.READ_TABLES,
)


@pytest.fixture
async def both(side: ReadSide) -> Sequence[str]:
    """The same at two units, one row each in every table but the unit commands'."""
    for unit_id in (NORTH, SOUTH):
        somebody = patient("Ana", "Lund", mrn="MRN-1")
        visit = arrival(somebody.patient_id)
        place = enqueued(1, patient_id=somebody.patient_id)
        await side.log.write(unit_id, unit(unit_id), somebody, visit, told(visit), place)
    await side.catch_up()
    return [table for table in OF_CARE if table not in ("read_departments", "read_unit_commands")]


async def test_the_gateway_sees_the_rows_of_the_unit_it_speaks_for(side: ReadSide, both: Sequence[str]) -> None:
    for said, seen in ((NORTH, {NORTH}), (SOUTH, {SOUTH}), ("*", {NORTH, SOUTH}), ("", set()), ("nobody", set())):
        async with side.asking(said) as connection:
            for table in both:
                cursor = await connection.execute(f"SELECT unit_id FROM {table}".encode())  # noqa: S608 - ours
                assert {row[0] for row in await cursor.fetchall()} == seen, (said, table)


async def test_a_gateway_that_forgot_to_say_its_unit_sees_nothing(side: ReadSide, both: Sequence[str]) -> None:
    async with connected(side.gateway) as connection:
        for table in both:
            cursor = await connection.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - ours
            assert await cursor.fetchone() == (0,), table


async def test_asking_about_another_unit_finds_nothing(side: ReadSide, both: Sequence[str]) -> None:
    async with side.asking(SOUTH) as connection:
        (theirs,) = (await patient_search.page(connection, unit_id=SOUTH)).items
    async with side.asking(NORTH) as connection:
        assert await patients.by_id(connection, theirs.id) is None
        assert not (await patient_search.page(connection, unit_id=SOUTH, search="lund")).items
        assert not (await encounters.of_patient(connection, theirs.id)).items
        assert not (await waiting_room.room(connection, SOUTH, "er", at=MORNING, names=True)).entries
        assert await units.by_id(connection, SOUTH) is None


async def test_only_the_projections_write(side: ReadSide, both: Sequence[str]) -> None:
    async with connected(side.gateway) as connection:
        for table in READ_TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - ours


async def test_the_bridge_sees_units_and_patients_of_the_one_unit_it_has_named(
    side: ReadSide, both: Sequence[str]
) -> None:
    async with pool(side.url, role="bridge") as bridge, connected(bridge) as connection:
        cursor = await connection.execute("SELECT unit_id FROM read_units ORDER BY unit_id")
        assert await cursor.fetchall() == [(NORTH,), (SOUTH,)]
        cursor = await connection.execute("SELECT unit_id FROM read_patients")
        assert await cursor.fetchall() == []
        async with connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', %s, true)", (NORTH,))
            cursor = await connection.execute("SELECT DISTINCT unit_id FROM read_patients")
            assert await cursor.fetchall() == [(NORTH,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DELETE FROM read_patients")


async def test_the_code_knows_the_tables_that_the_migration_makes(side: ReadSide) -> None:
    assert set(metadata.tables) == set(READ_TABLES)
    for table in metadata.tables.values():
        cursor = await side.admin.execute(
            "SELECT column_name, is_nullable = 'YES' FROM information_schema.columns WHERE table_name = %s",
            (table.name,),
        )
        there: dict[str, bool] = dict(await cursor.fetchall())
        assert there == {column.name: bool(column.nullable) for column in table.columns}, table.name
        key = await side.admin.execute(
            "SELECT a.attname FROM pg_index i "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
            "WHERE i.indrelid = %s::regclass AND i.indisprimary",
            (table.name,),
        )
        assert {row[0] for row in await key.fetchall()} == {column.name for column in table.primary_key}
