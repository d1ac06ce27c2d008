"""Looking into waiting rooms: a department's queue as it stands, and all departments at a glance."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from psycopg.rows import class_row

from contracts.ids import Department
from contracts.model import Model
from gateway.asking import Asking, Questions, Reading, one
from gateway.callers import READERS
from projections import waiting_room

_AT_A_GLANCE: Final = """
SELECT coalesce(entry.department, known.department) AS department, known.display,
    count(*) FILTER (WHERE entry.status = 'waiting') AS waiting,
    count(*) FILTER (WHERE entry.status = 'called') AS called,
    count(*) FILTER (WHERE entry.status = 'in-service') AS in_service,
    count(*) FILTER (WHERE entry.status = 'no-show') AS no_show,
    count(*) FILTER (WHERE entry.status = 'done') AS done,
    coalesce(extract(epoch FROM %(at)s - min(entry.arrived_at) FILTER (WHERE entry.status = 'waiting')), 0)::float8
        AS longest_wait_seconds
FROM (SELECT * FROM read_waiting_room WHERE unit_id = %(unit_id)s AND service_day = %(day)s) AS entry
FULL JOIN (SELECT * FROM read_departments WHERE unit_id = %(unit_id)s) AS known USING (department)
GROUP BY 1, 2 ORDER BY 1
"""


class DepartmentAtAGlance(Model):
    """How it is in one department today."""

    department: str
    display: str | None
    """Null where the unit has not defined the department."""
    waiting: int
    called: int
    in_service: int
    no_show: int
    done: int
    longest_wait_seconds: float


class Departments(Model):
    """All departments of a unit today: those it has defined and those somebody has come to."""

    unit_id: str
    service_day: date
    at: datetime
    departments: list[DepartmentAtAGlance]


def router(questions: Questions) -> APIRouter:
    """Routes over the queues."""
    routes = APIRouter(route_class=Reading, tags=["queues"])
    reader = Depends(questions.by(READERS))

    @routes.get("/api/queues", responses={200: {"model": Departments}})
    async def list_queues(asking: Asking = reader) -> Response:
        """A unit's departments with how many wait, and how long."""
        unit_id, now = asking.one_unit(), datetime.now(UTC)
        async with asking.connection() as connection:
            day = await waiting_room.today(connection, unit_id, now)
            async with connection.cursor(row_factory=class_row(DepartmentAtAGlance)) as rows:
                await rows.execute(_AT_A_GLANCE, {"unit_id": unit_id, "day": day, "at": now})
                found = await rows.fetchall()
        return one(Departments(unit_id=unit_id, service_day=day, at=now, departments=found), "unit")

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
