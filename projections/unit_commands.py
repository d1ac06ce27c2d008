"""Commands to units: what each unit was asked to do, by when, and what became of it.

That a unit has received a command is not a fact of the log but of its link: `unit_sessions.acked_position` at or beyond
`queued_position`. Whoever asks joins the two.
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
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Model
from contracts.unit_command import (
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
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
    return _command(facts, status="expired", settled_at=facts.occurred_at)


@model.on(UnitCommandCancelled)
def was_called_off(facts: Facts) -> UpdateBase:
    """Nobody wants it any more."""
    return _command(facts, status="cancelled", settled_at=facts.occurred_at)


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
    return _command(
        facts,
        status=case((late, unit_commands.c.status), else_=what),
        settled_at=case((late, unit_commands.c.settled_at), else_=facts.occurred_at),
        late_report=case((late, what)),
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
    """queued, applied, rejected, expired or cancelled."""
    code: str | None
    """Why the unit rejected it."""
    result: Json | None
    late_report: str | None
    """applied or rejected, when the unit told only after the command had expired or been cancelled."""
    erased: bool
    version: int
    queued_position: int
    """The unit has received it once its acknowledged position is at or beyond this one."""
    queued_at: AwareDatetime
    settled_at: AwareDatetime | None


def _selected() -> Select[Any]:  # Any: rows become UnitCommand
    own = (unit_commands.c[name] for name in UnitCommand.model_fields if name != "id")
    return select(unit_commands.c.unit_command_id.label("id"), *own)


_ONE = Question(_selected().where(unit_commands.c.unit_command_id == bindparam("unit_command_id")), UnitCommand)
_OF_UNIT = Question(
    _selected()
    .where(
        unit_commands.c.unit_id == bindparam("unit_id"),
        unit_commands.c.queued_position < bindparam("before"),
        (bindparam("status", type_=Text).is_(None)) | (unit_commands.c.status == bindparam("status", type_=Text)),
    )
    .order_by(unit_commands.c.queued_position.desc())
    .limit(bindparam("limit")),
    UnitCommand,
)


async def by_id(connection: Connection, unit_command_id: UUID) -> UnitCommand | None:
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
