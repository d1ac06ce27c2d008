"""Looking accounts up: where they stand and which roles they have. Whose they are is not known to the read side."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from contracts.staff import MANAGERS
from gateway.asking import CURSOR, LIMIT, Asking, PageOf, Questions, Reading, many, one
from projections import staff


def router(questions: Questions) -> APIRouter:
    """Routes over staff."""
    routes = APIRouter(route_class=Reading, tags=["staff"])
    manager = Depends(questions.by(MANAGERS))

    @routes.get("/api/staff", responses={200: {"model": PageOf[staff.StaffAccount]}})
    async def list_staff(asking: Asking = manager, cursor: str | None = CURSOR, limit: int = LIMIT) -> Response:
        """A unit's accounts and open invitations, by id."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            page = await staff.of_unit(connection, unit_id, at=datetime.now(UTC), cursor=cursor, limit=limit)
        return many(page)

    @routes.get("/api/staff/{account_id}", responses={200: {"model": staff.StaffAccount}})
    async def show_staff(account_id: UUID, asking: Asking = manager) -> Response:
        """One account."""
        async with asking.connection() as connection:
            return one(await staff.by_id(connection, account_id, at=datetime.now(UTC)), "account")

    return routes
