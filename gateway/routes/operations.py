"""What operators look at: links of units, progress of the read side, what rules refused. No patient's data."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

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
SELECT unit.unit_id, unit.name, unit.status, held.connected, link.bridge, link.epoch,
    link.agent_version, coalesce(link.acked_position, 0) AS acknowledged_position, unit.partition,
    link.connected_at, link.seen_at, link.disconnected_at
FROM read_units unit LEFT JOIN unit_sessions link USING (unit_id)
CROSS JOIN LATERAL (
    SELECT coalesce(link.connected AND link.seen_at > now() - interval '1 minute', false) AS connected) held
WHERE unit.unit_id > %(after)s AND (%(connected)s::boolean IS NULL OR held.connected = %(connected)s)
ORDER BY unit.unit_id LIMIT %(limit)s
"""
"""A bridge gives every link it holds a sign of life four times a minute; one that was killed cannot say goodbye."""


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
    acknowledged_position: int
    """Up to where the feed is on the agent's disk."""
    partition: int
    connected_at: Instant | None
    seen_at: Instant | None
    disconnected_at: Instant | None


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
        asking: Asking = operator, connected: bool | None = None, cursor: str | None = CURSOR, limit: int = LIMIT
    ) -> Response:
        """Units and whether they are connected, by unit id."""
        about: dict[str, Any] = {  # Any: values of a statement
            "after": _after(cursor),
            "connected": connected,
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
