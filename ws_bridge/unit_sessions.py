"""The one session that may speak for a unit, in Postgres: epochs taken, positions acknowledged, who is connected.

Whatever is asked while a statement runs goes into the next one, so a storm of ten thousand hellos costs a few dozen
statements and no more connections than a quiet day. Every write says `WHERE epoch = mine`: a row that does not match
belongs to a newer session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from infra.database import Connection, DatabaseUnavailable, Pool, connected

HELLOS_AT_ONCE: Final = 500
OPEN_TIMEOUT: Final = 10.0
FLUSH_SECONDS: Final = 0.5
BEAT_SECONDS: Final = 15.0

_OPEN: Final = """
WITH asked AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS a (unit_id, agent_version, position)
), known AS (
    SELECT a.*, u.status, u.partition, p.head AS log_head, c.position AS visible
    FROM asked a
    JOIN read_units u USING (unit_id)
    JOIN log_partitions p ON p.partition = u.partition
    JOIN projection_checkpoints c ON c.partition = u.partition
), opened AS (
    INSERT INTO unit_sessions AS s (unit_id, epoch, bridge, connected, agent_version, acked_position)
    SELECT unit_id, 1, %s, true, agent_version, position FROM known
    WHERE status = 'active' AND position <= log_head ORDER BY unit_id
    ON CONFLICT (unit_id) DO UPDATE SET epoch = s.epoch + 1, bridge = excluded.bridge, connected = true,
        agent_version = excluded.agent_version, acked_position = excluded.acked_position,
        connected_at = now(), seen_at = now(), disconnected_at = NULL
    RETURNING unit_id, epoch
)
SELECT k.unit_id, k.status, k.partition, k.position <= k.log_head, o.epoch, coalesce((
    SELECT max(e.position) FROM events e
    WHERE e.partition = k.partition AND e.unit_id = k.unit_id AND e.position <= k.visible), 0)
FROM known k LEFT JOIN opened o USING (unit_id)
"""

_MOVE: Final = """
UPDATE unit_sessions s SET seen_at = now(), acked_position = greatest(s.acked_position, m.position)
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS m (unit_id, epoch, position)
WHERE s.unit_id = m.unit_id AND s.epoch = m.epoch RETURNING s.unit_id
"""

_CLOSE: Final = """
UPDATE unit_sessions s SET connected = false, seen_at = now(), disconnected_at = now(),
    acked_position = greatest(s.acked_position, m.position)
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS m (unit_id, epoch, position)
WHERE s.unit_id = m.unit_id AND s.epoch = m.epoch
"""

_NEWER: Final = "SELECT unit_id, epoch FROM unit_sessions WHERE unit_id = ANY(%s)"

log = structlog.get_logger()


@dataclass(frozen=True)
class Asked:
    """A hello that wants the unit's link."""

    unit_id: str
    agent_version: str
    position: int


@dataclass(frozen=True)
class Opened:
    """What the database says to a hello; `epoch` 0 when the link is not given."""

    status: str
    """active · suspended · retired · unknown"""
    partition: int
    in_log: bool
    """The position the agent named exists."""
    epoch: int
    head: int
    """How far the unit's feed reaches visibly."""


UNKNOWN: Final = Opened("unknown", 0, True, 0, 0)

Superseded = Callable[[str, int], None]
"""Told (unit id, epoch) of a session newer than ours."""


class UnitSessions:
    """This bridge's part of the table `unit_sessions`."""

    def __init__(self, pool: Pool, *, bridge: str, superseded: Superseded) -> None:
        self._pool = pool
        self._bridge = bridge
        self._superseded = superseded
        self._hellos: list[tuple[Asked, asyncio.Future[Opened]]] = []
        self._hello_here = asyncio.Event()
        self._acked: dict[str, tuple[int, int]] = {}
        """unit id -> (epoch, position) to be written."""
        self._closed: dict[str, tuple[int, int]] = {}
        self._trouble: str | None = "database not heard of yet"

    def ready(self) -> str | None:
        """None when the database answered the last time it was asked, else why not."""
        return self._trouble

    async def open(self, asked: Asked) -> Opened:
        """Take epoch + 1 for the unit, if it may have a link. Raises DatabaseUnavailable."""
        answer: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._hellos.append((asked, answer))
        self._hello_here.set()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                return await answer
        except TimeoutError:
            raise DatabaseUnavailable("timeout") from None

    def acked(self, unit_id: str, epoch: int, position: int) -> None:
        """Everything through `position` is safe at the unit; written soon."""
        self._acked[unit_id] = (epoch, position)

    def closed(self, unit_id: str, epoch: int, position: int) -> None:
        """Our session of this unit is over; written soon."""
        self._acked.pop(unit_id, None)
        if self._closed.get(unit_id, (0, 0))[0] <= epoch:
            self._closed[unit_id] = (epoch, position)

    async def keep_opening(self) -> None:
        """Answer hellos until cancelled: all that are here at once, one of each unit."""
        while True:
            await self._hello_here.wait()
            self._hello_here.clear()
            while self._hellos:
                await self._open_some()

    async def _open_some(self) -> None:
        batch: dict[str, tuple[Asked, asyncio.Future[Opened]]] = {}
        later: list[tuple[Asked, asyncio.Future[Opened]]] = []
        for hello in self._hellos:
            if hello[1].done():
                continue  # its connection is gone
            if hello[0].unit_id in batch or len(batch) >= HELLOS_AT_ONCE:
                later.append(hello)
            else:
                batch[hello[0].unit_id] = hello
        self._hellos = later
        asked = [hello for hello, _ in batch.values()]
        try:
            found = await self._opened(asked)
        except DatabaseUnavailable as trouble:
            self._trouble = "database unavailable"
            for _, answer in batch.values():
                if not answer.done():
                    answer.set_exception(trouble)
            return
        self._trouble = None
        for unit_id, (_, answer) in batch.items():
            if not answer.done():
                answer.set_result(found.get(unit_id, UNKNOWN))

    async def _opened(self, asked: Sequence[Asked]) -> dict[str, Opened]:
        async with connected(self._pool) as connection:
            cursor = await connection.execute(
                _OPEN,
                (
                    [one.unit_id for one in asked],
                    [one.agent_version for one in asked],
                    [one.position for one in asked],
                    self._bridge,
                ),
            )
            return {
                unit_id: Opened(status, partition, in_log, epoch or 0, head)
                for unit_id, status, partition, in_log, epoch, head in await cursor.fetchall()
            }

    async def keep_writing(self, held: Callable[[], dict[str, int]]) -> None:
        """Write acks and closes every half second, and now and then a sign of life for every session held."""
        clock = asyncio.get_running_loop().time
        beat_at = clock() + BEAT_SECONDS
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
                if clock() >= beat_at:
                    beat_at = clock() + BEAT_SECONDS
                    await self._beat(held())
            except DatabaseUnavailable:
                if self._trouble is None:
                    log.warning("sessions_not_written", reason="database_unavailable")
                self._trouble = "database unavailable"

    async def flush(self) -> None:
        """Write what there is to write now. Raises DatabaseUnavailable, and then keeps it."""
        acked, self._acked = self._acked, {}
        closed, self._closed = self._closed, {}
        if not acked and not closed and self._trouble is None:
            return
        try:
            async with connected(self._pool) as connection:
                if acked:
                    await self._move(connection, acked)
                if closed:
                    await connection.execute(_CLOSE, _columns(closed))
                if not acked and not closed:
                    await connection.execute("SELECT 1")  # is it back?
        except DatabaseUnavailable:
            self._acked = acked | self._acked
            self._closed = closed | self._closed
            raise
        self._trouble = None

    async def _beat(self, held: dict[str, int]) -> None:
        if held:
            async with connected(self._pool) as connection:
                await self._move(connection, {unit_id: (epoch, 0) for unit_id, epoch in held.items()})

    async def _move(self, connection: Connection, moves: dict[str, tuple[int, int]]) -> None:
        """Move rows that are still ours; whoever has a newer session of the others is found out."""
        cursor = await connection.execute(_MOVE, _columns(moves))
        ours = {unit_id for (unit_id,) in await cursor.fetchall()}
        lost = [unit_id for unit_id in moves if unit_id not in ours]
        if lost:
            cursor = await connection.execute(_NEWER, (lost,))
            for unit_id, epoch in await cursor.fetchall():
                self._superseded(unit_id, epoch)


def _columns(rows: dict[str, tuple[int, int]]) -> tuple[list[str], list[int], list[int]]:
    return list(rows), [epoch for epoch, _ in rows.values()], [position for _, position in rows.values()]
