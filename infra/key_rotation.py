"""Wrapping every data key anew under the master key in use. No event is touched, and nothing has to stop.

In batches, each a transaction of its own: broken off anywhere, it goes on with what is left when it is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from infra.database import Pool, connected
from infra.sealing import MASTER_SECONDS, KeyRing

BATCH: Final = 500
LOCK_SECONDS: Final = 30.0
"""How long a batch waits for somebody else who has its rows."""

_NEXT = """
SELECT subject, master_key_id, wrapped_key FROM subject_keys
WHERE subject > %s AND master_key_id <> %s ORDER BY subject LIMIT %s FOR UPDATE
"""
_WRAPPED = """
UPDATE subject_keys k SET master_key_id = %s, wrapped_key = w
FROM unnest(%s::text[], %s::bytea[]) AS anew (s, w) WHERE k.subject = s
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How many data keys each master key has wrapped."""

    current: str
    by_master: dict[str, int]
    unknown: frozenset[str]
    """Master keys that have wrapped something and were not given."""

    @property
    def left(self) -> int:
        """Data keys that are not wrapped by the key in use."""
        return sum(count for key, count in self.by_master.items() if key != self.current)


async def standing(pool: Pool, ring: KeyRing) -> Standing:
    """Where the installation stands."""
    async with connected(pool) as connection:
        cursor = await connection.execute(
            "SELECT master_key_id, count(*)::int FROM subject_keys GROUP BY master_key_id ORDER BY master_key_id"
        )
        found = dict(await cursor.fetchall())
    return Standing(ring.current.id, found, frozenset(found) - ring.ids)


async def rotate(pool: Pool, ring: KeyRing, *, batch: int = BATCH) -> AsyncGenerator[int, None]:
    """Wrap what other master keys have wrapped; tells after each batch how many that were. Raises KeyNotKnown."""
    current, after = ring.current, ""
    while True:
        async with asyncio.timeout(LOCK_SECONDS), connected(pool) as connection, connection.transaction():
            cursor = await connection.execute(_NEXT, (after, current.id, batch))
            rows = await cursor.fetchall()
            async with asyncio.timeout(MASTER_SECONDS):
                wrapped = [
                    await current.wrap(subject, await ring.named(key_id).unwrap(subject, bytes(old)))
                    for subject, key_id, old in rows
                ]
            await connection.execute(_WRAPPED, (current.id, [row[0] for row in rows], wrapped))
        if not rows:
            return
        after = rows[-1][0]
        yield len(rows)
