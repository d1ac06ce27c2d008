"""The read side's place in the log: what is new on owned partitions, and moving the checkpoints with it.

Taking new events moves the checkpoint where its epoch is still the owner's own, in one statement: positions have no
gaps, so where a batch ends is known before it is read. Until the transaction ends, the checkpoint's row is held (a
change of owner waits, and a former owner takes nothing) and an advisory lock on the partition (a rebuild and ordinary
work take turns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.database import Connection
from infra.event_log import COLUMNS, StoredEvent, cursor_of_events
from projections.batch import LeftOut

PARTITION_LOCK: Final = 0xCA5E
"""First half of the advisory locks; the second is the partition."""

_TAKE = f"""
WITH moved AS (
    UPDATE projection_checkpoints c SET position = n.through, projected_at = clock_timestamp()
    FROM (
        SELECT k.partition, k.position AS after, least(h.head, k.position + %s) AS through, k.epoch
        FROM projection_checkpoints k
        JOIN unnest(%s::int[], %s::bigint[]) AS o (partition, epoch) ON k.partition = o.partition AND k.epoch = o.epoch
        JOIN log_partitions h ON h.partition = k.partition AND h.head > k.position
        WHERE pg_try_advisory_xact_lock({PARTITION_LOCK}, k.partition)
        FOR UPDATE OF k SKIP LOCKED
    ) AS n
    WHERE c.partition = n.partition AND c.epoch = n.epoch
    RETURNING n.partition, n.after, n.through)
SELECT e.* FROM moved CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM events
    WHERE partition = moved.partition AND position > moved.after AND position <= moved.through ORDER BY position) AS e
""".encode()  # noqa: S608 - all ours

_LEAVE_OUT = b"""
INSERT INTO projection_faults (read_model, partition, position, event_type, error_type) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (read_model, partition, position) DO UPDATE SET error_type = excluded.error_type, found_at = now()
"""

_STANDING = b"""
SELECT c.partition, h.head - c.position, coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8
FROM projection_checkpoints c JOIN log_partitions h ON h.partition = c.partition
LEFT JOIN events e ON e.partition = c.partition AND e.position = c.position + 1
WHERE c.partition = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the read models are behind one partition."""

    partition: int
    lag_events: int
    lag_seconds: float
    """Age of the oldest event that is not visible yet."""


async def take(connection: Connection, owned: Mapping[int, int], limit: int) -> list[StoredEvent]:
    """New events of owned partitions `{partition: epoch}`, at most `limit` of each, in order within each.

    Moves the checkpoints past them: apply the events in the same transaction, or roll it back. Nothing is taken from a
    partition whose epoch is not ours any more, or that is being rebuilt.
    """
    async with cursor_of_events(connection) as cursor:
        await cursor.execute(_TAKE, (limit, list(owned), list(owned.values())))
        return await cursor.fetchall()


async def leave_out(connection: Connection, faults: Sequence[LeftOut]) -> None:
    """Note what could not be applied."""
    for fault in faults:
        await connection.execute(
            _LEAVE_OUT, (fault.read_model, fault.partition, fault.position, fault.event_type, fault.error_type)
        )


async def standing(connection: Connection, partitions: Sequence[int]) -> list[Standing]:
    """How far behind each partition is."""
    cursor = await connection.execute(_STANDING, (list(partitions),))
    return [Standing(*row) for row in await cursor.fetchall()]
