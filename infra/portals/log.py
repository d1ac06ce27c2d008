"""The log as portals read it: one unit's clear facts, how far they are visible, where lost pushes left something.

Reads `portal_log` (a view: no sealed fields, and only of the unit the transaction names) in the process's own role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

from contracts.envelope import Fact
from infra.database import Connection, Pool, connected

_STANDING: Final = "SELECT status, partition FROM read_units WHERE unit_id = %s"
_VISIBLE: Final = "SELECT position FROM projection_checkpoints WHERE partition = %s"
_ALL_VISIBLE: Final = "SELECT partition, position FROM projection_checkpoints"
_COLUMNS: Final = "position, type, type_version, stream, stream_version, command_id, occurred_at, recorded_at, payload"
_PAGE: Final = f"""
SELECT {_COLUMNS} FROM portal_log
WHERE partition = %s AND unit_id = %s AND position > %s AND position <= %s ORDER BY position LIMIT %s
"""  # noqa: S608 - all ours
_STREAMS: Final = f"""
SELECT e.* FROM unnest(%s::text[], %s::int[]) AS w (stream, version) CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM portal_log
    WHERE partition = %s AND stream = w.stream AND stream_version < w.version ORDER BY stream_version OFFSET 0) AS e
"""  # noqa: S608 - all ours
_REACHED: Final = """
SELECT w.unit_id, w.through, (SELECT max(position) FROM portal_log e
    WHERE e.partition = w.partition AND e.unit_id = w.unit_id AND e.position > w.after AND e.position <= w.through)
FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[]) AS w (unit_id, partition, after, through)
"""
WHOLE_NETWORK: Final = "*"


class Standing(NamedTuple):
    """How a unit stands when somebody begins to follow it."""

    status: str
    partition: int
    visible: int
    """Through where its partition is visible."""
    history: list[Fact]
    """What happened to the unit itself, from the beginning."""


class Page(NamedTuple):
    """Everything of a unit in (after, through], or the first part of it."""

    facts: list[Fact]
    through: int


class Reached(NamedTuple):
    """How far a unit's facts reach within (after, through]; None: there are none."""

    unit_id: str
    through: int
    position: int | None


class PortalLog(Protocol):
    """What the hub asks. Everything raises DatabaseUnavailable."""

    async def standing(self, unit_id: str) -> Standing | None:
        """None when no such unit is registered."""

    async def page(self, unit_id: str, partition: int, after: int, limit: int) -> Page:
        """At most `limit` visible facts after a position."""

    async def streams(self, unit_id: str, partition: int, before: Mapping[str, int]) -> list[Fact]:
        """The facts of these streams below these versions, each stream's in order."""

    async def visible(self) -> dict[int, int]:
        """Through where each partition is visible."""

    async def reached(self, spans: Sequence[tuple[str, int, int, int]]) -> list[Reached]:
        """For each (unit, partition, after, through): is there anything?"""


class PostgresPortalLog:
    """The log in Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def standing(self, unit_id: str) -> Standing | None:
        async with self._reading(unit_id) as connection:
            cursor = await connection.execute(_STANDING, (unit_id,))
            row = await cursor.fetchone()
            if row is None:
                return None
            status, partition = row
            visible = await self._visible(connection, partition)
            cursor = await connection.execute(_STREAMS.encode(), ([f"unit-{unit_id}"], [2**31 - 1], partition))
            history = [fact for fact in map(fact_of, await cursor.fetchall()) if fact.position <= visible]
            return Standing(status, partition, visible, history)

    async def page(self, unit_id: str, partition: int, after: int, limit: int) -> Page:
        async with self._reading(unit_id) as connection:
            visible = await self._visible(connection, partition)
            cursor = await connection.execute(_PAGE.encode(), (partition, unit_id, after, visible, limit))
            facts = [fact_of(row) for row in await cursor.fetchall()]
        return Page(facts, facts[-1].position if len(facts) == limit else max(visible, after))

    async def streams(self, unit_id: str, partition: int, before: Mapping[str, int]) -> list[Fact]:
        async with self._reading(unit_id) as connection:
            cursor = await connection.execute(_STREAMS.encode(), (list(before), list(before.values()), partition))
            return [fact_of(row) for row in await cursor.fetchall()]

    async def visible(self) -> dict[int, int]:
        async with connected(self._pool) as connection:
            cursor = await connection.execute(_ALL_VISIBLE)
            return {int(partition): int(position) for partition, position in await cursor.fetchall()}

    async def reached(self, spans: Sequence[tuple[str, int, int, int]]) -> list[Reached]:
        async with self._reading(WHOLE_NETWORK) as connection:
            cursor = await connection.execute(_REACHED, [list(column) for column in zip(*spans, strict=True)])
            return [Reached(*row) for row in await cursor.fetchall()]

    @asynccontextmanager
    async def _reading(self, unit_id: str) -> AsyncIterator[Connection]:
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute(
                "SELECT set_config('transaction_read_only', 'on', true), set_config('carespine.unit', %s, true)",
                (unit_id,),
            )
            yield connection

    async def _visible(self, connection: Connection, partition: int) -> int:
        cursor = await connection.execute(_VISIBLE, (partition,))
        row = await cursor.fetchone()
        return int(row[0]) if row is not None else 0


def fact_of(row: tuple[Any, ...]) -> Fact:  # Any: columns of several types
    """A row of the log as a fact; what is sealed is not in it."""
    position, type_name, version, stream, stream_version, command_id, occurred_at, recorded_at, payload = row
    # Every value comes from our own log, so the fact is not validated once more.
    return Fact.model_construct(
        position=position,
        type=type_name,
        version=version,
        stream=stream,
        stream_version=stream_version,
        command_id=command_id,
        occurred_at=occurred_at,
        recorded_at=recorded_at,
        payload=payload,
        erased=False,
    )
