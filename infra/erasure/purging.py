"""After the fact: everything is purged place by place, what is still awaited is written down, and then it is complete.

Any number of processes may do this; each erasure is one's at a time. What is on its way (the read tables behind the
log, letters on their way to the desk, processes with something in memory, the unit's agent) is awaited, however long.
"""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import structlog

from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.erasure.places import PLACES, Person
from infra.sealing import KeyNotKnown, Sealer

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
PURGE_SECONDS: Final = 120.0
"""Longer than the slowest purge of one person; what takes longer is stuck."""

AGENT: Final = "unit_agent"

_OPEN: Final = """
SELECT subject, patient_id, unit_id, partition, position FROM erasures
WHERE completed_at IS NULL AND NOT subject = ANY(%s) ORDER BY erased_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_COUNTED: Final = """
INSERT INTO erasure_places AS p (subject, unit_id, place, count) VALUES (%s, %s, %s, %s)
ON CONFLICT (subject, place, instance) DO UPDATE SET count = greatest(p.count, EXCLUDED.count)
"""
_AWAITED: Final = """
SELECT 'projections' WHERE NOT EXISTS (
    SELECT FROM projection_checkpoints WHERE partition = %(partition)s AND position >= %(position)s)
UNION ALL
SELECT 'letters on their way' WHERE EXISTS (
    SELECT FROM letters_out WHERE partition = %(partition)s AND body LIKE '%%' || %(subject)s || '%%')
UNION ALL
SELECT 'memory of ' || w.instance FROM workers w
WHERE w.heartbeat_at > now() - interval '30 seconds' AND NOT EXISTS (
    SELECT FROM erasure_places p WHERE p.subject = %(subject)s AND p.place = 'cache' AND p.instance = w.instance)
UNION ALL
SELECT 'unit agent' FROM unit_sessions s WHERE s.unit_id = %(unit)s AND s.acked_position < %(position)s
UNION ALL
SELECT 'report of the unit agent' FROM unit_sessions s JOIN erasures x ON x.subject = %(subject)s
WHERE s.unit_id = %(unit)s AND s.acked_position >= %(position)s AND x.erased_at > now() - interval '10 minutes'
    AND NOT EXISTS (SELECT FROM events e WHERE e.partition = %(partition)s AND e.stream = 'patient-' || %(subject)s
        AND e.type = 'patient.ErasureReported')
"""
# An agent of an older release purges as far as it knows how and says nothing of it: that is not awaited for ever.
_REPORTED: Final = """
SELECT c.key, c.value::int FROM events e, jsonb_each_text(e.payload -> 'counts') c
WHERE e.partition = %s AND e.stream = %s AND e.type = 'patient.ErasureReported'
"""


class Purging:
    """Purges until cancelled."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def run(self) -> None:
        """Look once a second."""
        while True:
            try:
                async with asyncio.timeout(PURGE_SECONDS):
                    await self.turn()
            except (DatabaseUnavailable, KeyNotKnown, psycopg.Error, TimeoutError) as why:
                log.warning("purging.waiting", reason=type(why).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def turn(self) -> int:
        """Work on every open erasure once; how many are complete now that were not before."""
        seen: list[str] = []
        completed = 0
        while True:
            async with connected(self._pool) as connection, connection.transaction():
                cursor = await connection.execute(_OPEN, (seen,))
                row = await cursor.fetchone()
                if row is None:
                    return completed
                person = Person(*row)
                seen.append(person.subject)
                completed += await self._purge(connection, person)

    async def _purge(self, connection: Connection, person: Person) -> bool:
        awaited = await _awaited(connection, person)
        if "projections" not in awaited:  # else facts from before are still on their way into the read tables
            for place, purge in PLACES.items():
                count = await purge(connection, self._sealer, person)
                await connection.execute(_COUNTED, (person.subject, person.unit_id, place, count))
            cursor = await connection.execute(_REPORTED, (person.partition, f"patient-{person.patient_id}"))
            for kind, count in await cursor.fetchall():
                place = f"{AGENT}: {kind}"
                await connection.execute(_COUNTED, (person.subject, person.unit_id, place, count))
        await connection.execute(
            "UPDATE erasures SET awaits = %s, completed_at = CASE WHEN %s THEN NULL ELSE clock_timestamp() END "
            "WHERE subject = %s",
            (awaited, bool(awaited), person.subject),
        )
        return not awaited


async def _awaited(connection: Connection, person: Person) -> list[str]:
    cursor = await connection.execute(
        _AWAITED,
        {
            "partition": person.partition,
            "position": person.position,
            "subject": person.subject,
            "unit": person.unit_id,
        },
    )
    return sorted(row[0] for row in await cursor.fetchall())
