"""What a process has in memory of somebody who was erased: forgotten within seconds, and said so.

Keys of persons are cached by every process that opens or seals. Erasures are few, so each process looks at the latest
of them again and again: none is missed, however long its transaction took, and forgetting twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from infra.database import DatabaseUnavailable, Pool, connected
from infra.sealing import Sealer

log = structlog.get_logger(__name__)

CACHE: Final = "cache"
LOOK_SECONDS: Final = 0.5

_LATELY: Final = """
SELECT e.subject, e.unit_id, e.partition FROM erasures e
WHERE e.erased_at > now() - interval '10 minutes' OR (e.completed_at IS NULL AND NOT EXISTS (
    SELECT FROM erasure_places p WHERE p.subject = e.subject AND p.place = 'cache' AND p.instance = %s))
"""
_SAY: Final = """
INSERT INTO erasure_places (subject, unit_id, place, instance, count)
SELECT subject, unit_id, 'cache', %s, %s FROM erasures WHERE subject = %s AND completed_at IS NULL
ON CONFLICT (subject, place, instance) DO NOTHING
"""


class Caches:
    """Forgets, until cancelled."""

    def __init__(
        self, pool: Pool, sealer: Sealer, *, instance: str, also: Callable[[int], None] = lambda partition: None
    ) -> None:
        """`also` is told the partition of whoever was erased: what else is kept of it in memory has to go."""
        self._pool = pool
        self._sealer = sealer
        self._instance = instance
        self._also = also
        self._done: set[str] = set()

    async def watch(self) -> None:
        """Look twice a second."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailable as why:
                log.info("erasures.waiting", reason=type(why).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> int:
        """Forget whoever was erased lately; how many were new to this process."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', '*', true)")
            cursor = await connection.execute(_LATELY, (self._instance,))
            lately = await cursor.fetchall()
            new = [row for row in lately if row[0] not in self._done]
            for subject, _, partition in new:
                count = self._sealer.forget([subject])
                self._also(partition)
                await connection.execute(_SAY, (self._instance, count, subject))
        # A key may have been read by a transaction older than the erasure: the next looks forget it again.
        self._sealer.forget(row[0] for row in lately)
        self._done = {row[0] for row in lately}
        return len(new)
