"""A turn is all or nothing: read tables and checkpoint together, told only afterwards, and by the owner only."""

from __future__ import annotations

import asyncio

import pytest

from contracts.ids import partition_of
from infra.database import DatabaseUnavailable, connected
from infra.event_log import WAKE_CHANNEL
from projections.checkpoints import take
from projections.feed import Feed
from projections.runner import listen
from tests.kit.waiting import eventually
from tests.projections.facts import NORTH, SOUTH, patient, unit
from tests.projections.logbook import PARTITIONS
from tests.projections.readside import ReadSide

HERE = partition_of(NORTH, PARTITIONS)
THERE = partition_of(SOUTH, PARTITIONS)


async def backend(side: ReadSide) -> int:
    """The server process of the one session that projects."""
    cursor = await side.admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    ((pid,),) = await cursor.fetchall()
    return int(pid)


async def test_what_is_new_becomes_visible_with_its_checkpoint(side: ReadSide) -> None:
    await side.log.write(NORTH, unit(), patient("Ana", "Lund"))
    await side.log.write(SOUTH, unit(SOUTH))
    await side.catch_up()
    assert (await side.count("read_units"), await side.count("read_patients")) == (2, 1)
    assert await side.positions() == {HERE: 2, THERE: 1}


async def test_a_turn_takes_at_most_its_limit_of_each_partition_and_says_whether_to_go_on(side: ReadSide) -> None:
    await side.log.write(NORTH, *(patient("Ana", "Lund") for _ in range(5)))
    runner = side.runner(limit=2)
    async with connected(side.pool) as connection:
        seen = []
        while await runner.turn(connection):
            seen.append(await side.positions())
    assert seen == [{HERE: 2}, {HERE: 4}, {HERE: 5}]


async def test_a_session_killed_in_the_middle_of_a_turn_leaves_nothing_and_tells_nothing(
    side: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    await side.log.write(NORTH, unit(), patient("Ana", "Lund"))
    prepare = Feed.prepare

    async def killed(feed: Feed, *about: object) -> None:
        # After the read tables were written and before the commit.
        await prepare(feed, *about)  # type: ignore[arg-type]  # passed on as they are
        await side.admin.execute("SELECT pg_terminate_backend(%s)", (await backend(side),))

    monkeypatch.setattr(Feed, "prepare", killed)
    with pytest.raises(DatabaseUnavailable):
        await side.catch_up()
    assert (await side.count("read_units"), await side.positions(), side.heard.batches) == (0, {}, [])
    monkeypatch.undo()
    await side.catch_up()
    assert (await side.count("read_units"), await side.positions()) == (1, {HERE: 2})
    assert [(batch.after, batch.through) for batch in side.heard.batches] == [(0, 2)]


async def test_a_former_owner_takes_nothing(side: ReadSide) -> None:
    await side.log.write(NORTH, unit())
    await side.admin.execute("UPDATE projection_checkpoints SET epoch = 7 WHERE partition = %s", (HERE,))
    await side.catch_up(side.runner({HERE: 6}))
    assert (await side.count("read_units"), await side.positions(), side.heard.batches) == (0, {}, [])
    await side.catch_up(side.runner({HERE: 7}))
    assert await side.positions() == {HERE: 1}


async def test_a_new_owner_waits_until_the_turn_under_way_has_ended(side: ReadSide) -> None:
    await side.log.write(NORTH, unit(), patient("Ana", "Lund"))
    async with connected(side.pool) as connection, connection.transaction():
        taken = await take(connection, {HERE: 0}, 500)
        fencing = asyncio.create_task(
            side.admin.execute("UPDATE projection_checkpoints SET epoch = 1 WHERE partition = %s", (HERE,))
        )
        await eventually(lambda: waiting_for_a_lock(side), what="the new owner's wait")
        assert [event.position for event in taken] == [1, 2]
    await fencing
    assert await side.positions() == {HERE: 2}
    async with connected(side.pool) as connection:
        assert await take(connection, {HERE: 1}, 500) == []


async def waiting_for_a_lock(side: ReadSide) -> bool:
    async with connected(side.pool) as connection:
        cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        row = await cursor.fetchone()
    return row is not None and row[0] > 0


async def test_a_partition_that_is_taken_or_being_rebuilt_is_left_alone_and_the_others_go_on(side: ReadSide) -> None:
    assert HERE != THERE
    await side.log.write(NORTH, unit())
    await side.log.write(SOUTH, unit(SOUTH))
    async with connected(side.pool) as other, other.transaction():
        await take(other, {HERE: 0}, 500)
        await side.catch_up()
        assert await side.positions() == {THERE: 1}
    await side.catch_up()
    assert await side.positions() == {HERE: 1, THERE: 1}


async def test_the_runner_goes_on_after_the_database_was_away(side: ReadSide) -> None:
    stopping = asyncio.Event()
    runner = side.runner()
    running = asyncio.create_task(runner.run(stopping))
    await side.log.write(NORTH, unit())
    await eventually(lambda: side.positions(), what="the first fact")
    await side.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await side.log.write(NORTH, patient("Ana", "Lund"))
    runner.wake()

    async def both() -> bool:
        return await side.positions() == {HERE: 2}

    await eventually(both, what="the second fact")
    stopping.set()
    runner.wake()
    await asyncio.wait_for(running, 5)
    assert runner.trouble is None


async def test_a_database_without_our_tables_is_waited_for_and_holds_nobody_to_blame(side: ReadSide) -> None:
    await side.log.write(NORTH, unit())
    await side.admin.execute("ALTER TABLE read_units RENAME TO not_yet")
    stopping = asyncio.Event()
    runner = side.runner()
    running = asyncio.create_task(runner.run(stopping))
    await eventually(lambda: runner.trouble == "UndefinedTable", what="trouble")
    assert await side.count("projection_faults") == 0
    await side.admin.execute("ALTER TABLE not_yet RENAME TO read_units")
    await eventually(lambda: side.positions(), what="the fact, once the table is there")
    stopping.set()
    runner.wake()
    await asyncio.wait_for(running, 5)
    assert await side.count("read_units") == 1


async def test_the_logs_notify_is_heard_also_after_the_connection_was_lost(side: ReadSide) -> None:
    heard = asyncio.Event()
    listening = asyncio.create_task(listen(side.url, heard.set))

    async def listeners() -> list[int]:
        cursor = await side.admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
        )
        return [row[0] for row in await cursor.fetchall()]

    (first,) = await eventually(listeners)
    await eventually(heard.is_set)
    heard.clear()
    await side.admin.execute(f"NOTIFY {WAKE_CHANNEL}".encode())
    await eventually(heard.is_set, what="the notification")
    await side.admin.execute("SELECT pg_terminate_backend(%s)", (first,))

    async def again() -> bool:
        now = await listeners()
        return bool(now) and now != [first]

    await eventually(again, what="a new connection")
    heard.clear()
    await side.admin.execute(f"NOTIFY {WAKE_CHANNEL}".encode())
    await eventually(heard.is_set, what="the notification on the new connection")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
