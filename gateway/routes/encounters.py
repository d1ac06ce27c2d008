"""Looking visits up, and the notices that a patient waits."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from contracts.ids import Department
from gateway.asking import CURSOR, LIMIT, Asking, PageOf, Questions, Reading, many, one
from gateway.callers import READERS
from projections import encounters, notifications


def router(questions: Questions) -> APIRouter:
    """Routes over visits and notifications."""
    routes = APIRouter(route_class=Reading, tags=["encounters"])
    reader = Depends(questions.by(READERS))

    @routes.get("/api/encounters", responses={200: {"model": PageOf[encounters.Encounter]}})
    async def open_visits(
        asking: Asking = reader,
        department: Department | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """A unit's open visits, the newest first."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            return many(
                await encounters.open_ones(connection, unit_id, department=department, cursor=cursor, limit=limit)
            )

    @routes.get("/api/encounters/{encounter_id}", responses={200: {"model": encounters.Encounter}})
    async def show_visit(encounter_id: UUID, asking: Asking = reader) -> Response:
        """One visit; `ETag` carries its version for `If-Match`."""
        async with asking.connection() as connection:
            found = await encounters.by_id(connection, encounter_id)
        return one(found, "encounter", version=found.version if found else None)

    @routes.get("/api/notifications", responses={200: {"model": PageOf[notifications.Notification]}})
    async def latest_notifications(
        department: Department,
        asking: Asking = reader,
        practitioner: str | None = Query(None, max_length=100, description="Only those that name this account."),
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """Notices to a department that a patient waits, the newest first."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            return many(
                await notifications.latest(
                    connection, unit_id, department, practitioner_id=practitioner, cursor=cursor, limit=limit
                )
            )

    return routes
