"""Which units have been without a link for too long, and which are back: looked for in the table of sessions, and asked
for as facts.

Any bridge may do it, one at a time (an advisory lock). A row is marked when the command is safe with the broker; killed
in between, a bridge leaves a row whose command another sends again, with the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from contracts import routing
from contracts.envelope import CommandEnvelope, Origin
from contracts.identity import SYSTEM
from contracts.ids import keyed_command_id, partition_of
from contracts.unit_presence import NoteUnitBack, NoteUnitUnreachable
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.telemetry.metrics import Metrics
from ws_bridge.session_rows import LEASE_SECONDS
from ws_bridge.submissions import request_hash

LOOK_SECONDS: Final = 5.0
AT_ONCE: Final = 200
CONFIRM_TIMEOUT: Final = 5.0

_AWAY: Final = """
SELECT s.unit_id, s.epoch, coalesce(s.disconnected_at, s.seen_at)
FROM unit_sessions s JOIN read_units u USING (unit_id)
WHERE s.unreachable_since IS NULL AND u.status = 'active'
    AND NOT (s.connected AND coalesce(s.lease_until > now(), false))
    AND coalesce(s.disconnected_at, s.seen_at) < now() - make_interval(secs => %s)
ORDER BY s.unit_id LIMIT %s
"""
_BACK: Final = """
SELECT s.unit_id, s.epoch, s.unreachable_since,
    greatest(extract(epoch FROM s.connected_at - s.unreachable_since)::int, 0)
FROM unit_sessions s
WHERE s.unreachable_since IS NOT NULL AND s.connected AND s.lease_until > now()
ORDER BY s.unit_id LIMIT %s
"""
_MARK: Final = """
WITH told AS (
    SELECT t.* FROM unnest(%s::text[], %s::timestamptz[]) AS t (unit_id, since)
    JOIN unit_sessions s USING (unit_id) ORDER BY unit_id FOR UPDATE OF s
)
UPDATE unit_sessions s SET unreachable_since = t.since FROM told t WHERE s.unit_id = t.unit_id
"""
"""Also of a unit that has come back meanwhile: what was told is taken back by the next look."""
_MY_TURN: Final = "SELECT pg_try_advisory_xact_lock(hashtext('carespine.presence'))"
_COUNT: Final = """
SELECT count(*) FILTER (WHERE s.unreachable_since IS NOT NULL),
    count(*) FILTER (WHERE s.contested_until > now())
FROM unit_sessions s
"""

Note = NoteUnitUnreachable | NoteUnitBack

log = structlog.get_logger()


class Presence:
    """Looks now and then."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        metrics: Metrics,
        *,
        partitions: int,
        unreachable_seconds: float,
        well_for: Callable[[], float],
    ) -> None:
        """`well_for`: seconds for which this bridge has had the database."""
        self._pool = pool
        self._publisher = publisher
        self._metrics = metrics
        self._partitions = partitions
        self._unreachable_seconds = unreachable_seconds
        self._well_for = well_for

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # After an outage every lease has run out, of links that are there: their bridges have to renew first, and
            # units that lost theirs to come back.
            if self._well_for() < min(self._unreachable_seconds, LEASE_SECONDS):
                continue
            try:
                while await self.look() >= AT_ONCE:
                    pass
            except* (DatabaseUnavailable, BrokerUnavailable, Unroutable) as why:
                log.warning("presence_waits", reason=type(why.exceptions[0]).__name__)

    async def look(self) -> int:
        """Tell of units that are away too long and of those that are back, at most `AT_ONCE` of each; returns how many
        there were, 0 also when another bridge is at it.
        """
        async with connected(self._pool) as connection:
            async with connection.transaction():
                if not await _one(connection, _MY_TURN):
                    return 0
                away = await (await connection.execute(_AWAY, (self._unreachable_seconds, AT_ONCE))).fetchall()
                back = await (await connection.execute(_BACK, (AT_ONCE,))).fetchall()
                # No row is locked meanwhile: a unit that comes back now is not kept waiting. A session may lapse and be
                # renewed more than once: each time is told of under an id of its own.
                await self._tell(
                    *(
                        (unit, f"unreachable:{epoch}:{since.timestamp()}", NoteUnitUnreachable(since=since))
                        for unit, epoch, since in away
                    ),
                    *(
                        (unit, f"back:{epoch}:{since.timestamp()}", NoteUnitBack(away_seconds=seconds))
                        for unit, epoch, since, seconds in back
                    ),
                )
                told = [(unit, since) for unit, _, since in away] + [(unit, None) for unit, *_ in back]
                if told:
                    await connection.execute(_MARK, [list(column) for column in zip(*told, strict=True)])
            row = await (await connection.execute(_COUNT)).fetchone()
        if row is not None:
            self._metrics.units.labels("unreachable").set(row[0])
            self._metrics.units.labels("contested").set(row[1])
        if told:
            log.info("presence_told", unreachable=len(away), back=len(back))
        return max(len(away), len(back))

    async def _tell(self, *notes: tuple[str, str, Note]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for note in notes:
                tasks.create_task(self._publish(*note))

    async def _publish(self, unit_id: str, key: str, note: Note) -> None:
        payload = note.to_dict()
        command_id = keyed_command_id(SYSTEM.subject, unit_id, key)
        envelope = CommandEnvelope(
            command_id=command_id,
            type=note.type_name(),
            type_version=note.version,
            unit_id=unit_id,
            payload=payload,
            actor=SYSTEM,
            issued_at=datetime.now(UTC),
            request_hash=request_hash(note.type_name(), payload),
            origin=Origin.PROCESS,
            correlation_id=str(command_id),
        )
        partition = partition_of(unit_id, self._partitions)
        await self._publisher.publish(
            routing.COMMANDS,
            routing.command_key(unit_id, partition, envelope.type),
            envelope.to_json(),
            message_id=str(command_id),
            deadline=CONFIRM_TIMEOUT,
            type=envelope.type,
        )


async def _one(connection: Connection, statement: str) -> object:
    row = await (await connection.execute(statement.encode())).fetchone()
    return row[0] if row is not None else None
