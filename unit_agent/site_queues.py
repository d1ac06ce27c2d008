"""What the site's software may ask offline of waiting rooms, as far as the feed has told.

Tables, facts in, questions out; read as in `site_record`.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, Final

from contracts import queue, unit
from contracts.envelope import Fact, Json
from contracts.ids import service_day
from contracts.queue import RANK, EntryStatus, PriorityCode
from unit_agent.learning import Learners

SCHEMA: Final = """
CREATE TABLE unit (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT,
    zone TEXT NOT NULL,
    ageing_minutes INTEGER NOT NULL
);
CREATE TABLE queue_entries (
    entry_id TEXT PRIMARY KEY,
    department TEXT NOT NULL,
    service_day TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    encounter_id TEXT NOT NULL,
    priority TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    status TEXT NOT NULL,
    arrived_at TEXT NOT NULL,
    called_at TEXT,
    counter TEXT
) WITHOUT ROWID;
CREATE INDEX queue_entries_by_day ON queue_entries (department, service_day);
CREATE INDEX queue_entries_by_patient ON queue_entries (patient_id);
"""

_LEARNERS: Final = Learners()
_on = _LEARNERS.on
learn = _LEARNERS.learn

ACTIVE: Final = ("waiting", "called", "in-service", "no-show")
_WAITING_FIRST: Final = {"in-service": 0, "called": 1, "waiting": 2, "no-show": 3}


@_on(unit.UnitRegistered, unit.UnitConfigured)
def _settings(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    settings = told.get("settings", {})
    db.execute(
        "INSERT INTO unit VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name), "
        "zone = excluded.zone, ageing_minutes = excluded.ageing_minutes",
        (told.get("name"), settings.get("zone", "UTC"), settings.get("ageingMinutes", 30)),
    )


@_on(queue.PatientEnqueued)
def _enqueued(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        "INSERT OR REPLACE INTO queue_entries VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?, NULL, NULL)",
        (
            told["entryId"],
            told["department"],
            told["serviceDay"],
            told["patientId"],
            told["encounterId"],
            told["priority"],
            told["ticket"],
            told["arrivedAt"],
        ),
    )


_ENTRY_STATUS: Final = {
    queue.PatientCalled.type_name(): EntryStatus.CALLED,
    queue.ServiceStarted.type_name(): EntryStatus.IN_SERVICE,
    queue.ServiceCompleted.type_name(): EntryStatus.DONE,
    queue.PatientNoShow.type_name(): EntryStatus.NO_SHOW,
    queue.PatientRequeued.type_name(): EntryStatus.WAITING,
    queue.EntryTransferred.type_name(): EntryStatus.TRANSFERRED,
    queue.PatientLeft.type_name(): EntryStatus.LEFT,
}


@_on(
    queue.PatientCalled,
    queue.PatientRecalled,
    queue.ServiceStarted,
    queue.ServiceCompleted,
    queue.PatientNoShow,
    queue.PatientRequeued,
    queue.EntryTransferred,
    queue.PatientLeft,
    queue.PriorityChanged,
)
def _entry(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    called = fact.type in (queue.PatientCalled.type_name(), queue.PatientRecalled.type_name())
    changed = told.get("priority") if fact.type == queue.PriorityChanged.type_name() else None
    db.execute(
        "UPDATE queue_entries SET status = coalesce(?, status), priority = coalesce(?, priority), "
        "counter = coalesce(?, counter), called_at = coalesce(?, called_at) WHERE entry_id = ?",
        (
            _ENTRY_STATUS.get(fact.type),
            changed,
            told.get("counter"),
            fact.occurred_at.isoformat() if called else None,
            told["entryId"],
        ),
    )


def places_of(db: sqlite3.Connection, patient_id: str) -> list[Json]:
    """A patient's active queue entries."""
    rows = db.execute(
        "SELECT * FROM queue_entries WHERE patient_id = ? AND status IN (?, ?, ?, ?) ORDER BY arrived_at",
        (patient_id, *ACTIVE),
    )
    return [{"department": row["department"], **_entry_of(row)} for row in rows]


def waiting_room(db: sqlite3.Connection, department: str, at: datetime) -> Json:
    """A department's active entries on the unit's day at `at`: in service, called, then waiting in order of calls."""
    profile = db.execute("SELECT zone, ageing_minutes FROM unit").fetchone()
    zone, ageing = (profile["zone"], profile["ageing_minutes"]) if profile else ("UTC", 30)
    day = service_day(at, zone).isoformat()
    rows = db.execute(
        "SELECT * FROM queue_entries WHERE department = ? AND service_day = ? AND status IN (?, ?, ?, ?)",
        (department, day, *ACTIVE),
    ).fetchall()
    rows.sort(key=lambda row: (_WAITING_FIRST[row["status"]], *_turn(row, at, ageing)))
    counts = {status: sum(row["status"] == status for row in rows) for status in ACTIVE}
    return {"department": department, "serviceDay": day, "counts": counts, "entries": [_entry_of(row) for row in rows]}


def _turn(row: sqlite3.Row, at: datetime, ageing_minutes: int) -> tuple[int, datetime, int]:
    """The order in which waiting entries are called: the rule of the centre's queue, told here for looking only."""
    rank = RANK[PriorityCode(row["priority"])]
    arrived = datetime.fromisoformat(row["arrived_at"])
    lifted = rank - max(0, int((at - arrived).total_seconds() // (ageing_minutes * 60)))
    return (min(rank, max(lifted, RANK[PriorityCode.ASAP])), arrived, row["ticket"])


def _entry_of(row: sqlite3.Row) -> Json:
    return _present(
        id=row["entry_id"],
        ticket=row["ticket"],
        status=row["status"],
        priority=row["priority"],
        patientId=row["patient_id"],
        encounterId=row["encounter_id"],
        arrivedAt=row["arrived_at"],
        calledAt=row["called_at"],
        counter=row["counter"],
    )


def _present(**values: Any) -> Json:  # Any: JSON values
    return {name: value for name, value in values.items() if value is not None}
