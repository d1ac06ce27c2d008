"""Who owns a partition: leases in Postgres, fair share per live process, takeover after expiry, fenced by an epoch.

Both the handlers and the projections own partitions. A lease says who may try; the epoch that goes into the role's
fence table (`log_partitions`, `projection_checkpoints`) at every change of owner decides who can write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog

from infra.database import Connection, DatabaseUnavailable, Pool, connected

log = structlog.get_logger(__name__)

Role = Literal["handlers", "projections"]
FENCES: dict[Role, str] = {"handlers": "log_partitions", "projections": "projection_checkpoints"}

_HEARTBEAT = """
INSERT INTO workers (role, instance, heartbeat_at) VALUES (%(role)s, %(me)s, clock_timestamp())
ON CONFLICT (role, instance) DO UPDATE SET heartbeat_at = clock_timestamp()
"""
_BURY = (
    "DELETE FROM workers WHERE role = %(role)s AND heartbeat_at < clock_timestamp() - %(ttl)s * interval '10 seconds'"
)
_LIVE = """
SELECT instance FROM workers
WHERE role = %(role)s AND heartbeat_at > clock_timestamp() - %(ttl)s * interval '1 second' ORDER BY instance
"""
_RENEW = """
UPDATE leases SET expires_at = clock_timestamp() + %(ttl)s * interval '1 second'
WHERE role = %(role)s AND owner = %(me)s AND partition = ANY(%(mine)s) AND epoch = ANY(%(epochs)s)
RETURNING partition, epoch
"""
_CLAIM = """
UPDATE leases SET owner = %(me)s, epoch = epoch + 1, expires_at = clock_timestamp() + %(ttl)s * interval '1 second'
WHERE role = %(role)s AND partition IN (
    SELECT partition FROM leases WHERE role = %(role)s AND (owner IS NULL OR expires_at < clock_timestamp())
    ORDER BY partition LIMIT %(wanted)s FOR UPDATE SKIP LOCKED)
RETURNING partition, epoch
"""
_RELEASE = """
UPDATE leases SET owner = NULL, expires_at = '-infinity'
WHERE role = %(role)s AND owner = %(me)s AND partition = ANY(%(partitions)s)
"""

Gained = Callable[[int, int], Awaitable[None]]
Lost = Callable[[int], Awaitable[None]]


class Ownership:
    """Keeps this process's fair share of the partitions for as long as `run` runs.

    `on_gained(partition, epoch)` is awaited when a partition becomes ours, `on_lost(partition)` before one is given up
    and after one was taken; when a lease could not be renewed in time, it is treated as lost here before anybody else
    can own it.
    """

    def __init__(
        self, pool: Pool, *, role: Role, instance: str, lease_seconds: float, on_gained: Gained, on_lost: Lost
    ) -> None:
        self._pool = pool
        self._role: Role = role
        self._me = instance
        self._ttl = lease_seconds
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._owned: dict[int, int] = {}
        self._valid_until = 0.0
        """Monotonic time up to which our leases are ours for certain."""
        self._wake = asyncio.Event()
        self.settled = False
        """Whether the leases have been looked at since the start."""

    def owned(self) -> dict[int, int]:
        """{partition: epoch} of what is ours now."""
        return dict(self._owned)

    async def run(self) -> None:
        """Renew, share and take over until cancelled; call `release_all` afterwards."""
        while True:
            try:
                async with asyncio.timeout(self._ttl):
                    await self._round()
            except (DatabaseUnavailable, TimeoutError) as why:
                log.warning("ownership.database_away", reason=type(why).__name__)
            if self._owned and time.monotonic() >= self._valid_until:
                for partition in list(self._owned):
                    await self._lose(partition)
            try:
                async with asyncio.timeout(self._ttl / 4):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def drop(self, partition: int) -> None:
        """We were told that the partition is not ours any more (a fenced write)."""
        await self._lose(partition)
        self._wake.set()

    async def give_back(self, partition: int) -> None:
        """Give one partition back on our own account; we may get it again later."""
        await self._release([partition])

    async def release_all(self) -> None:
        """Hand everything over, for an orderly shutdown: others take it at once instead of after expiry."""
        try:
            async with asyncio.timeout(self._ttl):
                await self._release(list(self._owned))
                async with connected(self._pool) as connection:
                    await connection.execute(
                        "DELETE FROM workers WHERE role = %s AND instance = %s", (self._role, self._me)
                    )
        except (DatabaseUnavailable, TimeoutError) as why:
            log.warning("ownership.not_released", reason=type(why).__name__)

    async def _round(self) -> None:
        asked_at = time.monotonic()
        async with connected(self._pool) as connection:
            about = {"role": self._role, "me": self._me, "ttl": self._ttl}
            await connection.execute(_HEARTBEAT, about)
            await connection.execute(_BURY, about)
            live = [row[0] for row in await (await connection.execute(_LIVE, about)).fetchall()]
            await self._renew(connection)
            self._valid_until = asked_at + self._ttl
            cursor = await connection.execute("SELECT count(*) FROM leases WHERE role = %s", (self._role,))
            row = await cursor.fetchone()
            share = self._share(live, row[0] if row else 0)
        if len(self._owned) > share:
            await self._release(sorted(self._owned)[share:])
        elif len(self._owned) < share:
            await self._claim(share - len(self._owned))
        self.settled = True

    def _share(self, live: list[str], partitions: int) -> int:
        each, rest = divmod(partitions, max(1, len(live)))
        return each + (self._me in live[:rest])

    async def _renew(self, connection: Connection) -> None:
        mine = dict(self._owned)
        if not mine:
            return
        cursor = await connection.execute(
            _RENEW,
            {
                "role": self._role,
                "me": self._me,
                "ttl": self._ttl,
                "mine": list(mine),
                "epochs": list(set(mine.values())),
            },
        )
        renewed: dict[int, int] = dict(await cursor.fetchall())
        for partition, epoch in mine.items():
            if renewed.get(partition) != epoch:
                await self._lose(partition)

    async def _claim(self, wanted: int) -> None:
        async with connected(self._pool) as connection, connection.transaction():
            cursor = await connection.execute(
                _CLAIM, {"role": self._role, "me": self._me, "ttl": self._ttl, "wanted": wanted}
            )
            gained: dict[int, int] = dict(await cursor.fetchall())
            for partition, epoch in sorted(gained.items()):
                await connection.execute(
                    # The table's name is one of ours, not input.
                    f"UPDATE {FENCES[self._role]} SET epoch = %s WHERE partition = %s AND epoch < %s".encode(),  # noqa: S608
                    (epoch, partition, epoch),
                )
        for partition, epoch in sorted(gained.items()):
            self._owned[partition] = epoch
            log.info("partition.gained", partition=partition, epoch=epoch)
            await self._on_gained(partition, epoch)

    async def _lose(self, partition: int) -> None:
        if self._owned.pop(partition, None) is not None:
            log.info("partition.lost", partition=partition)
            await self._on_lost(partition)

    async def _release(self, partitions: list[int]) -> None:
        for partition in partitions:
            await self._lose(partition)
        if partitions:
            async with connected(self._pool) as connection:
                await connection.execute(_RELEASE, {"role": self._role, "me": self._me, "partitions": partitions})
