"""What this agent answers to live calls: one function per call name, over what is on its disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter, ValidationError

from contracts.envelope import Json
from contracts.ids import Department
from unit_agent import local_views, site_queues
from unit_agent.store import Store

_DEPARTMENT: Final[TypeAdapter[str]] = TypeAdapter(Department)


class CannotAnswer(Exception):
    """The question is not one this agent can answer; `code` is for the caller."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Answering = Callable[[Store, Json, datetime], Json]


def ping(store: Store, body: Json, now: datetime) -> Json:
    """Yes."""
    return {"at": now.isoformat(), "position": store.position}


def waiting_room(store: Store, body: Json, now: datetime) -> Json:
    """`{department}` -> who waits there, as far as this unit knows."""
    try:
        department = _DEPARTMENT.validate_python(body.get("department"))
    except ValidationError:
        raise CannotAnswer("department_not_valid") from None
    return site_queues.waiting_room(store.db, department, now)


def patient_summary(store: Store, body: Json, now: datetime) -> Json:
    """`{patientId}` -> the record with open visits and queue entries."""
    found = local_views.patient_summary(store.db, str(body.get("patientId")))
    if found is None:
        raise CannotAnswer("patient_not_found")
    return found


def statistics(store: Store, body: Json, now: datetime) -> Json:
    """What this agent has done so far."""
    return dict(store.figures())


ANSWERS: Final[Mapping[str, Answering]] = {
    "ping": ping,
    "waiting-room": waiting_room,
    "patient-summary": patient_summary,
    "statistics": statistics,
}


def answer(store: Store, name: str, body: Json, now: datetime) -> Json:
    """The answer to a live call. Raises CannotAnswer."""
    handler = ANSWERS.get(name)
    if handler is None:
        raise CannotAnswer("unknown_call")
    try:
        return handler(store, body, now)
    except sqlite3.Error as why:
        raise CannotAnswer("store_trouble") from why
