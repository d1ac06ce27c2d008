"""The event store: a partitioned, gap-free, fenced log in Postgres.

Appending moves a partition's head where the epoch is still the writer's own, so positions have no gaps, no reader sees
a hole, and a former owner writes nothing. What the payloads mean is `contracts`'; encryption is `infra.sealing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncCursor

from infra.database import Connection

WAKE_CHANNEL = "carespine_log"
"""NOTIFY once per appended batch: a hint for projections, with a slow poll behind it."""

Json = dict[str, Any]  # Any: a JSON object


class StoredEvent(NamedTuple):
    """One row of the log. A tuple, because whoever reads the log makes thousands of them a second."""

    partition: int
    position: int
    unit_id: str
    stream: str
    stream_version: int
    type: str
    type_version: int
    payload: Json
    """Clear fields only."""
    sealed: bytes | None
    """The sealed fields, encrypted; None when the event has none."""
    subject: str | None
    command_id: UUID
    causation_id: UUID | None
    correlation_id: str
    actor: Json
    occurred_at: datetime
    recorded_at: datetime


class NewEvent(NamedTuple):
    """An event about to be appended; payload and actor as JSON text. In the order of the table's columns."""

    unit_id: str
    stream: str
    stream_version: int
    type: str
    type_version: int
    payload: str
    sealed: bytes | None
    subject: str | None
    command_id: UUID
    causation_id: UUID | None
    correlation_id: str
    actor: str
    occurred_at: datetime


class Fenced(Exception):
    """Another owner has taken the partition over; nothing was written and nothing may be."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition} has another owner")
        self.partition = partition


COLUMNS = (
    "partition, position, unit_id, stream, stream_version, type, type_version, payload, sealed, subject, "
    "command_id, causation_id, correlation_id, actor, occurred_at, recorded_at"
)
"""What a query selects to make a `StoredEvent` of each row."""

# The order and the fence (OFFSET 0) leave one plan: each stream by its own index. As a plain join, planned while the
# table was empty, it reads a whole partition for each stream.
_STREAMS = f"""
SELECT e.* FROM unnest(%s::int[], %s::text[]) AS w (partition, stream) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM events WHERE partition = w.partition AND stream = w.stream
    ORDER BY stream_version OFFSET 0) AS e
""".encode()  # noqa: S608 - all ours

_INSERT = """
INSERT INTO events (partition, position, unit_id, stream, stream_version, type, type_version, payload, sealed, subject,
    command_id, causation_id, correlation_id, actor, occurred_at)
SELECT * FROM unnest(%b::int[], %b::bigint[], %b::text[], %b::text[], %b::int[], %b::text[], %b::int[],
    %b::text[]::jsonb[], %b::bytea[], %b::text[], %b::uuid[], %b::uuid[], %b::text[], %b::text[]::jsonb[],
    %b::timestamptz[])
"""


_RESERVE = """
WITH wanted AS (SELECT * FROM unnest(%b::int[], %b::bigint[], %b::int[]) AS w (p, e, n)),
locked AS (SELECT partition, n FROM log_partitions JOIN wanted ON partition = p AND epoch = e
           ORDER BY partition FOR UPDATE OF log_partitions)
UPDATE log_partitions l SET head = head + n FROM locked WHERE l.partition = locked.partition
RETURNING l.partition, l.head - locked.n + 1
"""


async def reserve(connection: Connection, counts: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Take positions in a transaction: {partition: (epoch, how many)} -> {partition: first position}; raises `Fenced`.

    Partitions are locked in ascending order, so two writers never wait for each other in a circle.
    """
    cursor = await connection.execute(
        _RESERVE,
        (list(counts), [epoch for epoch, _ in counts.values()], [count for _, count in counts.values()]),
    )
    first = {int(partition): int(position) for partition, position in await cursor.fetchall()}
    for partition in counts:
        if partition not in first:
            raise Fenced(partition)
    return first


async def append(connection: Connection, placed: Sequence[tuple[int, int, NewEvent]]) -> None:
    """Write events at their reserved places `(partition, position, event)`, in the caller's transaction."""
    if not placed:
        return
    columns = zip(*((partition, position, *event) for partition, position, event in placed), strict=True)
    await connection.execute(_INSERT, [list(column) for column in columns])


async def notify(connection: Connection) -> None:
    """Wake whoever reads the log, once the surrounding transaction has committed."""
    await connection.execute(f"NOTIFY {WAKE_CHANNEL}".encode())


async def read_streams(connection: Connection, wanted: Sequence[tuple[int, str]]) -> list[StoredEvent]:
    """Everything that happened in the named streams `(partition, stream)`, in order within each stream."""
    cursor = await ask_streams(connection, wanted)
    return await cursor.fetchall()


async def ask_streams(connection: Connection, wanted: Sequence[tuple[int, str]]) -> AsyncCursor[StoredEvent]:
    """As `read_streams`, for a pipeline: the rows are fetched when it has ended."""
    return await cursor_of_events(connection).execute(
        _STREAMS,
        ([partition for partition, _ in wanted], [stream for _, stream in wanted]),
    )


def cursor_of_events(connection: Connection) -> AsyncCursor[StoredEvent]:
    """A cursor whose rows, of a query that selects `COLUMNS`, are stored events."""
    return connection.cursor(row_factory=lambda cursor: StoredEvent._make, binary=True)
