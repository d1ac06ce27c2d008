"""Looking units up: the list, one with its departments, and what is in its mailbox."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from contracts.identity import Role
from gateway.asking import CURSOR, LIMIT, TOTAL, Asking, PageOf, Questions, Reading, many, one
from gateway.callers import NETWORK
from gateway.problems import Problem
from projections import unit_commands, units
from projections.questions import Page

UnitStatus = Literal["active", "suspended", "retired"]
MailboxStatus = Literal["queued", "applied", "rejected", "expired", "cancelled", "superseded"]


class UnitWithDepartments(units.Unit):
    """A unit and where in it patients can go."""

    departments: list[units.DepartmentOfUnit] = Field(description="Empty: any department code is taken.")


def router(questions: Questions) -> APIRouter:
    """Routes over units and their mailboxes."""
    routes = APIRouter(route_class=Reading, tags=["units"])
    anybody = Depends(questions.by(NETWORK))

    @routes.get("/api/units", responses={200: {"model": PageOf[units.Unit]}})
    async def list_units(
        asking: Asking = anybody,
        search: str | None = Query(None, max_length=200, description="Beginning of a unit's name."),
        status: UnitStatus | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
        total: bool = TOTAL,
    ) -> Response:
        """Units by name, as far as the caller may see them."""
        async with asking.connection() as connection:
            return many(
                await units.page(connection, search=search, status=status, cursor=cursor, limit=limit, total=total)
            )

    @routes.get("/api/units/{unit_id}", responses={200: {"model": UnitWithDepartments}})
    async def show_unit(unit_id: str, asking: Asking = anybody) -> Response:
        """One unit with its departments."""
        async with asking.connection() as connection:
            found = await units.by_id(connection, unit_id)
            if found is None:
                raise Problem("not_found", "There is no such unit, or it is not yours.")
            departments = await units.departments_of(connection, unit_id)
        whole = UnitWithDepartments(**dict(found), departments=departments)
        return one(whole, "unit", version=found.version)

    @routes.get("/api/units/{unit_id}/commands", responses={200: {"model": PageOf[unit_commands.UnitCommand]}})
    async def mailbox(
        unit_id: str,
        asking: Asking = anybody,
        status: MailboxStatus | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """What the unit was asked to do, the newest first. Results may tell of a patient: operators do not see them."""
        async with asking.connection() as connection:
            page = await unit_commands.of_unit(connection, unit_id, status=status, cursor=cursor, limit=limit)
        if asking.actor.role is Role.OPS:
            without = [item.model_copy(update={"result": None}) for item in page.items]
            page = Page(without, page.next_cursor, page.total)
        return many(page)

    return routes
