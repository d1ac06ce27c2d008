"""What operators look at: links of units, progress of the read side, what rules refused. No patient's data."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from psycopg.rows import class_row

from contracts.ids import UNIT_ID
from contracts.model import Instant, Model
from gateway.answers import json_answer
from gateway.asking import CURSOR, LIMIT, Asking, PageOf, Questions, Reading, many
from gateway.callers import OPERATORS
from projections import progress, receipts
from projections.questions import CursorNotValid, Page, cursor_of, cursor_parts

_LINKS: Final = """
WITH page AS MATERIALIZED (
    SELECT unit.unit_id, unit.name, unit.status, unit.partition, held.*, link.bridge, link.epoch, link.agent_version,
        link.instance, link.acked_position, link.connected_at, link.seen_at, link.disconnected_at,
        coalesce(link.unreachable_since, unit.unreachable_since) AS unreachable_since
    FROM read_units unit LEFT JOIN unit_sessions link USING (unit_id)
    CROSS JOIN LATERAL (SELECT
        coalesce(link.connected AND link.lease_until > now(), false) AS connected,
        coalesce(link.contested_until > now(), false) AS contested) held
    WHERE unit.unit_id > %(after)s
        AND (%(connected)s::boolean IS NULL OR held.connected = %(connected)s)
        AND (%(contested)s::boolean IS NULL OR held.contested = %(contested)s)
        AND (%(unreachable)s::boolean IS NULL
            OR (coalesce(link.unreachable_since, unit.unreachable_since) IS NOT NULL) = %(unreachable)s)
    ORDER BY unit.unit_id LIMIT %(limit)s
)
SELECT page.unit_id, name, status, connected, bridge, epoch, agent_version, instance,
    coalesce(acked_position, 0) AS acknowledged_position, partition, lag.events AS lag_events,
    CASE WHEN acked_position IS NULL THEN NULL
        ELSE coalesce(extract(epoch FROM now() - lag.since), 0)::float8 END AS lag_seconds,
    contested, connected_at, seen_at, disconnected_at, unreachable_since
FROM page CROSS JOIN LATERAL unit_feed_behind(page.unit_id, page.partition, page.acked_position, %(counted)s) lag
ORDER BY page.unit_id
"""
"""Connected is a unit whose bridge holds a lease; one that was killed renews none and cannot say goodbye."""
LAG_COUNTED: Final = 10_000


class UnitLink(Model):
    """A unit and its link."""

    unit_id: str
    name: str
    status: str
    connected: bool
    bridge: str | None
    """The process that holds the link, or held it last."""
    epoch: int | None
    """How many sessions there have been."""
    agent_version: str | None
    instance: UUID | None
    """Which agent holds the link, or held it last: made once with its store."""
    acknowledged_position: int
    """Up to where the feed is on the agent's disk."""
    partition: int
    lag_events: int | None
    """The unit's own events that it has not acknowledged, counted up to 10,000; None: it never had a link."""
    lag_seconds: float | None
    """Age of the first of them; 0 when there is none."""
    contested: bool
    """Two agents with this identity keep trying to take the link from one another."""
    connected_at: Instant | None
    seen_at: Instant | None
    disconnected_at: Instant | None
    unreachable_since: Instant | None
    """Set once the unit has been without a link for too long (`CARESPINE_UNREACHABLE_SECONDS`)."""


class Refused(Model):
    """A command that a rule said no to; without what was asked for."""

    command_id: str
    type: str
    unit_id: str
    code: str | None
    recorded_at: datetime


class Projections(Model):
    """How far the read side is."""

    lag_events: int
    partitions: list[progress.PartitionProgress]
    faults: list[progress.Fault]
    """Facts that could not be applied, the latest first."""


def router(questions: Questions) -> APIRouter:
    """Routes over the running system; dead letters have their own."""
    routes = APIRouter(route_class=Reading, tags=["operations"])
    operator = Depends(questions.by(OPERATORS))

    @routes.get("/ops/units", responses={200: {"model": PageOf[UnitLink]}})
    async def unit_links(
        asking: Asking = operator,
        connected: bool | None = None,
        contested: bool | None = None,
        unreachable: bool | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """Units, whether they are connected and how far behind they are, by unit id."""
        about: dict[str, Any] = {  # Any: values of a statement
            "after": _after(cursor),
            "connected": connected,
            "contested": contested,
            "unreachable": unreachable,
            "counted": LAG_COUNTED,
            "limit": limit + 1,
        }
        async with asking.connection() as connection, connection.cursor(row_factory=class_row(UnitLink)) as rows:
            await rows.execute(_LINKS, about)
            found = await rows.fetchall()
        items = found[:limit]
        return many(Page(items, cursor_of(items[-1].unit_id) if len(found) > limit else None))

    @routes.get("/ops/projections", responses={200: {"model": Projections}})
    async def projections(asking: Asking = operator) -> Response:
        """Every partition's progress, and facts that could not be applied."""
        async with asking.connection() as connection:
            partitions = await progress.partitions(connection)
            faults = await progress.latest_faults(connection)
        lag = sum(partition.lag_events for partition in partitions)
        return json_answer(Projections(lag_events=lag, partitions=partitions, faults=faults).to_dict())

    @routes.get("/ops/refusals", responses={200: {"model": PageOf[Refused]}})
    async def refusals(asking: Asking = operator, cursor: str | None = CURSOR, limit: int = LIMIT) -> Response:
        """Commands a rule said no to, the latest first."""
        async with asking.connection() as connection:
            page = await receipts.refusals(connection, unit_id=asking.unit, cursor=cursor, limit=limit)
        items = [
            Refused(
                command_id=str(receipt.command_id),
                type=receipt.type,
                unit_id=receipt.unit_id,
                code=receipt.code,
                recorded_at=receipt.recorded_at,
            )
            for receipt in page.items
        ]
        return many(Page(items, page.next_cursor))

    return routes


def _after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    (unit_id,) = cursor_parts(cursor, 1)
    if not UNIT_ID.fullmatch(unit_id):
        raise CursorNotValid("not a cursor of this list")
    return unit_id
