"""What is published: every fact of a unit exactly covered, from one batch to the next, and only once it is visible."""

from __future__ import annotations

import random
from collections.abc import Sequence

import psycopg
import pytest

from contracts.envelope import FeedBatch
from contracts.ids import partition_of
from contracts.patient import PatientDeactivated
from infra.database import Connection, connected
from projections.feed import Batch, Feed
from tests.projections.facts import NORTH, SOUTH, patient, unit
from tests.projections.logbook import PARTITIONS
from tests.projections.readside import ReadSide


async def test_a_batch_tells_a_units_facts_with_their_sealed_fields_open(side: ReadSide) -> None:
    somebody = patient("Ana", "Lund")
    await side.write(NORTH, unit(), somebody, PatientDeactivated(patient_id=somebody.patient_id, reason="moved"))
    (batch,) = side.heard.batches
    assert (batch.unit_id, batch.partition) == (NORTH, partition_of(NORTH, PARTITIONS))
    assert [fact.type for fact in batch.facts] == [
        "unit.UnitRegistered",
        "patient.PatientRegistered",
        "patient.PatientDeactivated",
    ]
    assert batch.facts[1].payload["lastName"] == "Lund"
    assert [(fact.stream, fact.stream_version) for fact in batch.facts[1:]] == [
        (f"patient-{somebody.patient_id}", 1),
        (f"patient-{somebody.patient_id}", 2),
    ]


async def test_an_erased_persons_facts_are_told_without_what_was_sealed(side: ReadSide) -> None:
    somebody = patient("Ana", "Lund")
    await side.log.write(NORTH, somebody)
    await side.log.erase(somebody.patient_id)
    await side.catch_up()
    ((fact,),) = (batch.facts for batch in side.heard.batches)
    assert fact.erased
    assert "lastName" not in fact.payload


async def test_a_units_batches_follow_one_another_without_gap_or_overlap(side: ReadSide) -> None:
    mixed = random.Random(7)
    # These share a partition, so each unit's positions have holes that the other fills.
    names = (f"unit-{number}" for number in range(200))
    neighbours = [name for name in names if partition_of(name, PARTITIONS) == 3][:3]
    for _ in range(30):
        await side.log.write(mixed.choice(neighbours), patient("Ana", "Lund"))
    runner = side.runner(limit=4)
    async with connected(side.pool) as connection:
        for _ in range(3):
            await runner.turn(connection)
    await side.catch_up()  # another process goes on, which knows nothing of the first
    for name in neighbours:
        batches = side.heard.of(name)
        assert batches[0].after == 0
        assert [batch.after for batch in batches[1:]] == [batch.through for batch in batches[:-1]]
        told = [fact.position for batch in batches for fact in batch.facts]
        cursor = await side.admin.execute("SELECT position FROM events WHERE unit_id = %s ORDER BY position", (name,))
        assert told == [row[0] for row in await cursor.fetchall()]


async def test_what_was_published_is_visible(side: ReadSide) -> None:
    """Whoever asks when the push arrives finds the fact."""
    seen: list[object] = []

    def ask_at_once(batch: FeedBatch) -> None:
        with psycopg.connect(side.url) as another:
            seen.append(another.execute("SELECT count(*) FROM read_patients").fetchone())

    side.heard.hear = ask_at_once
    await side.write(NORTH, patient("Ana", "Lund"))
    assert seen == [(1,)]


async def test_a_broker_that_is_away_costs_pushes_and_nothing_else(side: ReadSide) -> None:
    runner = side.runner()
    side.heard.away = True
    await side.log.write(NORTH, unit())
    await side.log.write(SOUTH, unit(SOUTH))
    await side.catch_up(runner)
    assert await side.count("read_units") == 2
    side.heard.away = False
    _, last = await side.log.write(NORTH, patient("Ana", "Lund"))
    await side.catch_up(runner)
    (batch,) = side.heard.of(NORTH)
    assert (batch.after, batch.through) == (last - 1, last), "the gap before it is there to be seen"


async def test_after_a_failed_turn_the_log_says_where_the_feed_stands(side: ReadSide) -> None:
    runner = side.runner()
    await side.log.write(NORTH, unit())
    await side.catch_up(runner)
    _, position = await side.log.write(NORTH, patient("Ana", "Lund"))
    await side.admin.execute("ALTER TABLE read_patients RENAME TO gone")
    async with connected(side.pool) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await runner.turn(connection)
    await side.admin.execute("ALTER TABLE gone RENAME TO read_patients")
    await side.catch_up()  # somebody else goes on
    await side.log.write(NORTH, patient("Bo", "Ek"))
    await side.catch_up(runner)
    assert [(batch.after, batch.through) for batch in side.heard.of(NORTH)][-1] == (position, position + 1)


async def test_a_partition_given_away_in_the_middle_of_a_turn_is_told_of_and_then_forgotten(side: ReadSide) -> None:
    partition, first = await side.log.write(NORTH, unit())
    feed = Feed(side.heard, side.metrics)
    prepare = feed.prepare

    async def prepared_and_given_away(connection: Connection, batches: Sequence[Batch]) -> None:
        await prepare(connection, batches)
        feed.forget(partition)

    feed.prepare = prepared_and_given_away  # type: ignore[method-assign]
    runner = side.runner(feed=feed)
    await side.catch_up(runner)
    _, second = await side.log.write(NORTH, patient("Ana", "Lund"))
    await side.catch_up()  # its next owner
    _, third = await side.log.write(NORTH, patient("Bo", "Ek"))
    await side.catch_up(runner)  # back again
    assert [(batch.after, batch.through) for batch in side.heard.of(NORTH)] == [
        (0, first),
        (first, second),
        (second, third),
    ]
