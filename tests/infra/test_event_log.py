"""The log: gap-free positions, one writer at a time, a fence that a former owner cannot pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psycopg
import pytest

from infra.database import Connection, Pool, pool
from infra.event_log import Fenced, NewEvent, append, read_streams, reserve
from tests.kit.commands import new_id
from tests.kit.log import head, read_partition, read_unit


@pytest.fixture
async def handlers(postgres: str) -> AsyncIterator[Pool]:
    """Connections that act as the handlers."""
    async with pool(postgres, role="handlers", largest=8) as handlers:
        yield handlers


def fact(stream: str, version: int, unit_id: str = "u1") -> NewEvent:
    """An event about nothing."""
    return NewEvent(
        unit_id=unit_id,
        stream=stream,
        stream_version=version,
        type="unit.UnitResumed",
        type_version=1,
        payload='{"unitId": "u1"}',
        sealed=None,
        subject=None,
        command_id=new_id(),
        causation_id=None,
        correlation_id="c",
        actor='{"subject": "s", "role": "ops"}',
        occurred_at=datetime.now(UTC),
    )


async def write(connection: Connection, epoch: int, events: list[NewEvent], *, partition: int = 3) -> None:
    """Append as a handler does."""
    async with connection.transaction():
        first = await reserve(connection, {partition: (epoch, len(events))})
        await append(
            connection, [(partition, place, event) for place, event in enumerate(events, start=first[partition])]
        )


async def test_positions_have_no_gaps_even_after_transactions_that_failed(handlers: Pool) -> None:
    async with handlers.connection() as connection:
        await write(connection, 0, [fact("unit-a", 1), fact("unit-a", 2)])
        with pytest.raises(psycopg.errors.UniqueViolation):
            await write(connection, 0, [fact("unit-a", 3), fact("unit-a", 2)])
        await write(connection, 0, [fact("unit-a", 3)])
        stored = await read_partition(connection, 3, 0, 100)
        assert [event.position for event in stored] == [1, 2, 3]
        assert await head(connection, 3) == 3


async def test_two_writers_never_interleave_their_positions(handlers: Pool) -> None:
    async def writer(name: str) -> None:
        async with handlers.connection() as connection:
            for batch in range(20):
                await write(connection, 0, [fact(f"unit-{name}", batch * 5 + n + 1) for n in range(5)])

    await asyncio.gather(*(writer(name) for name in "abcd"))

    async with handlers.connection() as connection:
        stored = await read_partition(connection, 3, 0, 1000)
    assert [event.position for event in stored] == list(range(1, 401))
    batches = [stored[place : place + 5] for place in range(0, 400, 5)]
    assert all(len({event.stream for event in batch}) == 1 for batch in batches)


async def test_a_reader_beside_writers_never_sees_a_hole(handlers: Pool) -> None:
    done = asyncio.Event()

    async def writer(name: str) -> None:
        async with handlers.connection() as connection:
            for version in range(1, 60):
                await write(connection, 0, [fact(f"unit-{name}", version)])

    async def reader() -> None:
        async with handlers.connection() as connection:
            seen = 0
            while not done.is_set() or seen < 177:
                page = await read_partition(connection, 3, seen, 50)
                assert [event.position for event in page] == list(range(seen + 1, seen + 1 + len(page)))
                seen += len(page)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader())
        await asyncio.gather(*(writer(name) for name in "abc"))
        done.set()


async def test_a_former_owner_writes_nothing(handlers: Pool, postgres: str) -> None:
    async with handlers.connection() as connection:
        await connection.execute("UPDATE log_partitions SET epoch = 8 WHERE partition = 3")
        with pytest.raises(Fenced) as fenced:
            await write(connection, 7, [fact("unit-a", 1)])
        assert fenced.value.partition == 3
        assert await head(connection, 3) == 0
        await write(connection, 8, [fact("unit-a", 1)])
        assert await head(connection, 3) == 1


async def test_one_fenced_partition_keeps_the_whole_transaction_back(handlers: Pool) -> None:
    async with handlers.connection() as connection:
        await connection.execute("UPDATE log_partitions SET epoch = 2 WHERE partition = 4")
        with pytest.raises(Fenced):
            async with connection.transaction():
                await reserve(connection, {3: (0, 1), 4: (1, 1)})
        assert await head(connection, 3) == 0


async def test_a_unit_and_a_stream_are_read_in_bounded_pages(handlers: Pool) -> None:
    async with handlers.connection() as connection:
        for number in range(1, 11):
            await write(connection, 0, [fact("unit-a", number, "u1"), fact("unit-b", number, "u2")])

        page = await read_unit(connection, 3, "u2", after=4, through=16, limit=4)
        stream = await read_streams(connection, [(3, "unit-a"), (5, "unit-a")])

    assert [event.position for event in page] == [6, 8, 10, 12]
    assert [event.stream_version for event in stream] == list(range(1, 11))


async def test_each_role_may_do_its_own_work_and_no_more(postgres: str) -> None:
    forbidden = {
        "projections": "INSERT INTO command_receipts (command_id) VALUES (gen_random_uuid())",
        "gateway": "SELECT * FROM events",
        "bridge": "DELETE FROM events",
        "handlers": "UPDATE events SET payload = '{}'",
        "desk": "DELETE FROM dead_letter_ledger",
    }
    for role, statement in forbidden.items():
        async with pool(postgres, role=role) as some, some.connection() as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())
