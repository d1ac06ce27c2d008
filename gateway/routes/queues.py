"""Looking into waiting rooms: a department's queue as it stands, and all departments at a glance."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from contracts.ids import Department
from gateway.asking import Asking, Questions, Reading, one
from gateway.callers import READERS
from projections import departments_today, waiting_room


def router(questions: Questions) -> APIRouter:
    """Routes over the queues."""
    routes = APIRouter(route_class=Reading, tags=["queues"])
    reader = Depends(questions.by(READERS))

    @routes.get("/api/queues", responses={200: {"model": departments_today.Departments}})
    async def list_queues(asking: Asking = reader) -> Response:
        """A unit's departments with how many wait, and how long."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            found = await departments_today.at_a_glance(connection, unit_id, at=datetime.now(UTC))
        return one(found, "unit")

    @routes.get("/api/queues/{department}", responses={200: {"model": waiting_room.Room}})
    async def show_queue(
        department: Department,
        asking: Asking = reader,
        day: date | None = Query(None, description="Service day in the unit's zone; left out: today."),
        names: bool = Query(False, description="Tell who the patients are (for a desk, never for a board)."),
        closed: bool = Query(False, description="Also those done, left or transferred."),
        limit: int = Query(200, ge=1, le=1000, description="Entries at most."),
    ) -> Response:
        """A department's queue: the next first, with counts, waits and who is being called."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            room = await waiting_room.room(
                connection,
                unit_id,
                department,
                at=datetime.now(UTC),
                service_day=day,
                names=names,
                closed=closed,
                limit=limit,
            )
        return one(room, "queue")

    @routes.get("/api/queues/{department}/entries/{entry_id}", responses={200: {"model": waiting_room.Entry}})
    async def show_entry(
        department: Department,
        entry_id: UUID,
        asking: Asking = reader,
        names: bool = Query(False, description="Tell who the patient is."),
    ) -> Response:
        """One place in a queue."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            found = await waiting_room.entry(
                connection, unit_id, department, entry_id, at=datetime.now(UTC), names=names
            )
        return one(found, "queue entry")

    return routes
