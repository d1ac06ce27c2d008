"""A page of a unit's feed, from the log to what is sent: read, unsealed and written down in one go.

A unit that was away for long is sent a hundred thousand facts, so nothing here makes an object of one that is not
needed: a payload without sealed fields goes through as the text it is in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from contracts.envelope import Json
from infra.database import Connection
from infra.sealing import Sealer, place

AT_ONCE: Final = 100
"""Facts written down before anybody else has a turn."""

_COLUMNS: Final = (
    "position, stream, stream_version, type, type_version, payload::text, sealed, subject, command_id, occurred_at, "
    "recorded_at"
)
_PAGE: Final = f"""
SELECT c.position, e.* FROM projection_checkpoints c LEFT JOIN LATERAL (
    SELECT {_COLUMNS} FROM events WHERE partition = %b AND unit_id = %b AND position > %b AND position <= c.position
    ORDER BY position LIMIT %b) AS e ON true
WHERE c.partition = %b
""".encode()  # noqa: S608 - all ours
_STREAMS: Final = f"""
SELECT 0, {_COLUMNS} FROM events WHERE partition = %b AND stream = ANY(%b) AND position <= %b ORDER BY position
""".encode()  # noqa: S608 - all ours


class _Row(NamedTuple):
    visible: int
    """Through where the partition is visible; every row says so."""
    position: int
    stream: str
    stream_version: int
    type: str
    type_version: int
    payload: str
    """Clear fields as JSON text."""
    sealed: bytes | None
    subject: str | None
    command_id: UUID
    occurred_at: datetime
    recorded_at: datetime


class Written(NamedTuple):
    """A fact as the unit is told it, written down."""

    position: int
    type: str
    stream: str
    recorded_at: datetime
    text: bytes

    @property
    def payload(self) -> Json:
        """What the fact tells; read from the text, so only for the few that somebody here must understand."""
        told: Json = orjson.loads(self.text)["payload"]
        return told

    def to_json(self) -> bytes:
        """As `contracts.envelope.Fact` would say it."""
        return self.text


class PageOfFeed(NamedTuple):
    """Everything of a unit in (after, through], in order."""

    through: int
    facts: Sequence[Written]


async def read_page(
    connection: Connection, sealer: Sealer, partition: int, unit_id: str, after: int, limit: int
) -> PageOfFeed:
    """At most `limit` facts after `after` that are visible; raises what `infra.sealing` raises."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_PAGE, (partition, unit_id, after, limit, partition))
        rows: list[Any] = await cursor.fetchall()  # Any: as _Row names them
    if not rows:
        return PageOfFeed(after, [])
    visible = max(rows[0][0], after)
    if rows[0][1] is None:
        return PageOfFeed(visible, [])
    facts = await _all_written(connection, sealer, [_Row._make(row) for row in rows])
    return PageOfFeed(facts[-1].position if len(facts) == limit else visible, facts)


async def read_streams_through(
    connection: Connection, sealer: Sealer, partition: int, streams: Sequence[str], through: int
) -> Sequence[Written]:
    """All that happened in these streams up to `through`, in order; raises what `infra.sealing` raises."""
    if not streams:
        return []
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_STREAMS, (partition, list(streams), through))
        rows: list[Any] = await cursor.fetchall()  # Any: as _Row names them
    return await _all_written(connection, sealer, [_Row._make(row) for row in rows])


async def _all_written(connection: Connection, sealer: Sealer, rows: Sequence[_Row]) -> list[Written]:
    """Rows of the log as facts, their keys loaded in one query."""
    await sealer.load(connection, {row.subject for row in rows if row.sealed is not None and row.subject})
    facts: list[Written] = []
    for start in range(0, len(rows), AT_ONCE):
        facts += [_written(sealer, row) for row in rows[start : start + AT_ONCE]]
        await asyncio.sleep(0)  # other units' frames go out in between: a page takes its milliseconds
    return facts


def _written(sealer: Sealer, row: _Row) -> Written:
    (_, position, stream, stream_version, type_name, type_version, payload, sealed, subject, command_id, occurred_at,
        recorded_at) = row  # fmt: skip
    told: Any = orjson.Fragment(payload)  # Any: JSON, written down or not
    erased = False
    if sealed is not None and subject is not None:
        hidden = sealer.unseal(subject, place(stream, stream_version), sealed)
        erased = hidden is None
        if hidden:
            told = {**orjson.loads(payload), **hidden}
    # Every value comes from our own log, so no model looks at it once more.
    text = orjson.dumps(
        {
            "position": position,
            "type": type_name,
            "version": type_version,
            "stream": stream,
            "streamVersion": stream_version,
            "commandId": command_id,
            "occurredAt": occurred_at,
            "recordedAt": recorded_at,
            "payload": told,
            "erased": erased,
        },
        option=orjson.OPT_UTC_Z,
    )
    return Written(position, type_name, stream, recorded_at, text)
