"""Encounters: every visit, where it stands, and which of them are open."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    Boolean,
    Column,
    Integer,
    Select,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    null,
    select,
    true,
)
from sqlalchemy.sql.dml import UpdateBase

from contracts.encounter import (
    ConsultationStarted,
    LocationAssigned,
    MovedToDepartment,
    PatientArrived,
    PatientDischarged,
    PatientTriaged,
    VisitCancelled,
)
from contracts.model import Model
from contracts.patient import PatientErased
from projections.questions import Connection, CursorNotValid, Page, Question, cursor_parts, page_of
from projections.read_model import Facts, ReadModel, added, changed, metadata

encounters = Table(
    "read_encounters",
    metadata,
    Column("encounter_id", Uuid, primary_key=True),
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("queue_entry_id", Uuid, nullable=False),
    Column("department", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("encounter_class", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("practitioner_id", Text),
    Column("reason", Text),
    Column("acuity", Integer),
    Column("triage_note", Text),
    Column("room", Text),
    Column("closing_note", Text),
    Column("erased", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("arrived_at", TIMESTAMP(timezone=True), nullable=False),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("ended_at", TIMESTAMP(timezone=True)),
)

model = ReadModel("encounters", (encounters,), key="encounter_id")


@model.on(PatientArrived)
def opens_a_visit(facts: Facts) -> UpdateBase:
    """A new visit; its reason stays empty when the person has been erased."""
    return added(
        encounters,
        encounter_id=facts.encounter_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        patient_id=facts.patient_id,
        queue_entry_id=facts.queue_entry_id,
        department=facts.department,
        priority=facts.priority,
        encounter_class=facts.encounter_class,
        status="arrived",
        open=True,
        practitioner_id=facts.practitioner_id,
        reason=facts.reason,
        erased=facts.erased,
        version=facts.stream_version,
        arrived_at=facts.occurred_at,
    )


@model.on(PatientTriaged)
def is_triaged(facts: Facts) -> UpdateBase:
    """Acuity is known; a consultation that has begun stays begun."""
    before = encounters.c.status
    return _visit(
        facts,
        status=case((before == "arrived", "triaged"), else_=before),
        acuity=facts.acuity,
        triage_note=facts.note,
    )


@model.on(LocationAssigned)
def is_given_a_room(facts: Facts) -> UpdateBase:
    """The room the patient is in."""
    return _visit(facts, room=facts.room)


@model.on(ConsultationStarted)
def consultation_begins(facts: Facts) -> UpdateBase:
    """A clinician sees the patient."""
    return _visit(facts, status="in-progress", started_at=facts.occurred_at)


@model.on(MovedToDepartment)
def goes_on_elsewhere(facts: Facts) -> UpdateBase:
    """Another department, another place in a queue."""
    return _visit(facts, department=facts.department, queue_entry_id=facts.queue_entry_id)


@model.on(PatientDischarged)
def is_over(facts: Facts) -> UpdateBase:
    """The visit is finished."""
    return _visit(facts, status="finished", open=False, closing_note=facts.note, ended_at=facts.occurred_at)


@model.on(VisitCancelled)
def does_not_take_place(facts: Facts) -> UpdateBase:
    """The visit is cancelled."""
    return _visit(facts, status="cancelled", open=False, closing_note=facts.reason, ended_at=facts.occurred_at)


@model.on(PatientErased, across="patient_id")
def loses_its_words(facts: Facts) -> UpdateBase:
    """The visit of somebody who was erased: its times stay."""
    return changed(
        encounters,
        encounters.c.patient_id == facts.patient_id,
        encounters.c.unit_id == facts.unit_id,
        reason=null(),
        triage_note=null(),
        closing_note=null(),
        erased=true(),
    )


def _visit(facts: Facts, **values: object) -> UpdateBase:
    return changed(
        encounters,
        encounters.c.encounter_id == facts.encounter_id,
        encounters.c.unit_id == facts.unit_id,
        **values,
        version=facts.stream_version,
    )


class Encounter(Model):
    """A visit as readers see it."""

    id: UUID
    unit_id: str
    patient_id: UUID
    queue_entry_id: UUID
    department: str
    priority: str
    encounter_class: str
    status: str
    """arrived, triaged, in-progress, finished or cancelled."""
    open: bool
    practitioner_id: str | None
    reason: str | None
    acuity: int | None
    triage_note: str | None
    room: str | None
    closing_note: str | None
    erased: bool
    """The patient's key is gone: free text is absent for ever."""
    version: int
    """Of the encounter's stream, for If-Match."""
    arrived_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None


def _selected() -> Select[Any]:  # Any: rows become Encounter
    own = (encounters.c[name] for name in Encounter.model_fields if name != "id")
    return select(encounters.c.encounter_id.label("id"), *own)


def _newest_first(statement: Select[Any]) -> Select[Any]:  # Any: rows become Encounter
    return (
        statement.where(encounters.c.encounter_id < bindparam("before", type_=Uuid))
        .order_by(encounters.c.encounter_id.desc())
        .limit(bindparam("limit"))
    )


_ONE = Question(_selected().where(encounters.c.encounter_id == bindparam("encounter_id")), Encounter)
_OF_PATIENT = Question(
    _newest_first(_selected().where(encounters.c.patient_id == bindparam("patient_id", type_=Uuid))), Encounter
)
_OPEN = Question(
    _newest_first(
        _selected().where(
            encounters.c.open,
            encounters.c.unit_id == bindparam("unit_id"),
            (bindparam("department", type_=Text).is_(None))
            | (encounters.c.department == bindparam("department", type_=Text)),
        )
    ),
    Encounter,
)
_FROM_THE_NEWEST = UUID(int=(1 << 128) - 1)


async def by_id(connection: Connection, encounter_id: UUID) -> Encounter | None:
    """The visit, or None when there is none or it is not visible."""
    return await _ONE.first(connection, encounter_id=encounter_id)


async def of_patient(
    connection: Connection, patient_id: UUID, *, cursor: str | None = None, limit: int = 50
) -> Page[Encounter]:
    """All visits of a patient, the newest first. Raises `CursorNotValid`."""
    found = await _OF_PATIENT.all(connection, patient_id=patient_id, before=_before(cursor), limit=limit + 1)
    return page_of(found, limit, lambda last: last.id)


async def open_ones(
    connection: Connection,
    unit_id: str,
    *,
    department: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Encounter]:
    """Visits of the unit that are neither finished nor cancelled, the newest first. Raises `CursorNotValid`."""
    about = {"unit_id": unit_id, "department": department, "before": _before(cursor)}
    found = await _OPEN.all(connection, **about, limit=limit + 1)
    return page_of(found, limit, lambda last: last.id)


def _before(cursor: str | None) -> UUID:
    if cursor is None:
        return _FROM_THE_NEWEST
    try:
        return UUID(cursor_parts(cursor, 1)[0])
    except ValueError as why:
        raise CursorNotValid("not a cursor of this list") from why
