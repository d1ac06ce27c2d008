"""The process itself: killed, stopped, two of them - what is in the log becomes visible once, and units are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from contracts.envelope import FeedBatch
from infra.broker import topology
from infra.broker.inbox import Inbox
from tests.kit.processes import Installation
from tests.kit.waiting import eventually
from tests.projections.facts import patient
from tests.projections.logbook import MASTER_KEY
from tests.projections.readside import ReadSide

UNITS = [f"unit-{number}" for number in range(24)]


@asynccontextmanager
async def overhearing(rabbitmq: str) -> AsyncIterator[list[FeedBatch]]:
    """What is published for our units, as a bridge hears it."""
    heard: list[FeedBatch] = []
    await topology.declare(rabbitmq, partitions=16)
    listener = Inbox(
        rabbitmq, instance="test", on_delivery=lambda said: heard.append(FeedBatch.model_validate_json(said.body))
    )
    async with listener:
        await listener.until_up()
        for unit_id in UNITS:
            await listener.bind(unit_id)
        yield heard


def installed_for(side: ReadSide, rabbitmq: str, folder: Path) -> Installation:
    """Processes that know the log's master key."""
    installed = Installation(side.url, rabbitmq, folder)
    installed.master_key = MASTER_KEY
    return installed


async def test_two_processes_one_killed_make_everything_visible_once_and_tell_it(
    side: ReadSide, rabbitmq: str, tmp_path: Path
) -> None:
    installed = installed_for(side, rabbitmq, tmp_path)
    try:
        async with overhearing(rabbitmq) as heard:
            first, second = installed.start("projections"), installed.start("projections")
            await first.ready()
            await second.ready()
            written = 0
            for turn in range(30):
                await side.log.write_many([(unit_id, patient("Ana", "Lund")) for unit_id in UNITS])
                written += len(UNITS)
                if turn == 10:
                    second.kill()

            async def all_visible() -> bool:
                return await side.count("read_patients") == written

            await eventually(all_visible, within=30, what="every patient")
            assert await side.count("projection_faults") == 0

            # Whoever took over goes on telling; a gap, where the killed one had no time to tell, shows as one.
            places = await side.log.write_many([(unit_id, patient("Bo", "Ek")) for unit_id in UNITS])

            def all_told() -> bool:
                through = {batch.unit_id: batch.through for batch in heard}
                return all(through.get(unit_id) == position for unit_id, (_, position) in places.items())

            await eventually(all_told, within=15, what="the last push for every unit")
            for unit_id in UNITS:
                mine = [batch for batch in heard if batch.unit_id == unit_id]
                assert all(after.after >= before.through for before, after in pairwise(mine))
                assert all(len(batch.facts) > 0 for batch in mine)
            assert first.stop() == 0
            assert "Lund" not in first.log_text() + second.log_text()
            cursor = await side.admin.execute(
                "SELECT count(*) FROM leases WHERE role = 'projections' AND owner IS NULL"
            )
            assert await cursor.fetchone() == (16,), "handed over at once, not after expiry"
    finally:
        installed.end()


async def test_the_command_line_rebuilds_a_read_model(side: ReadSide, rabbitmq: str, tmp_path: Path) -> None:
    await side.write(UNITS[0], patient("Ana", "Lund"))
    await side.admin.execute("DELETE FROM read_patients")
    installed = installed_for(side, rabbitmq, tmp_path)
    try:
        rebuilding = installed.start("projections", "--rebuild", "patients")
        await eventually(lambda: not rebuilding.running(), within=20, what="the end of the rebuild")
        assert rebuilding.stop() == 0, rebuilding.log_text()
        assert await side.count("read_patients") == 1
        assert "1 events" in rebuilding.log_text()
    finally:
        installed.end()
