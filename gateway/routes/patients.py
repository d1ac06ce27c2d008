"""Looking patients up: one record, pages of them, a search."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from contracts.identity import ADMINS
from contracts.model import Model
from gateway.asking import CURSOR, LIMIT, TOTAL, Asking, PageOf, Questions, Reading, many, one
from gateway.callers import READERS
from gateway.problems import invalid_field
from infra.erasure.report import ErasureReport, report_of
from projections import encounters, patient_search, patients

PatientStatus = Literal["active", "inactive", "deceased"]


class PatientSearch(Model):
    """What `GET /api/patients` takes, in a body: for callers who keep names out of URLs."""

    search: str | None = Field(None, max_length=100, examples=["exam"])
    status: PatientStatus | None = Field(None, examples=["active"])
    cursor: str | None = Field(None, max_length=400)
    limit: int = Field(50, ge=1, le=200, examples=[20])
    total: bool = Field(False, examples=[False])


def router(questions: Questions) -> APIRouter:
    """Routes over the patients and their visits."""
    routes = APIRouter(route_class=Reading, tags=["patients"])
    reader, admin = Depends(questions.by(READERS)), Depends(questions.by(ADMINS))

    @routes.get("/api/patients", responses={200: {"model": PageOf[patients.Patient]}})
    async def list_patients(
        asking: Asking = reader,
        search: str | None = Query(
            None, max_length=100, description="Beginning of a name, an MRN, or a date of birth."
        ),
        status: PatientStatus | None = None,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
        total: bool = TOTAL,
    ) -> Response:
        """Patients by name; `search` narrows. To keep names out of URLs, use `POST /api/patients/search`."""
        return await _page(asking, PatientSearch(search=search, status=status, cursor=cursor, limit=limit, total=total))

    @routes.post("/api/patients/search", responses={200: {"model": PageOf[patients.Patient]}})
    async def search_patients(wanted: PatientSearch, asking: Asking = reader) -> Response:
        """Patients by name, as `GET /api/patients`, with nothing of a person in the URL."""
        return await _page(asking, wanted)

    @routes.get("/api/patients/{patient_id}", responses={200: {"model": patients.Patient}})
    async def show_patient(patient_id: UUID, asking: Asking = reader) -> Response:
        """One record; `ETag` carries its version for `If-Match`."""
        async with asking.connection() as connection:
            found = await patients.by_id(connection, patient_id)
        return one(found, "patient", version=found.version if found else None)

    @routes.get("/api/patients/{patient_id}/encounters", responses={200: {"model": PageOf[encounters.Encounter]}})
    async def visits_of_patient(
        patient_id: UUID, asking: Asking = reader, cursor: str | None = CURSOR, limit: int = LIMIT
    ) -> Response:
        """A patient's visits, the newest first."""
        async with asking.connection() as connection:
            if await patients.by_id(connection, patient_id) is None:
                return one(None, "patient")
            return many(await encounters.of_patient(connection, patient_id, cursor=cursor, limit=limit))

    @routes.get("/api/patients/{patient_id}/erasure", responses={200: {"model": ErasureReport}})
    async def erasure_of_patient(patient_id: UUID, asking: Asking = admin) -> Response:
        """What was purged of an erased patient, place by place; signed once it is complete."""
        async with asking.connection() as connection:
            found = await report_of(connection, patient_id)
        if found is not None and found.status == "complete" and questions.signing is not None:
            found = found.signed(questions.signing)
        return one(found, "erasure")

    return routes


async def _page(asking: Asking, wanted: PatientSearch) -> Response:
    if wanted.search and "\x00" in wanted.search:
        raise invalid_field("search", "must be text")
    async with asking.connection() as connection:
        return many(await patient_search.page(connection, unit_id=asking.unit, **dict(wanted)))
