"""Commands to units: what each unit was asked to do, by when, and what became of it.

`history` holds what the log can witness, in its order. That a unit has received a command is not a fact of the log but
of its link: `unit_command_deliveries`, or `unit_sessions.acked_position` at or beyond the position it was queued at.
Whoever asks joins the two (`gateway.routes.commands`).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    Select,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Model
from contracts.patient import PatientErased
from contracts.unit_command import (
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandSuperseded,
)
from projections.questions import Connection, Page, Question, page_of, position_before
from projections.read_model import Facts, Json, ReadModel, added, changed, metadata

unit_commands = Table(
    "read_unit_commands",
    metadata,
    Column("unit_command_id", Uuid, primary_key=True),
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("patient_id", Uuid),
    Column("deadline", TIMESTAMP(timezone=True), nullable=False),
    Column("on_reconnect", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("code", Text),
    Column("result", JSONB),
    Column("late_report", Text),
    Column("erased", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("queued_position", BigInteger, nullable=False),
    Column("queued_at", TIMESTAMP(timezone=True), nullable=False),
    Column("settled_at", TIMESTAMP(timezone=True)),
    Column("attempt", Integer, nullable=False),
    Column("supersede_key", Text),
    Column("superseded_by", Uuid),
    Column("history", JSONB, nullable=False),
)

model = ReadModel("unit_commands", (unit_commands,), key="unit_command_id")


@model.on(UnitCommandQueued)
def is_asked(facts: Facts) -> UpdateBase:
    """A new line in the unit's mailbox; what exactly is asked stays in the log."""
    return added(
        unit_commands,
        unit_command_id=facts.unit_command_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        type=facts.type,
        patient_id=facts.patient_id,
        deadline=facts.deadline,
        on_reconnect=facts.on_reconnect,
        status="queued",
        erased=facts.erased,
        version=facts.stream_version,
        queued_position=facts.position,
        queued_at=facts.occurred_at,
        attempt=1,
        supersede_key=facts.supersede_key,
        history=_witnessed(facts, "logged", by="event store", attempt=literal(1)),
    )


@model.on(PatientErased, across="patient_id")
def loses_its_words(facts: Facts) -> UpdateBase:
    """About somebody who was erased: what came of it stays, nothing that the site answered."""
    return changed(
        unit_commands,
        unit_commands.c.patient_id == facts.patient_id,
        unit_commands.c.unit_id == facts.unit_id,
        result=null(),
        erased=true(),
    )


@model.on(UnitCommandApplied)
def was_done(facts: Facts) -> UpdateBase:
    """Done; told too late, it is noted beside the status that was final already."""
    return _reported(facts, "applied", result=facts.result)


@model.on(UnitCommandRejected)
def was_not_done(facts: Facts) -> UpdateBase:
    """Not done, and why; told too late, it is noted beside the status that was final already."""
    return _reported(facts, "rejected", result=facts.result, code=facts.code)


@model.on(UnitCommandExpired)
def nobody_answered(facts: Facts) -> UpdateBase:
    """The deadline has passed."""
    return _ended(facts, "expired", by="deadline")


@model.on(UnitCommandCancelled)
def was_called_off(facts: Facts) -> UpdateBase:
    """Nobody wants it any more."""
    return _ended(facts, "cancelled", by="caller")


@model.on(UnitCommandSuperseded)
def was_overtaken(facts: Facts) -> UpdateBase:
    """A newer command with the same key took its place."""
    return _ended(facts, "superseded", by="newer command", superseded_by=facts.by)


@model.on(UnitCommandRetried)
def is_asked_again(facts: Facts) -> UpdateBase:
    """Open once more, until another deadline; how the attempt before ended stays in the history."""
    return _command(
        facts,
        status="queued",
        attempt=facts.attempt,
        deadline=facts.deadline,
        code=null(),
        result=null(),
        late_report=null(),
        settled_at=null(),
        history=unit_commands.c.history.concat(_witnessed(facts, "logged", by="event store", attempt=facts.attempt)),
    )


def _ended(facts: Facts, status: str, *, by: str, **values: ColumnElement[Any]) -> UpdateBase:  # Any: a column's type
    return _command(
        facts,
        status=status,
        settled_at=facts.occurred_at,
        history=unit_commands.c.history.concat(_witnessed(facts, status, by=by)),
        **values,
    )


def _witnessed(
    facts: Facts, state: str, *, by: str, attempt: ColumnElement[Any] | None = None, **more: ColumnElement[Any]
) -> ColumnElement[Any]:  # Any: JSON
    """A list of one: what the log says of a unit command, where, and on whose word."""
    said: dict[str, ColumnElement[Any]] = {
        "state": literal(state, Text),
        "at": facts.recorded_at,
        "by": literal(by, Text),
        "position": facts.position,
        "attempt": unit_commands.c.attempt if attempt is None else attempt,
        **more,
    }
    pairs = [part for name, value in said.items() for part in (literal(name, Text), value)]
    return func.jsonb_build_array(func.jsonb_strip_nulls(func.jsonb_build_object(*pairs)), type_=JSONB)


def _command(facts: Facts, **values: object) -> UpdateBase:
    return changed(
        unit_commands,
        unit_commands.c.unit_command_id == facts.unit_command_id,
        unit_commands.c.unit_id == facts.unit_id,
        **values,
        version=facts.stream_version,
    )


def _reported(facts: Facts, what: str, **values: ColumnElement[Any]) -> UpdateBase:  # Any: JSON and text
    # An event leaves out what is unset, so `late` is absent from JSON of an older minor version: absent means in time.
    late = func.coalesce(facts.late, False)
    told = _witnessed(facts, what, by="unit", late=case((late, late)), code=values.get("code", null()))
    return _command(
        facts,
        status=case((late, unit_commands.c.status), else_=what),
        settled_at=case((late, unit_commands.c.settled_at), else_=facts.occurred_at),
        late_report=case((late, what)),
        history=unit_commands.c.history.concat(told),
        **values,
    )


class UnitCommand(Model):
    """A command to a unit as readers see it."""

    id: UUID
    unit_id: str
    type: str
    patient_id: UUID | None
    deadline: AwareDatetime
    on_reconnect: str
    status: str
    """queued, applied, rejected, expired, cancelled or superseded."""
    code: str | None
    """Why the unit rejected it."""
    result: Json | None
    late_report: str | None
    """applied or rejected, when the unit told only after the command had expired, been cancelled or superseded."""
    erased: bool
    version: int
    queued_position: int
    """The unit has received it once its acknowledged position is at or beyond this one."""
    queued_at: AwareDatetime
    settled_at: AwareDatetime | None
    attempt: int
    """2 and more once it was tried again."""
    supersede_key: str | None
    superseded_by: UUID | None
    """The newer command that took its place."""


class UnitCommandWithHistory(UnitCommand):
    """A command to a unit, and all that the log can witness of it, in the log's order."""

    history: list[Json]
    """`{state, at, by, position, attempt, late?, code?}` each."""


def _selected(model: type[UnitCommand]) -> Select[Any]:  # Any: rows become the model
    own = (unit_commands.c[name] for name in model.model_fields if name != "id")
    return select(unit_commands.c.unit_command_id.label("id"), *own)


_ONE = Question(
    _selected(UnitCommandWithHistory).where(unit_commands.c.unit_command_id == bindparam("unit_command_id")),
    UnitCommandWithHistory,
)
_OF_UNIT = Question(
    _selected(UnitCommand)
    .where(
        unit_commands.c.unit_id == bindparam("unit_id"),
        unit_commands.c.queued_position < bindparam("before"),
        (bindparam("status", type_=Text).is_(None)) | (unit_commands.c.status == bindparam("status", type_=Text)),
    )
    .order_by(unit_commands.c.queued_position.desc())
    .limit(bindparam("limit")),
    UnitCommand,
)


async def by_id(connection: Connection, unit_command_id: UUID) -> UnitCommandWithHistory | None:
    """The command, or None when there is none or it is not visible."""
    return await _ONE.first(connection, unit_command_id=unit_command_id)


async def of_unit(
    connection: Connection,
    unit_id: str,
    *,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[UnitCommand]:
    """What the unit was asked to do, the newest first. Raises `CursorNotValid`."""
    about = {"unit_id": unit_id, "status": status, "before": position_before(cursor)}
    found = await _OF_UNIT.all(connection, **about, limit=limit + 1)
    return page_of(found, limit, lambda last: last.queued_position)
