"""Makes a read model anew from the log, while everything else goes on.

Partition by partition: what the read model has of it is deleted and applied again in one transaction, so readers see
the old rows until the new ones are complete. Ordinary projecting of that partition waits meanwhile (an advisory lock),
that of the others goes on. Facts that could not be applied get their second chance.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from infra.database import Connection, Pool, connected
from infra.event_log import COLUMNS, StoredEvent, cursor_of_events
from infra.sealing import Sealer
from projections.applying import AT_FAULT, Applying
from projections.batch import Reactions
from projections.checkpoints import PARTITION_LOCK, leave_out
from projections.read_model import ReadModel

PAGE = 2000
"""Events applied at a time."""

_PAGE = f"""
SELECT {COLUMNS} FROM events
WHERE partition = %s AND position > %s AND position <= %s AND type = ANY(%s) ORDER BY position LIMIT %s
""".encode()  # noqa: S608 - all ours


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One partition of one read model, made anew."""

    partition: int
    events: int
    """Applied; those of no interest to the read model do not count."""
    left_out: int


async def rebuild(pool: Pool, sealer: Sealer, model: ReadModel, *, page: int = PAGE) -> AsyncIterator[Rebuilt]:
    """Rebuild the read model, telling of each partition when it is done; may be broken off between any two."""
    reactions = Reactions([model])
    applying = Applying(sealer, reactions)
    async with connected(pool) as connection:
        cursor = await connection.execute("SELECT partition FROM projection_checkpoints ORDER BY partition")
        for (partition,) in await cursor.fetchall():
            async with connection.transaction():
                through = await _emptied(connection, model, partition)
                rebuilt = await _applied(connection, applying, list(reactions.by_type), partition, through, page)
            yield rebuilt


async def _emptied(connection: Connection, model: ReadModel, partition: int) -> int:
    """Keep everybody else off the partition, forget what the read model has of it; up to where it is to be filled."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (PARTITION_LOCK, partition))
    for table in model.tables:
        await connection.execute(f"DELETE FROM {table.name} WHERE partition = %s".encode(), (partition,))  # noqa: S608
    await connection.execute(
        "DELETE FROM projection_faults WHERE read_model = %s AND partition = %s", (model.name, partition)
    )
    cursor = await connection.execute("SELECT position FROM projection_checkpoints WHERE partition = %s", (partition,))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _applied(
    connection: Connection, applying: Applying, types: list[str], partition: int, through: int, page: int
) -> Rebuilt:
    after = count = left_out = 0
    while events := await _page(connection, partition, after, through, types, page):
        try:
            async with connection.transaction(), connection.pipeline():
                await applying.together(connection, events)
        except AT_FAULT:
            async with connection.transaction():
                _, faults = await applying.isolated(connection, events)
                await leave_out(connection, faults)
                left_out += len(faults)
        after = events[-1].position
        count += len(events)
    return Rebuilt(partition, count, left_out)


async def _page(
    connection: Connection, partition: int, after: int, through: int, types: list[str], limit: int
) -> list[StoredEvent]:
    async with cursor_of_events(connection) as cursor:
        await cursor.execute(_PAGE, (partition, after, through, types, limit))
        return await cursor.fetchall()
