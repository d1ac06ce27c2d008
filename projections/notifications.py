"""Notifications: clinicians to be told that a patient waits, by department."""

from __future__ import annotations

from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import TIMESTAMP, BigInteger, Column, Integer, Table, Text, Uuid, bindparam, select
from sqlalchemy.sql.dml import UpdateBase

from contracts.encounter import ClinicianNotified
from contracts.model import Model
from projections.questions import Connection, Page, Question, page_of, position_before
from projections.read_model import Facts, ReadModel, added, metadata

notifications = Table(
    "read_notifications",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("department", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("encounter_id", Uuid, nullable=False),
    Column("patient_id", Uuid, nullable=False),
    Column("queue_entry_id", Uuid, nullable=False),
    Column("priority", Text, nullable=False),
    Column("practitioner_id", Text),
    Column("notified_at", TIMESTAMP(timezone=True), nullable=False),
)

model = ReadModel("notifications", (notifications,), key="position")


@model.on(ClinicianNotified)
def somebody_is_to_know(facts: Facts) -> UpdateBase:
    """One line per notification, for ever."""
    return added(
        notifications,
        unit_id=facts.unit_id,
        department=facts.department,
        position=facts.position,
        partition=facts.partition,
        encounter_id=facts.encounter_id,
        patient_id=facts.patient_id,
        queue_entry_id=facts.queue_entry_id,
        priority=facts.priority,
        practitioner_id=facts.practitioner_id,
        notified_at=facts.occurred_at,
    )


class Notification(Model):
    """That a patient waits, and for whom."""

    position: int
    unit_id: str
    department: str
    encounter_id: UUID
    patient_id: UUID
    queue_entry_id: UUID
    priority: str
    practitioner_id: str | None
    """None: whoever is on duty in the department."""
    notified_at: AwareDatetime


_LATEST = Question(
    select(*(notifications.c[name] for name in Notification.model_fields))
    .where(
        notifications.c.unit_id == bindparam("unit_id"),
        notifications.c.department == bindparam("department"),
        notifications.c.position < bindparam("before"),
        (bindparam("practitioner_id", type_=Text).is_(None))
        | (notifications.c.practitioner_id == bindparam("practitioner_id", type_=Text)),
    )
    .order_by(notifications.c.position.desc())
    .limit(bindparam("limit")),
    Notification,
)


async def latest(
    connection: Connection,
    unit_id: str,
    department: str,
    *,
    practitioner_id: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Notification]:
    """The department's notifications, the newest first; with `practitioner_id` only those naming it.

    Raises `CursorNotValid`.
    """
    found = await _LATEST.all(
        connection,
        unit_id=unit_id,
        department=department,
        practitioner_id=practitioner_id,
        before=position_before(cursor),
        limit=limit + 1,
    )
    return page_of(found, limit, lambda last: last.position)
