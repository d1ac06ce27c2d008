"""Receipts: how each command ended. The handlers write them; here are the questions.

The one read model without facts of its own: a receipt is written in the transaction that decides.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    Uuid,
    bindparam,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from contracts.envelope import Outcome, Status
from contracts.identity import Actor
from contracts.model import Model
from projections.questions import Connection, CursorNotValid, Page, Question, cursor_parts, page_of
from projections.read_model import Json

receipts = Table(
    "command_receipts",
    MetaData(),  # not one of ours: `projections.read_model.metadata` is what a rebuild may empty
    Column("command_id", Uuid, primary_key=True),
    Column("unit_id", Text),
    Column("partition", Integer),
    Column("type", Text),
    Column("status", Text),
    Column("code", Text),
    Column("detail", Text),
    Column("about", JSONB),
    Column("result", JSONB),
    Column("position", BigInteger),
    Column("request_hash", Text),
    Column("actor", JSONB),
    Column("causation_id", Uuid),
    Column("dead_letter_id", Uuid),
    Column("issued_at", TIMESTAMP(timezone=True)),
    Column("recorded_at", TIMESTAMP(timezone=True)),
)


class Receipt(Model):
    """How a command ended, and who asked."""

    command_id: UUID
    unit_id: str
    partition: int
    type: str
    status: Status
    code: str | None
    detail: str | None
    about: dict[str, str] | None
    result: Json | None
    position: int | None
    request_hash: str
    actor: Actor
    causation_id: UUID | None
    dead_letter_id: UUID | None
    issued_at: AwareDatetime
    recorded_at: AwareDatetime

    @property
    def outcome(self) -> Outcome:
        """What the caller is told."""
        known = Outcome.model_fields.keys() & Receipt.model_fields.keys()
        return Outcome.model_validate({name: getattr(self, name) for name in known})


def _selected() -> Select[Any]:  # Any: rows become Receipt
    return select(*(receipts.c[name] for name in Receipt.model_fields))


_ONE = Question(_selected().where(receipts.c.command_id == bindparam("command_id")), Receipt)

_REFUSED = _selected().where(receipts.c.status == Status.REFUSED.value)
_OF_UNIT = receipts.c.unit_id == bindparam("unit_id", type_=Text)
_OLDER = tuple_(receipts.c.recorded_at, receipts.c.command_id) < tuple_(
    select(receipts.c.recorded_at).where(receipts.c.command_id == bindparam("before", type_=Uuid)).scalar_subquery(),
    bindparam("before", type_=Uuid),
)


def _latest(statement: Select[Any]) -> Question[Receipt]:  # Any: rows become Receipt
    newest_first = statement.order_by(receipts.c.recorded_at.desc(), receipts.c.command_id.desc())
    return Question(newest_first.limit(bindparam("limit")), Receipt)


_REFUSALS = {
    (in_unit, resumed): _latest(_REFUSED.where(*[_OF_UNIT] * in_unit, *[_OLDER] * resumed))
    for in_unit in (False, True)
    for resumed in (False, True)
}


async def by_id(connection: Connection, command_id: UUID) -> Receipt | None:
    """The receipt, or None: not settled yet, never issued, or not visible."""
    return await _ONE.first(connection, command_id=command_id)


async def refusals(
    connection: Connection, *, unit_id: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[Receipt]:
    """Commands a rule said no to, the latest first; of one unit, or of all visible ones. Raises `CursorNotValid`."""
    about: dict[str, object] = {}
    if unit_id is not None:
        about["unit_id"] = unit_id
    if cursor is not None:
        try:
            about["before"] = UUID(cursor_parts(cursor, 1)[0])
        except ValueError as why:
            raise CursorNotValid("not a cursor of this list") from why
    found = await _REFUSALS[unit_id is not None, cursor is not None].all(connection, **about, limit=limit + 1)
    return page_of(found, limit, lambda last: last.command_id)
