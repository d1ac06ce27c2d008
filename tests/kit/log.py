"""The log as tests look at it: a partition's events, a unit's events, in order."""

from __future__ import annotations

from infra.database import Connection
from infra.event_log import COLUMNS, StoredEvent, cursor_of_events


async def read_partition(connection: Connection, partition: int, after: int, limit: int) -> list[StoredEvent]:
    """At most `limit` events of a partition after position `after`, in order."""
    return await _read(
        connection, "partition = %s AND position > %s ORDER BY position LIMIT %s", (partition, after, limit)
    )


async def read_unit(
    connection: Connection, partition: int, unit_id: str, after: int, through: int, limit: int
) -> list[StoredEvent]:
    """At most `limit` events of one unit in (after, through], in order."""
    return await _read(
        connection,
        "partition = %s AND unit_id = %s AND position > %s AND position <= %s ORDER BY position LIMIT %s",
        (partition, unit_id, after, through, limit),
    )


async def head(connection: Connection, partition: int) -> int:
    """Position of the newest event of the partition (0: none yet)."""
    cursor = await connection.execute("SELECT head FROM log_partitions WHERE partition = %s", (partition,))
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"partition {partition} does not exist: run `carespine doctor`")
    return int(row[0])


async def _read(connection: Connection, where: str, values: tuple[object, ...]) -> list[StoredEvent]:
    async with cursor_of_events(connection) as cursor:
        await cursor.execute(f"SELECT {COLUMNS} FROM events WHERE {where}".encode(), values)  # noqa: S608 - both are ours
        return await cursor.fetchall()
