"""All departments of a unit at a glance: how many wait in each today, and how long; over the waiting rooms' tables."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from psycopg.rows import class_row

from contracts.model import Model
from projections import waiting_room
from projections.questions import Connection

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


async def at_a_glance(connection: Connection, unit_id: str, *, at: datetime) -> Departments:
    """Every department of the unit on the service day of `at`, by code."""
    day = await waiting_room.today(connection, unit_id, at)
    async with connection.cursor(row_factory=class_row(DepartmentAtAGlance)) as rows:
        await rows.execute(_AT_A_GLANCE, {"unit_id": unit_id, "day": day, "at": at})
        found = await rows.fetchall()
    return Departments(unit_id=unit_id, service_day=day, at=at, departments=found)
