"""Ownership: fair share, orderly hand-over, takeover after expiry, and never two owners with one epoch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infra.database import Pool, pool
from infra.ownership import Ownership
from tests.kit.waiting import eventually

LEASE = 1.0


class Worker:
    """One process' ownership, and what it was told."""

    def __init__(self, source: Pool, instance: str) -> None:
        self.told: list[tuple[str, int]] = []
        self.ownership = Ownership(
            source, role="handlers", instance=instance, lease_seconds=LEASE, on_gained=self._gained, on_lost=self._lost
        )
        self.task: asyncio.Task[None] | None = None

    async def _gained(self, partition: int, epoch: int) -> None:
        self.told.append(("gained", partition))

    async def _lost(self, partition: int) -> None:
        self.told.append(("lost", partition))

    def start(self) -> None:
        """Take part."""
        self.task = asyncio.create_task(self.ownership.run())

    async def die(self) -> None:
        """End without a word, as kill -9 does."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def count(self) -> int:
        """Partitions it owns."""
        return len(self.ownership.owned())


@pytest.fixture
async def source(postgres: str) -> AsyncIterator[Pool]:
    """Connections that act as the handlers."""
    async with pool(postgres, role="handlers", largest=6) as handlers:
        yield handlers


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[None]:
    """Workers that end with the block."""
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            await worker.die()


async def test_partitions_are_shared_fairly_and_again_when_somebody_joins(source: Pool) -> None:
    a, b, c = (Worker(source, name) for name in "abc")
    async with working(a):
        await eventually(lambda: a.count == 16)
        async with working(b, c):
            await eventually(lambda: sorted((a.count, b.count, c.count)) == [5, 5, 6])
            held = [partition for worker in (a, b, c) for partition in worker.ownership.owned()]
            assert sorted(held) == list(range(16))


async def test_an_orderly_leaver_is_followed_at_once(source: Pool) -> None:
    a, b = Worker(source, "a"), Worker(source, "b")
    async with working(a, b):
        await eventually(lambda: (a.count, b.count) == (8, 8))
        await a.die()
        await a.ownership.release_all()
        await eventually(lambda: b.count == 16, within=LEASE)


async def test_a_dead_owner_is_followed_after_its_lease_under_a_higher_epoch(source: Pool) -> None:
    a, b = Worker(source, "a"), Worker(source, "b")
    async with working(a):
        await eventually(lambda: a.count == 16)
        before = a.ownership.owned()
        await a.die()
        async with working(b):
            await eventually(lambda: b.count == 16, within=6 * LEASE)
            after = b.ownership.owned()
    assert all(after[partition] > before[partition] for partition in range(16))
    async with source.connection() as connection:
        cursor = await connection.execute("SELECT partition, epoch FROM log_partitions")
        assert dict(await cursor.fetchall()) == after


async def test_who_cannot_reach_the_database_gives_up_before_anybody_else_can_own(source: Pool, postgres: str) -> None:
    async with pool(postgres, role="handlers", timeout=0.2) as own:
        a = Worker(own, "a")
        async with working(a):
            await eventually(lambda: a.count == 16)
            await own.close()
            await eventually(lambda: a.count == 0, within=3 * LEASE)
    assert {what for what, _ in a.told} == {"gained", "lost"}


async def test_a_fenced_partition_is_dropped_and_may_come_back(source: Pool) -> None:
    a = Worker(source, "a")
    async with working(a):
        await eventually(lambda: a.count == 16)
        async with source.connection() as connection:
            await connection.execute("UPDATE leases SET owner = 'thief', epoch = epoch + 1 WHERE partition = 5")
        await eventually(lambda: ("lost", 5) in a.told, within=3 * LEASE)
        await eventually(lambda: a.count == 16, within=6 * LEASE)
