"""Finding patients: pages of a unit's patients, all of them or those that match what was typed.

What was typed decides: `1984-03-07` is a date of birth, an existing medical record number is that record, anything else
is the beginning of a name - last, first, `last first` or `first last`. Matches by last name come first, then those by
first name; each kind in the order of its index, so a page costs the same however many match. Across the network the
order is by unit first. Cursors carry ids only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Date, Select, Text, Uuid, bindparam, func, select, true, tuple_

from contracts.model import Model
from projections.names import fold
from projections.patients import SHOWN, Patient, patients
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
from projections.units import units

Condition = ColumnElement[bool]
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_own = patients.c


@dataclass(frozen=True)
class _Way:
    """One way in which a patient can match, with its statements within a unit and across the network."""

    code: str
    """Stands in cursors."""
    first_in_unit: Question[Patient]
    next_in_unit: Question[Patient]
    first_in_network: Question[Patient]
    next_in_network: Question[Patient]
    in_unit: Number
    in_network: Number

    @classmethod
    def by(cls, code: str, order: Column[str], *matching: Condition) -> _Way:
        network = _unit_by_unit if matching else _straight_through
        return cls(
            code,
            Question(_within_unit(order, matching), Patient),
            Question(_within_unit(order, (*matching, _beyond(order))), Patient),
            Question(network(order, matching), Patient),
            Question(network(order, (*matching, _beyond_unit(order))), Patient),
            Number(select(func.count()).where(*matching, _WANTED, _own.unit_id == bindparam("unit_id"))),
            Number(select(func.count()).select_from(patients).where(*matching, _WANTED)),
        )

    def question(self, *, unit_id: str | None, resumed: bool) -> Question[Patient]:
        if unit_id is None:
            return self.next_in_network if resumed else self.first_in_network
        return self.next_in_unit if resumed else self.first_in_unit


_WANTED = bindparam("status", type_=Text).is_(None) | (_own.status == bindparam("status", type_=Text))


def _beyond(order: Column[str]) -> Condition:
    return tuple_(order, _own.patient_id) > tuple_(
        bindparam("after_key", type_=Text), bindparam("after_id", type_=Uuid)
    )


def _beyond_unit(order: Column[str]) -> Condition:
    return tuple_(_own.unit_id, order, _own.patient_id) > tuple_(
        bindparam("after_unit", type_=Text), bindparam("after_key", type_=Text), bindparam("after_id", type_=Uuid)
    )


def _within_unit(order: Column[str], matching: Sequence[Condition]) -> Select[Any]:  # Any: rows become Patient
    return (
        select(*SHOWN)
        .where(_own.unit_id == bindparam("unit_id"), *matching, _WANTED)
        .order_by(order, _own.patient_id)
        .limit(bindparam("limit"))
    )


def _straight_through(order: Column[str], matching: Sequence[Condition]) -> Select[Any]:  # Any: rows become Patient
    """The whole network in the order of one index."""
    return (
        select(*SHOWN)
        .where(*matching, _WANTED)
        .order_by(_own.unit_id, order, _own.patient_id)
        .limit(bindparam("limit"))
    )


def _unit_by_unit(order: Column[str], matching: Sequence[Condition]) -> Select[Any]:  # Any: rows become Patient
    """Those that match, so that the indexes led by the unit serve the whole network too."""
    there = (
        select(*SHOWN, order.label("ordered_by"))
        .where(_own.unit_id == units.c.unit_id, *matching, _WANTED)
        .order_by(order, _own.patient_id)
        .limit(bindparam("limit"))
        .lateral("there")
    )
    return (
        select(*(there.c[name] for name in Patient.model_fields))
        .select_from(units.join(there, true()))
        .where(units.c.unit_id >= bindparam("after_unit", type_=Text))
        .order_by(units.c.unit_id, there.c.ordered_by, there.c.id)
        .limit(bindparam("limit"))
    )


def _begins(key: Column[str]) -> Condition:
    return (key >= bindparam("low", type_=Text)) & (key < bindparam("high", type_=Text))


_ALL = _Way.by("a", _own.last_first)
_BY_NUMBER = _Way.by("m", _own.last_first, _own.medical_record_number == bindparam("number", type_=Text))
_BY_BIRTH = _Way.by("b", _own.last_first, _own.date_of_birth == bindparam("born", type_=Date))
_BY_LAST_NAME = _Way.by("l", _own.last_first, _begins(_own.last_first))
_BY_FIRST_NAME = _Way.by("f", _own.first_last, _begins(_own.first_last), ~_begins(_own.last_first))
"""Those found by their last name already are left out."""


class _Stand(Model):
    unit_id: str
    last_first: str
    first_last: str


_STAND = Question(
    select(_own.unit_id, _own.last_first, _own.first_last).where(_own.patient_id == bindparam("patient_id")), _Stand
)


async def page(
    connection: Connection,
    *,
    unit_id: str | None,
    search: str | None = None,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
    total: bool = False,
) -> Page[Patient]:
    """Patients of a unit (None: of all visible units), all or those matching `search`, by name.

    `status` keeps only active, inactive or deceased ones. `total` counts exactly, which reads every match. Raises
    `CursorNotValid`.
    """
    about: dict[str, object] = {"unit_id": unit_id, "status": status}
    ways, terms = await _ways(connection, (search or "").strip(), about)
    about |= terms
    place, after = await _resumed(connection, cursor, ways)
    found: list[Patient] = []
    codes: list[str] = []
    for way in ways[place:]:
        resumed = way is ways[place] and cursor is not None
        start = after if resumed else {"after_unit": ""}
        wanted = limit + 1 - len(found)
        more = await way.question(unit_id=unit_id, resumed=resumed).all(connection, **about, **start, limit=wanted)
        found += more
        codes += [way.code] * len(more)
        if len(found) > limit:
            break
    return Page(
        found[:limit],
        next_cursor=cursor_of(codes[limit - 1], found[limit - 1].id) if len(found) > limit else None,
        total=await _total(connection, ways, about) if total else None,
    )


async def _ways(
    connection: Connection, typed: str, about: dict[str, object]
) -> tuple[tuple[_Way, ...], dict[str, object]]:
    """What was typed, understood: the ways to match it and the values they need."""
    if not typed:
        return (_ALL,), {}
    if born := _birth_date(typed):
        return (_BY_BIRTH,), {"born": born}
    with_number = _BY_NUMBER.first_in_network if about["unit_id"] is None else _BY_NUMBER.first_in_unit
    if await with_number.first(connection, **about, number=typed, after_unit="", limit=1):
        return (_BY_NUMBER,), {"number": typed}
    low = fold(typed)
    return (_BY_LAST_NAME, _BY_FIRST_NAME), {"low": low, "high": low + LAST_CHARACTER}


def _birth_date(typed: str) -> date | None:
    if not _DATE.fullmatch(typed):
        return None
    try:
        return date.fromisoformat(typed)
    except ValueError:
        return None


async def _resumed(connection: Connection, cursor: str | None, ways: tuple[_Way, ...]) -> tuple[int, dict[str, object]]:
    """Which way goes on, and after what."""
    if cursor is None:
        return 0, {}
    code, text = cursor_parts(cursor, 2)
    place = next((index for index, way in enumerate(ways) if way.code == code), None)
    try:
        patient_id = UUID(text)
    except ValueError as why:
        raise CursorNotValid("not a cursor of this list") from why
    stand = await _STAND.first(connection, patient_id=patient_id)
    if place is None or stand is None:
        raise CursorNotValid("the cursor belongs to another search, or the patient it stood on is gone")
    key = stand.first_last if code == _BY_FIRST_NAME.code else stand.last_first
    return place, {"after_unit": stand.unit_id, "after_key": key, "after_id": patient_id}


async def _total(connection: Connection, ways: tuple[_Way, ...], about: dict[str, object]) -> int:
    counts = [
        await (way.in_network if about["unit_id"] is None else way.in_unit).ask(connection, **about) for way in ways
    ]
    return sum(counts)
