"""Entries of every department's queue, as facts make them; `projections.waiting_room` is asked about them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    Column,
    ColumnElement,
    Date,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    case,
    null,
)
from sqlalchemy.sql.dml import UpdateBase

from contracts.queue import (
    RANK,
    EntryStatus,
    EntryTransferred,
    PatientCalled,
    PatientEnqueued,
    PatientLeft,
    PatientNoShow,
    PatientRecalled,
    PatientRequeued,
    PriorityChanged,
    ServiceCompleted,
    ServiceStarted,
)
from projections.read_model import Facts, ReadModel, added, changed, metadata

entries = Table(
    "read_waiting_room",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("department", Text, primary_key=True),
    Column("service_day", Date, primary_key=True),
    Column("entry_id", Uuid, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("encounter_id", Uuid, nullable=False),
    Column("ticket", Integer, nullable=False),
    Column("priority", Text, nullable=False),
    Column("rank", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("counter", Text),
    Column("calls", Integer, nullable=False),
    Column("arrived_at", TIMESTAMP(timezone=True), nullable=False),
    Column("called_at", TIMESTAMP(timezone=True)),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("ended_at", TIMESTAMP(timezone=True)),
    Column("transferred_from", Uuid),
    Column("transferred_to", Uuid),
)

model = ReadModel("waiting_room", (entries,), key="entry_id")


def _rank(priority: ColumnElement[Any]) -> ColumnElement[int]:  # Any: text
    return case(*((priority == code.value, rank) for code, rank in RANK.items()))


@model.on(PatientEnqueued)
def joins_the_line(facts: Facts) -> UpdateBase:
    """One more who waits."""
    return added(
        entries,
        unit_id=facts.unit_id,
        department=facts.department,
        service_day=facts.service_day,
        entry_id=facts.entry_id,
        partition=facts.partition,
        patient_id=facts.patient_id,
        encounter_id=facts.encounter_id,
        ticket=facts.ticket,
        priority=facts.priority,
        rank=_rank(facts.priority),
        status=EntryStatus.WAITING.value,
        calls=0,
        arrived_at=facts.arrived_at,
        transferred_from=facts.transferred_from,
    )


@model.on(PatientCalled)
def is_called(facts: Facts) -> UpdateBase:
    """Called, and to where."""
    return _entry(
        facts,
        EntryStatus.CALLED,
        counter=facts.counter,
        calls=entries.c.calls + 1,
        called_at=facts.occurred_at,
    )


@model.on(PatientRecalled)
def is_called_once_more(facts: Facts) -> UpdateBase:
    """Called again, to the same place."""
    return _entry(facts, EntryStatus.CALLED, calls=entries.c.calls + 1, called_at=facts.occurred_at)


@model.on(ServiceStarted)
def is_being_served(facts: Facts) -> UpdateBase:
    """Came, and is being served."""
    return _entry(facts, EntryStatus.IN_SERVICE, started_at=facts.occurred_at)


@model.on(ServiceCompleted)
def has_been_served(facts: Facts) -> UpdateBase:
    """Served."""
    return _entry(facts, EntryStatus.DONE, ended_at=facts.occurred_at)


@model.on(PatientNoShow)
def did_not_come(facts: Facts) -> UpdateBase:
    """Called in vain."""
    return _entry(facts, EntryStatus.NO_SHOW)


@model.on(PatientRequeued)
def waits_again(facts: Facts) -> UpdateBase:
    """Waits again, from the original arrival."""
    return _entry(facts, EntryStatus.WAITING, counter=null(), called_at=null())


@model.on(PriorityChanged)
def becomes_more_or_less_urgent(facts: Facts) -> UpdateBase:
    """Another priority, the same wait."""
    return _entry(facts, None, priority=facts.priority, rank=_rank(facts.priority))


@model.on(EntryTransferred)
def goes_on_elsewhere(facts: Facts) -> UpdateBase:
    """Waits in another department, under another entry."""
    return _entry(facts, EntryStatus.TRANSFERRED, transferred_to=facts.new_entry_id, ended_at=facts.occurred_at)


@model.on(PatientLeft)
def leaves(facts: Facts) -> UpdateBase:
    """Gone without being served."""
    return _entry(facts, EntryStatus.LEFT, ended_at=facts.occurred_at)


def _entry(facts: Facts, status: EntryStatus | None, **values: object) -> UpdateBase:
    now = {} if status is None else {"status": status.value}
    own = entries.c
    return changed(
        entries,
        own.unit_id == facts.unit_id,
        own.department == facts.department,
        own.service_day == facts.service_day,
        own.entry_id == facts.entry_id,
        **now,
        **values,
    )
