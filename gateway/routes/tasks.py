"""Looking tasks up: a unit's, somebody's, those about a patient.

Doctors, nurses and administrators see all of their unit's; people of the serving departments see what is on their own
list, and of everything else not even that it exists.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from contracts.identity import SERVING
from contracts.ids import Department
from contracts.task import DOERS, Account, Code, TaskStatus
from gateway.asking import CURSOR, LIMIT, Asking, PageOf, Questions, Reading, many, one
from projections import patients, tasks

Named = Annotated[Account | None, Query(description="Only those on this account's list.")]


def router(questions: Questions) -> APIRouter:
    """Routes over tasks."""
    routes = APIRouter(route_class=Reading, tags=["tasks"])
    reader = Depends(questions.by(DOERS))

    @routes.get("/api/tasks", responses={200: {"model": PageOf[tasks.Task]}})
    async def list_tasks(
        asking: Asking = reader,
        status: TaskStatus | None = None,
        open: bool = Query(False, description="Only those that have not come to their end."),  # noqa: A002 - the parameter's name in the URL
        assignee: Named = None,
        kind: Code | None = None,
        department: Department | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """A unit's tasks, the newest first; people of the serving departments see their own."""
        unit_id = asking.one_unit()
        async with asking.connection() as connection:
            page = await tasks.of_unit(
                connection,
                unit_id,
                only_open=open,
                assignee=_own(asking) or assignee,
                status=status,
                kind=kind,
                department=department,
                cursor=cursor,
                limit=limit,
            )
        return many(page)

    @routes.get("/api/tasks/{task_id}", responses={200: {"model": tasks.Task}})
    async def show_task(task_id: UUID, asking: Asking = reader) -> Response:
        """One task; `ETag` carries its version for `If-Match`."""
        async with asking.connection() as connection:
            found = await tasks.by_id(connection, task_id)
        if found is not None and _own(asking) not in (None, found.assignee):
            found = None
        return one(found, "task", version=found.version if found else None)

    @routes.get("/api/patients/{patient_id}/tasks", responses={200: {"model": PageOf[tasks.Task]}})
    async def tasks_of_patient(
        patient_id: UUID,
        asking: Asking = reader,
        status: TaskStatus | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """Tasks about a patient, the newest first."""
        async with asking.connection() as connection:
            if await patients.by_id(connection, patient_id) is None:
                return one(None, "patient")
            page = await tasks.of_patient(
                connection, patient_id, assignee=_own(asking), status=status, cursor=cursor, limit=limit
            )
        return many(page)

    return routes


def _own(asking: Asking) -> str | None:
    """The account whose list is all that this caller may see; None: everybody's."""
    return asking.actor.subject if asking.actor.role in SERVING else None
