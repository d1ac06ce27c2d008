"""Units and their departments: who belongs to the network, what each decides for itself, and whether it is served."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    Select,
    Table,
    Text,
    Update,
    bindparam,
    false,
    func,
    null,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Model
from contracts.unit import DepartmentAdded, UnitConfigured, UnitRegistered, UnitResumed, UnitRetired, UnitSuspended
from contracts.unit_credential import EnrolmentCodeIssued, UnitCredentialRevoked, UnitEnrolled, UnitKeyRotated
from contracts.unit_presence import UnitBack, UnitUnreachable
from projections.names import fold
from projections.questions import (
    LAST_CHARACTER,
    Connection,
    CursorNotValid,
    Number,
    Page,
    Question,
    cursor_of,
    cursor_parts,
)
from projections.read_model import Computed, Facts, Json, ReadModel, added, changed, metadata

units = Table(
    "read_units",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source_id", Text),
    Column("address", JSONB),
    Column("settings", JSONB, nullable=False),
    Column("zone", Text, nullable=False),
    Column("ageing_minutes", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_reason", Text),
    Column("reachable", Boolean, nullable=False),
    Column("unreachable_since", TIMESTAMP(timezone=True)),
    Column("version", Integer, nullable=False),
    Column("registered_at", TIMESTAMP(timezone=True), nullable=False),
    Column("updated_at", TIMESTAMP(timezone=True), nullable=False),
)
departments = Table(
    "read_departments",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("department", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("display", Text, nullable=False),
)

model = ReadModel("units", (units, departments), key="unit_id")

NAME_KEY = Computed({"name_key": Text()}, of=lambda payload: {"nameKey": fold(payload["name"])})


@model.on(UnitRegistered, computed=NAME_KEY)
def joins_the_network(facts: Facts) -> UpdateBase:
    """A new line in the list of units."""
    return added(
        units,
        unit_id=facts.unit_id,
        partition=facts.partition,
        name=facts.name,
        name_key=facts.name_key,
        kind=facts.kind,
        source_id=facts.source_id,
        address=facts.address,
        status="active",
        reachable=true(),
        version=facts.stream_version,
        registered_at=facts.occurred_at,
        updated_at=facts.recorded_at,
        **_decided(facts),
    )


@model.on(UnitConfigured)
def decides_for_itself(facts: Facts) -> UpdateBase:
    """The unit's settings as they are now."""
    return _unit(facts, **_decided(facts))


@model.on(UnitSuspended)
def is_held(facts: Facts) -> UpdateBase:
    """Deliveries wait."""
    return _unit(facts, status="suspended", status_reason=facts.reason)


@model.on(UnitResumed)
def goes_on(facts: Facts) -> UpdateBase:
    """Deliveries go on."""
    return _unit(facts, status="active", status_reason=null())


@model.on(UnitRetired)
def leaves(facts: Facts) -> UpdateBase:
    """The line stays, for what happened there."""
    return _unit(facts, status="retired", status_reason=facts.reason)


@model.on(EnrolmentCodeIssued)
@model.on(UnitEnrolled)
@model.on(UnitKeyRotated)
@model.on(UnitCredentialRevoked)
def has_other_credentials(facts: Facts) -> UpdateBase:
    """Another version of the unit; what its keys are is `projections.unit_credentials`'."""
    return _unit(facts)


@model.on(UnitUnreachable)
def cannot_be_reached(facts: Facts) -> UpdateBase:
    """It has had no link for too long."""
    return _unit(facts, reachable=false(), unreachable_since=facts.since)


@model.on(UnitBack)
def is_back(facts: Facts) -> UpdateBase:
    """It has a link again."""
    return _unit(facts, reachable=true(), unreachable_since=null())


@model.on(DepartmentAdded)
def opens_a_department(facts: Facts) -> UpdateBase:
    """One more department, or another name for it."""
    opened = added(
        departments,
        unit_id=facts.unit_id,
        department=facts.department,
        partition=facts.partition,
        display=facts.display,
    )
    renamed = opened.on_conflict_do_update(
        index_elements=[departments.c.unit_id, departments.c.department], set_={"display": opened.excluded.display}
    )
    return renamed.add_cte(_unit(facts).cte("of_the_unit"))


def _unit(facts: Facts, **values: object) -> Update:
    now = {"version": facts.stream_version, "updated_at": facts.recorded_at}
    return changed(units, units.c.unit_id == facts.unit_id, **values, **now)


def _decided(facts: Facts) -> dict[str, ColumnElement[Any]]:  # Any: text, number and JSON
    settings = facts.settings
    return {
        "settings": settings,
        "zone": settings["zone"].as_string(),
        "ageing_minutes": settings["ageingMinutes"].as_integer(),
    }


class Unit(Model):
    """A unit as readers see it."""

    id: str
    name: str
    kind: str
    source_id: str | None
    address: Json | None
    settings: Json
    """zone, currency, mrnPattern, ageingMinutes."""
    status: str
    """active, suspended or retired."""
    status_reason: str | None
    reachable: bool
    """False once it has been without a link for too long (`CARESPINE_UNREACHABLE_SECONDS`)."""
    unreachable_since: AwareDatetime | None
    version: int
    """Of the unit's stream, for If-Match."""
    registered_at: AwareDatetime
    updated_at: AwareDatetime


class DepartmentOfUnit(Model):
    """A department by its code and the name people know it by."""

    department: str
    display: str


def _selected() -> Select[Any]:  # Any: rows become Unit
    own = (units.c[name] for name in Unit.model_fields if name != "id")
    return select(units.c.unit_id.label("id"), *own)


_ONE = Question(_selected().where(units.c.unit_id == bindparam("unit_id")), Unit)

_MATCHING = (
    units.c.name_key >= bindparam("low", type_=Text),
    units.c.name_key < bindparam("high", type_=Text),
    (bindparam("status", type_=Text).is_(None)) | (units.c.status == bindparam("status", type_=Text)),
)
_LIST = Question(
    _selected()
    .where(
        *_MATCHING,
        tuple_(units.c.name_key, units.c.unit_id)
        > tuple_(bindparam("after_name", type_=Text), bindparam("after_id", type_=Text)),
    )
    .order_by(units.c.name_key, units.c.unit_id)
    .limit(bindparam("limit")),
    Unit,
)
_COUNT = Number(select(func.count()).select_from(units).where(*_MATCHING))
_DEPARTMENTS = Question(
    select(departments.c.department, departments.c.display)
    .where(departments.c.unit_id == bindparam("unit_id"))
    .order_by(departments.c.department),
    DepartmentOfUnit,
)


async def by_id(connection: Connection, unit_id: str) -> Unit | None:
    """The unit, or None when it is not registered or not visible."""
    return await _ONE.first(connection, unit_id=unit_id)


async def page(
    connection: Connection,
    *,
    search: str | None = None,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
    total: bool = False,
) -> Page[Unit]:
    """Units by name; `search` is the beginning of a name. Raises `CursorNotValid`."""
    prefix = fold(search or "")
    about = {"low": prefix, "high": prefix + LAST_CHARACTER, "status": status}
    after_name, after_id = "", ""
    if cursor is not None:
        (after_id,) = cursor_parts(cursor, 1)
        after = await _KEY.first(connection, unit_id=after_id)
        if after is None:
            raise CursorNotValid("the unit this cursor stood on is gone")
        after_name = after.name_key
    found = await _LIST.all(connection, **about, after_name=after_name, after_id=after_id, limit=limit + 1)
    items, more = found[:limit], len(found) > limit
    return Page(
        items,
        next_cursor=cursor_of(items[-1].id) if more else None,
        total=await _COUNT.ask(connection, **about) if total else None,
    )


async def count(connection: Connection, *, status: str | None = None) -> int:
    """How many units there are."""
    return await _COUNT.ask(connection, low="", high=LAST_CHARACTER, status=status)


async def departments_of(connection: Connection, unit_id: str) -> list[DepartmentOfUnit]:
    """The unit's departments by code; empty when it has defined none."""
    return await _DEPARTMENTS.all(connection, unit_id=unit_id)


class _Key(Model):
    name_key: str


_KEY = Question(select(units.c.name_key).where(units.c.unit_id == bindparam("unit_id")), _Key)
