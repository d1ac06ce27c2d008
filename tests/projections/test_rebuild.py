"""A read model made anew is the same as it was, while readers and other partitions notice nothing."""

from __future__ import annotations

import pytest

from contracts.ids import partition_of
from contracts.patient import PatientDeactivated
from infra.database import connected
from projections.catalogue import READ_MODELS, UnknownReadModel, read_model_named
from projections.rebuild import rebuild
from tests.projections.facts import NORTH, SOUTH, arrival, enqueued, patient, told, unit
from tests.projections.logbook import PARTITIONS
from tests.projections.readside import ReadSide


async def everything(side: ReadSide) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every read table."""
    rows: dict[str, list[tuple[object, ...]]] = {}
    for model in READ_MODELS:
        for table in model.tables:
            cursor = await side.admin.execute(f"SELECT t::text FROM {table.name} t ORDER BY 1".encode())  # noqa: S608
            rows[table.name] = await cursor.fetchall()
    return rows


async def test_a_rebuild_comes_to_the_same_rows(side: ReadSide) -> None:
    for unit_id in (NORTH, SOUTH):
        somebody = patient("Ana", "Lund")
        visit = arrival(somebody.patient_id)
        await side.write(unit_id, unit(unit_id), somebody, visit, told(visit), enqueued(1), enqueued(2))
        await side.write(unit_id, PatientDeactivated(patient_id=somebody.patient_id))
    before = await everything(side)
    for model in READ_MODELS:
        done = [part async for part in rebuild(side.pool, side.sealer, model, page=3)]
        assert [part.partition for part in done] == list(range(PARTITIONS))
        assert sum(part.left_out for part in done) == 0
    assert await everything(side) == before


async def test_a_rebuild_stops_where_the_checkpoint_stands(side: ReadSide) -> None:
    await side.write(NORTH, patient("Ana", "Lund"))
    await side.log.write(NORTH, patient("Bo", "Ek"))
    done = [part async for part in rebuild(side.pool, side.sealer, read_model_named("patients"))]
    assert sum(part.events for part in done) == 1
    assert await side.count("read_patients") == 1
    await side.catch_up()
    assert await side.count("read_patients") == 2


async def test_readers_see_the_old_rows_and_other_partitions_go_on_until_a_partition_is_done(side: ReadSide) -> None:
    await side.write(NORTH, unit(), patient("Ana", "Lund"))
    here = partition_of(NORTH, PARTITIONS)
    async with connected(side.pool) as connection, connection.transaction():
        # What a rebuild does first, held open.
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (0xCA5E, here))
        await connection.execute("DELETE FROM read_patients")
        await side.log.write(NORTH, patient("Bo", "Ek"))
        await side.log.write(SOUTH, unit(SOUTH), patient("Cy", "Orr"))
        await side.catch_up()
        cursor = await side.admin.execute("SELECT last_name FROM read_patients ORDER BY 1")
        assert await cursor.fetchall() == [("Lund",), ("Orr",)]
    await side.catch_up()
    cursor = await side.admin.execute("SELECT last_name FROM read_patients ORDER BY 1")
    assert await cursor.fetchall() == [("Ek",), ("Orr",)]


def test_an_unknown_read_model_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownReadModel, match="waiting_room"):
        read_model_named("nothing")
