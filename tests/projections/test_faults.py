"""A fact that a read model cannot apply is left out there and noted; nothing else stops, and nobody's data is told."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from contracts.encounter import LocationAssigned
from projections import encounters, progress
from projections.monitor import Monitor
from projections.read_model import Computed
from projections.rebuild import rebuild
from tests.projections.facts import NORTH, SOUTH, arrival, enqueued, new_id, patient, told, unit
from tests.projections.readside import ReadSide


async def left_out(side: ReadSide) -> list[progress.Fault]:
    async with side.asking() as connection:
        return await progress.latest_faults(connection)


async def test_a_fact_with_bad_data_is_left_out_of_the_read_model_it_breaks(side: ReadSide) -> None:
    before, bad, after = (arrival(new_id()) for _ in range(3))
    partition, position = await side.log.write(NORTH, before, bad)
    await side.log.write(NORTH, after, told(bad), enqueued(1))
    await side.log.spoil(partition, position, payload=Jsonb({"encounterId": "not a uuid", "department": "er"}))
    await side.catch_up()
    (fault,) = await left_out(side)
    assert (fault.read_model, fault.partition, fault.position) == ("encounters", partition, position)
    assert (fault.event_type, fault.error_type) == ("encounter.PatientArrived", "InvalidTextRepresentation")
    assert (await side.count("read_encounters"), await side.count("read_notifications")) == (2, 1)
    assert await side.count("read_waiting_room") == 1
    assert (await side.positions())[partition] == position + 3
    assert [batch.through for batch in side.heard.of(NORTH)] == [position + 3], "units are told all the same"


async def test_an_event_of_a_newer_release_is_noted_for_every_read_model(side: ReadSide) -> None:
    partition, position = await side.log.write(NORTH, unit())
    await side.log.spoil(partition, position, type_version=99)
    await side.log.write(NORTH, patient("Ana", "Lund"))
    await side.catch_up()
    faults = await left_out(side)
    assert {fault.read_model for fault in faults} == {model.name for model in side.models}
    assert {(fault.position, fault.error_type) for fault in faults} == {(position, "UnknownWord")}
    assert await side.count("read_patients") == 1


async def test_a_seal_that_does_not_open_is_noted_and_shown_as_erased(side: ReadSide) -> None:
    partition, position = await side.log.write(NORTH, patient("Ana", "Lund"))
    await side.log.write(NORTH, patient("Bo", "Ek"))
    await side.log.spoil(partition, position, sealed=bytes(64))
    await side.catch_up()
    (fault,) = await left_out(side)
    assert (fault.read_model, fault.error_type) == ("patients", "SealBroken")
    cursor = await side.admin.execute("SELECT last_name, erased FROM read_patients ORDER BY erased")
    assert await cursor.fetchall() == [("Ek", False), (None, True)]


async def test_a_handlers_bug_holds_nobody_up_and_a_rebuild_by_a_better_release_heals_it(
    side: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(payload: object) -> dict[str, object]:
        raise KeyError("lastName")

    (model,) = (model for model in side.models if model.name == "patients")
    reaction = model.reactions["patient.PatientRegistered"]
    assert reaction.computed is not None
    broken = reaction.__class__(**{**vars(reaction), "computed": Computed(reaction.computed.columns, buggy)})
    monkeypatch.setitem(model.reactions, "patient.PatientRegistered", broken)
    await side.write(NORTH, unit(), patient("Ana", "Lund"), patient("Bo", "Ek"))
    assert [fault.error_type for fault in await left_out(side)] == ["KeyError"] * 2
    assert (await side.count("read_units"), await side.count("read_patients")) == (1, 0)
    monkeypatch.undo()
    done = [part async for part in rebuild(side.pool, side.sealer, model)]
    assert sum(part.events for part in done) == 2
    assert (await side.count("read_patients"), await left_out(side)) == (2, [])


async def test_a_character_postgres_cannot_hold_costs_only_itself(side: ReadSide) -> None:
    visit = arrival(new_id(), reason="cough\x00\\u0000")
    about = {"encounter_id": visit.encounter_id, "patient_id": visit.patient_id}
    await side.write(NORTH, visit, LocationAssigned(**about, room="7"))
    async with side.asking() as connection:
        shown = await encounters.by_id(connection, visit.encounter_id)
    assert shown is not None
    assert (shown.reason, shown.room) == ("cough\ufffd\\u0000", "7")
    assert not await left_out(side)


async def test_metrics_say_what_is_missing(side: ReadSide) -> None:
    monitor = Monitor(side.pool, side.metrics, lambda: {0: 0})
    await monitor.look()
    assert "projection_held{" not in side.metrics.exposition().decode()
    partition, position = await side.log.write(SOUTH, unit(SOUTH))
    await side.log.spoil(partition, position, payload=Jsonb({}))
    await side.catch_up()
    await side.log.write(SOUTH, patient("Ana", "Lund"), patient("Bo", "Ek"))
    monitor = Monitor(side.pool, side.metrics, lambda: {partition: 0})
    await monitor.look()
    shown = side.metrics.exposition().decode()
    assert 'carespine_projection_held{read_model="units"} 1.0' in shown
    assert f'carespine_projection_lag_events{{partition="{partition}",read_model="all"}} 2.0' in shown


async def test_progress_tells_of_every_partition(side: ReadSide) -> None:
    partition, _ = await side.write(NORTH, unit())
    await side.log.write(NORTH, patient("Ana", "Lund"))
    async with side.asking() as connection:
        every = await progress.partitions(connection)
        position = await progress.position(connection, partition)
    here = every[partition]
    assert (len(every), position) == (16, 1)
    assert (here.head, here.position, here.lag_events, here.owner) == (2, 1, 1, None)
