"""The waiting room: a department's queue as a desk or a board shows it, and who is called next.

The order is the domain's (`command_handlers.domain.queue.order_key`), said once more in SQL: `stat` first; everybody
else rises by one rank per `ageing_minutes` waited, never above `asap`; then the earlier arrival, then the smaller
ticket. What facts make of an entry is `projections.queue_entries`'.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    outerjoin,
    select,
)

from contracts.ids import instant_of, is_timed
from contracts.model import Model
from contracts.queue import (
    ACTIVE,
    RANK,
    EntryStatus,
    PriorityCode,
)
from contracts.unit import UnitSettings
from projections.patients import patients
from projections.questions import Connection, Question
from projections.queue_entries import entries
from projections.units import units


class Entry(Model):
    """A place in a department's queue as readers see it."""

    id: UUID
    patient_id: UUID
    encounter_id: UUID
    ticket: int
    priority: str
    status: str
    """waiting, called, in-service, no-show, done, left or transferred."""
    place: int | None
    """1 is called next; None when not waiting."""
    waited_seconds: float
    """Until the first of: now, the call in force, the end."""
    counter: str | None
    calls: int
    arrived_at: AwareDatetime
    called_at: AwareDatetime | None
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    transferred_from: UUID | None
    transferred_to: UUID | None
    first_name: str | None
    """Names only when they were asked for, and the person has not been erased."""
    last_name: str | None
    medical_record_number: str | None


class Called(Model):
    """What a board may show: a ticket and where to go."""

    ticket: int
    counter: str | None
    called_at: AwareDatetime


class Room(Model):
    """A department's queue on one service day, at one moment."""

    unit_id: str
    department: str
    service_day: date
    at: AwareDatetime
    entries: list[Entry]
    """Those waiting, the next first; then those called, in service, not come; then, if asked for, those gone."""
    counts: dict[str, int]
    """By status, zeros included."""
    longest_wait_seconds: float
    """Of those waiting now; 0 when nobody waits."""
    mean_wait_seconds: float
    now_calling: list[Called]
    """The latest call first."""


class _Tally(Model):
    status: str
    number: int
    longest: float
    mean: float


class _Today(Model):
    service_day: date


_AT = bindparam("at", type_=DateTime(timezone=True))
_UNIT = bindparam("unit_id", type_=Text)
_AGEING = (
    select(func.coalesce(func.max(units.c.ageing_minutes), UnitSettings().ageing_minutes))
    .where(units.c.unit_id == _UNIT)
    .scalar_subquery()
)
_TODAY = Question(
    select(
        func.date(
            func.timezone(
                func.coalesce(select(units.c.zone).where(units.c.unit_id == _UNIT).scalar_subquery(), "UTC"), _AT
            )
        ).label("service_day")
    ),
    _Today,
)


def _seconds(since: ColumnElement[Any], until: ColumnElement[Any]) -> ColumnElement[Any]:  # Any: instants, a number
    return func.greatest(func.extract("epoch", until - since), 0)


def ageing_rank() -> ColumnElement[Any]:  # Any: a whole number
    """The rank an entry has at `at`, ageing included."""
    lifted = func.floor(_seconds(entries.c.arrived_at, _AT) / (_AGEING * 60))
    top = RANK[PriorityCode.ASAP]
    return case((entries.c.rank <= top, entries.c.rank), else_=func.greatest(top, entries.c.rank - lifted))


def turn() -> tuple[ColumnElement[Any], ...]:  # Any: numbers and instants
    """What decides whose turn it is; the smallest is called next."""
    return ageing_rank(), entries.c.arrived_at, entries.c.ticket


_QUEUE = and_(
    entries.c.unit_id == _UNIT,
    entries.c.department == bindparam("department", type_=Text),
    entries.c.service_day == bindparam("service_day", type_=Date),
)
_WAITING = entries.c.status == EntryStatus.WAITING.value
_WAITED = _seconds(
    entries.c.arrived_at,
    func.least(_AT, func.coalesce(entries.c.called_at, _AT), func.coalesce(entries.c.ended_at, _AT)),
)
_PLACE = case((_WAITING, func.row_number().over(partition_by=_WAITING, order_by=turn())))
_STATES = case({status.value: order for order, status in enumerate(EntryStatus)}, value=entries.c.status)


def _listed(*, names: bool, place: ColumnElement[Any]) -> Select[Any]:  # Any: rows become Entry; a number
    shown = {
        "id": entries.c.entry_id,
        "place": place,
        "waited_seconds": _WAITED,
        "first_name": patients.c.first_name if names else null(),
        "last_name": patients.c.last_name if names else null(),
        "medical_record_number": patients.c.medical_record_number if names else null(),
    }
    columns = ((shown[name] if name in shown else entries.c[name]).label(name) for name in Entry.model_fields)
    whose = and_(patients.c.patient_id == entries.c.patient_id, patients.c.unit_id == entries.c.unit_id)
    return select(*columns).select_from(outerjoin(entries, patients, whose) if names else entries).where(_QUEUE)


def _in_order(statement: Select[Any]) -> Select[Any]:  # Any: rows become Entry
    wanted = bindparam("closed", type_=Boolean) | or_(*(entries.c.status == status.value for status in sorted(ACTIVE)))
    return statement.where(wanted).order_by(_STATES, _PLACE, entries.c.ticket).limit(bindparam("limit"))


_ENTRIES = {names: Question(_in_order(_listed(names=names, place=_PLACE)), Entry) for names in (False, True)}
_ENTRY = {
    names: Question(
        _listed(names=names, place=null()).where(entries.c.entry_id == bindparam("entry_id", type_=Uuid)), Entry
    )
    for names in (False, True)
}
_TALLY = Question(
    select(
        entries.c.status,
        func.count().label("number"),
        func.max(_WAITED).label("longest"),
        func.avg(_WAITED).label("mean"),
    )
    .where(_QUEUE)
    .group_by(entries.c.status),
    _Tally,
)


async def today(connection: Connection, unit_id: str, at: datetime) -> date:
    """The unit's own calendar day at `at` (UTC for a unit that is not registered)."""
    answer = await _TODAY.first(connection, unit_id=unit_id, at=at)
    if answer is None:
        raise LookupError("a select without FROM has one row")
    return answer.service_day


async def room(
    connection: Connection,
    unit_id: str,
    department: str,
    *,
    at: datetime,
    service_day: date | None = None,
    names: bool = False,
    closed: bool = False,
    limit: int = 1000,
) -> Room:
    """The department's queue as it stands at `at`; `service_day` None: the unit's today.

    `names` tells who the patients are (for a desk, never for a board); `closed` also lists those done, left or
    transferred. A department nobody has come to is an empty room.
    """
    day = service_day or await today(connection, unit_id, at)
    queue = {"unit_id": unit_id, "department": department, "service_day": day, "at": at}
    listed = await _ENTRIES[names].all(connection, **queue, closed=closed, limit=limit)
    tallies = {tally.status: tally for tally in await _TALLY.all(connection, **queue)}
    waiting = tallies.get(EntryStatus.WAITING)
    return Room(
        unit_id=unit_id,
        department=department,
        service_day=day,
        at=at,
        entries=listed,
        counts={status: tallies[status].number if status in tallies else 0 for status in EntryStatus},
        longest_wait_seconds=waiting.longest if waiting else 0,
        mean_wait_seconds=waiting.mean if waiting else 0,
        now_calling=_now_calling(listed),
    )


def _now_calling(listed: list[Entry]) -> list[Called]:
    called = [
        Called(ticket=entry.ticket, counter=entry.counter, called_at=entry.called_at)
        for entry in listed
        if entry.status == EntryStatus.CALLED and entry.called_at
    ]
    return sorted(called, key=lambda call: call.called_at, reverse=True)


async def entry(
    connection: Connection, unit_id: str, department: str, entry_id: UUID, *, at: datetime, names: bool = False
) -> Entry | None:
    """One entry, open or not, or None; its id tells its service day. Its `place` is not told (`room` tells it)."""
    if not is_timed(entry_id):
        return None  # no queue ever had such an entry
    day = await today(connection, unit_id, instant_of(entry_id))
    return await _ENTRY[names].first(
        connection, unit_id=unit_id, department=department, service_day=day, at=at, entry_id=entry_id
    )
