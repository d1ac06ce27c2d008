"""Tasks: what somebody at a unit is to do, by whom, and how far it is."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Integer,
    Select,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Model
from contracts.patient import PatientErased
from contracts.task import (
    Cause,
    TaskAccepted,
    TaskAssigned,
    TaskCancelled,
    TaskClaimed,
    TaskCompleted,
    TaskCreated,
    TaskEnteredInError,
    TaskFailed,
    TaskHeld,
    TaskOverdue,
    TaskRejected,
    TaskResumed,
    TaskStarted,
)
from projections.questions import Connection, Page, Question, page_of, position_before
from projections.read_model import Facts, ReadModel, added, changed, metadata

tasks = Table(
    "read_tasks",
    metadata,
    Column("task_id", Uuid, primary_key=True),
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("created_position", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("title", Text),
    Column("description", Text),
    Column("patient_id", Uuid),
    Column("encounter_id", Uuid),
    Column("department", Text),
    Column("priority", Text, nullable=False),
    Column("assignee", Text),
    Column("due_at", TIMESTAMP(timezone=True)),
    Column("overdue", Boolean, nullable=False),
    Column("business_status", Text),
    Column("cause", JSONB),
    Column("outcome", Text),
    Column("last_words", Text),
    Column("erased", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("ended_at", TIMESTAMP(timezone=True)),
)

model = ReadModel("tasks", (tasks,), key="task_id")


@model.on(TaskCreated)
def is_to_be_done(facts: Facts) -> UpdateBase:
    """A new task; its words stay empty when the person has been erased."""
    return added(
        tasks,
        task_id=facts.task_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        created_position=facts.position,
        kind=facts.kind,
        status=facts.status,
        open=True,
        title=facts.title,
        description=facts.description,
        patient_id=facts.patient_id,
        encounter_id=facts.encounter_id,
        department=facts.department,
        priority=facts.priority,
        assignee=facts.assignee,
        due_at=facts.due_at,
        overdue=False,
        business_status=facts.business_status,
        cause=facts.cause,
        erased=facts.erased,
        version=facts.stream_version,
        created_at=facts.recorded_at,
    )


@model.on(TaskAssigned)
def is_on_a_list(facts: Facts) -> UpdateBase:
    """On somebody's list, from the beginning."""
    return _task(facts, status="received", assignee=facts.assignee, started_at=null(), business_status=_words(facts))


@model.on(TaskClaimed)
def is_taken(facts: Facts) -> UpdateBase:
    """Somebody has taken it on."""
    return _task(facts, status="accepted", assignee=facts.assignee)


@model.on(TaskAccepted)
def is_accepted(facts: Facts) -> UpdateBase:
    """Yes."""
    return _task(facts, status="accepted")


@model.on(TaskRejected)
def is_rejected(facts: Facts) -> UpdateBase:
    """No; on nobody's list."""
    return _task(facts, status="rejected", assignee=null(), last_words=facts.reason)


@model.on(TaskStarted)
def is_begun(facts: Facts) -> UpdateBase:
    """Somebody is at it."""
    return _task(
        facts,
        status="in-progress",
        started_at=func.coalesce(tasks.c.started_at, facts.occurred_at),
        business_status=_words(facts),
    )


@model.on(TaskHeld)
def is_on_hold(facts: Facts) -> UpdateBase:
    """Not now, and why."""
    return _task(facts, status="on-hold", last_words=facts.reason, business_status=_words(facts))


@model.on(TaskResumed)
def goes_on(facts: Facts) -> UpdateBase:
    """Ready or in progress again."""
    return _task(facts, status=facts.status, business_status=_words(facts))


@model.on(TaskCompleted)
def is_done(facts: Facts) -> UpdateBase:
    """Done, and how it turned out."""
    return _ended(facts, "completed", outcome=facts.outcome, last_words=facts.notes, business_status=_words(facts))


@model.on(TaskFailed)
def could_not_be_done(facts: Facts) -> UpdateBase:
    """Not done, and why."""
    return _ended(facts, "failed", last_words=facts.reason, business_status=_words(facts))


@model.on(TaskCancelled)
def is_called_off(facts: Facts) -> UpdateBase:
    """Nobody needs it any more."""
    return _ended(facts, "cancelled", last_words=facts.reason)


@model.on(TaskEnteredInError)
def was_an_error(facts: Facts) -> UpdateBase:
    """Should never have been there."""
    return _ended(facts, "entered-in-error", last_words=facts.reason)


@model.on(TaskOverdue)
def is_late(facts: Facts) -> UpdateBase:
    """Its time came and it was not done."""
    return _task(facts, overdue=True)


@model.on(PatientErased, across="patient_id")
def loses_its_words(facts: Facts) -> UpdateBase:
    """About somebody who was erased: what was to be done stays, nothing that was said."""
    return changed(
        tasks,
        tasks.c.patient_id == facts.patient_id,
        tasks.c.unit_id == facts.unit_id,
        title=null(),
        description=null(),
        last_words=null(),
        erased=true(),
    )


def _words(facts: Facts) -> Any:  # Any: a text
    return func.coalesce(facts.business_status, tasks.c.business_status)


def _ended(facts: Facts, status: str, **values: object) -> UpdateBase:
    return _task(facts, status=status, open=False, ended_at=facts.occurred_at, **values)


def _task(facts: Facts, **values: object) -> UpdateBase:
    return changed(
        tasks,
        tasks.c.task_id == facts.task_id,
        tasks.c.unit_id == facts.unit_id,
        **values,
        version=facts.stream_version,
    )


class Task(Model):
    """A task as readers see it."""

    id: UUID
    unit_id: str
    kind: str
    status: str
    """FHIR task-status: draft, requested, received, accepted, rejected, ready, in-progress, on-hold, completed, failed,
    cancelled or entered-in-error."""
    open: bool
    title: str | None
    description: str | None
    patient_id: UUID | None
    encounter_id: UUID | None
    department: str | None
    priority: str
    assignee: str | None
    """Account id of whoever has it."""
    due_at: AwareDatetime | None
    overdue: bool
    business_status: str | None
    cause: Cause | None
    """With kind `conflict`: the command made at the unit that was refused."""
    outcome: str | None
    last_words: str | None
    """Notes of its completion, or the reason it was last put off, given back or ended for."""
    erased: bool
    """The person's key is gone: free text is absent for ever."""
    version: int
    """Of the task's stream, for If-Match."""
    created_position: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None


def _selected() -> Select[Any]:  # Any: rows become Task
    own = (tasks.c[name] for name in Task.model_fields if name != "id")
    return select(tasks.c.task_id.label("id"), *own)


def _listed(*which: Any) -> Question[Task]:  # Any: conditions
    is_any = {name: bindparam(name, type_=Text()) for name in ("status", "kind", "department")}
    statement = _selected().where(
        *which,
        tasks.c.created_position < bindparam("before"),
        or_(is_any["status"].is_(None), tasks.c.status == is_any["status"]),
        or_(is_any["kind"].is_(None), tasks.c.kind == is_any["kind"]),
        or_(is_any["department"].is_(None), tasks.c.department == is_any["department"]),
    )
    return Question(statement.order_by(tasks.c.created_position.desc()).limit(bindparam("limit")), Task)


_IN_UNIT = tasks.c.unit_id == bindparam("unit_id")
_ONE = Question(_selected().where(tasks.c.task_id == bindparam("task_id", type_=Uuid)), Task)
_OF_UNIT = _listed(_IN_UNIT)
_OPEN = _listed(_IN_UNIT, tasks.c.open)
_OF_STATUS = _listed(_IN_UNIT, tasks.c.status == bindparam("status", type_=Text()))
_OF_ASSIGNEE = _listed(_IN_UNIT, tasks.c.assignee == bindparam("assignee"))
_OPEN_OF_ASSIGNEE = _listed(_IN_UNIT, tasks.c.assignee == bindparam("assignee"), tasks.c.open)
_OF_PATIENT = _listed(
    tasks.c.patient_id == bindparam("patient_id", type_=Uuid),
    or_(bindparam("assignee", type_=Text()).is_(None), tasks.c.assignee == bindparam("assignee", type_=Text())),
)


async def by_id(connection: Connection, task_id: UUID) -> Task | None:
    """The task, or None when there is none or it is not visible."""
    return await _ONE.first(connection, task_id=task_id)


async def of_unit(
    connection: Connection,
    unit_id: str,
    *,
    only_open: bool = False,
    assignee: str | None = None,
    status: str | None = None,
    kind: str | None = None,
    department: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Task]:
    """A unit's tasks, the newest first. Raises `CursorNotValid`."""
    about: dict[str, object] = {"unit_id": unit_id, "status": status, "kind": kind, "department": department}
    if assignee is not None:
        question = _OPEN_OF_ASSIGNEE if only_open else _OF_ASSIGNEE
        about["assignee"] = assignee
    elif status is not None and not only_open:
        question = _OF_STATUS
    else:
        question = _OPEN if only_open else _OF_UNIT
    found = await question.all(connection, **about, before=position_before(cursor), limit=limit + 1)
    return page_of(found, limit, lambda last: last.created_position)


async def of_patient(
    connection: Connection,
    patient_id: UUID,
    *,
    assignee: str | None = None,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Task]:
    """Tasks about a patient, the newest first; `assignee`: only those on this list. Raises `CursorNotValid`."""
    found = await _OF_PATIENT.all(
        connection,
        patient_id=patient_id,
        assignee=assignee,
        status=status,
        kind=None,
        department=None,
        before=position_before(cursor),
        limit=limit + 1,
    )
    return page_of(found, limit, lambda last: last.created_position)
