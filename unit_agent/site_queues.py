"""What the site's software may ask offline of waiting rooms: what the feed has told, and what was done here since.

Tables, facts in, questions out; read as in `site_record`. What the centre has not told yet is `provisional`'s.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, Final

from contracts import queue, unit
from contracts.envelope import Fact, Json
from contracts.ids import service_day
from contracts.queue import RANK, EntryStatus, PriorityCode
from unit_agent.learning import Learners, instant
from unit_agent.provisional import PLACE, PLACES_OF_DAY, PLACES_OF_PATIENT

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
CREATE INDEX queue_entries_by_encounter ON queue_entries (encounter_id);
"""

CACHE: Final = Learners()
_on = CACHE.on
learn = CACHE.learn

ACTIVE: Final = ("waiting", "called", "in-service", "no-show")
_NO_TICKET: Final = 1 << 62
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
            instant(told["arrivedAt"]),
        ),
    )


@CACHE.record("unit", table="unit")
def _unit_record(db: sqlite3.Connection, body: Json) -> None:
    settings = body.get("settings", {})
    db.execute(
        "INSERT OR REPLACE INTO unit VALUES (1, ?, ?, ?)",
        (body.get("name"), settings.get("zone", "UTC"), settings.get("ageingMinutes", 30)),
    )


@CACHE.record("queue_entry", table="queue_entries")
def _entry_record(db: sqlite3.Connection, body: Json) -> None:
    db.execute(
        "INSERT OR REPLACE INTO queue_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body["entryId"],
            body["department"],
            body["serviceDay"],
            body["patientId"],
            body["encounterId"],
            body["priority"],
            body["ticket"],
            body["status"],
            instant(body["arrivedAt"]),
            instant(body.get("calledAt")),
            body.get("counter"),
        ),
    )


_ENTRY_STATUS: Final = {
    queue.PatientCalled.type_name(): EntryStatus.CALLED,
    queue.ServiceStarted.type_name(): EntryStatus.IN_SERVICE,
    queue.ServiceCompleted.type_name(): EntryStatus.DONE,
    queue.PatientNoShow.type_name(): EntryStatus.NO_SHOW,
    queue.EntryTransferred.type_name(): EntryStatus.TRANSFERRED,
    queue.PatientLeft.type_name(): EntryStatus.LEFT,
}


@_on(
    queue.PatientCalled,
    queue.PatientRecalled,
    queue.ServiceStarted,
    queue.ServiceCompleted,
    queue.PatientNoShow,
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


@_on(queue.PatientRequeued)
def _requeued(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        "UPDATE queue_entries SET status = 'waiting', counter = NULL, called_at = NULL WHERE entry_id = ?",
        (told["entryId"],),
    )


def places_of(db: sqlite3.Connection, patient_id: str) -> list[Json]:
    """A patient's active queue entries."""
    rows = [row for row in db.execute(PLACES_OF_PATIENT, (patient_id,)) if row["status"] in ACTIVE]
    rows.sort(key=lambda row: datetime.fromisoformat(row["arrived_at"]))
    return [{"department": row["department"], **_entry_of(row)} for row in rows]


def place_in(db: sqlite3.Connection, patient_id: str, department: str, at: datetime) -> str | None:
    """A patient's active entry in the queue of a department on the unit's day at `at`."""
    day = service_day(at, zone_of(db)).isoformat()
    for row in db.execute(PLACES_OF_PATIENT, (patient_id,)):
        if (row["department"], row["service_day"]) == (department, day) and row["status"] in ACTIVE:
            return str(row["entry_id"])
    return None


def place(db: sqlite3.Connection, entry_id: str) -> Json | None:
    """One queue entry, whatever its state; None when nobody here has heard of it."""
    row = db.execute(PLACE, (entry_id,)).fetchone()
    return None if row is None else {"department": row["department"], **_entry_of(row)}


def waiting_room(db: sqlite3.Connection, department: str, at: datetime) -> Json:
    """A department's active entries on the unit's day at `at`: in service, called, then waiting in order of calls."""
    zone, ageing = _profile(db)
    day = service_day(at, zone).isoformat()
    rows = [row for row in db.execute(PLACES_OF_DAY, (department, day)) if row["status"] in ACTIVE]
    rows.sort(key=lambda row: (_WAITING_FIRST[row["status"]], *_turn(row, at, ageing)))
    counts = {status: sum(row["status"] == status for row in rows) for status in ACTIVE}
    return {"department": department, "serviceDay": day, "counts": counts, "entries": [_entry_of(row) for row in rows]}


def next_in_turn(db: sqlite3.Connection, department: str, at: datetime) -> str | None:
    """The entry whose turn it is on the unit's day at `at`, by the rule of the centre's queue; None: nobody waits."""
    zone, ageing = _profile(db)
    rows = db.execute(PLACES_OF_DAY, (department, service_day(at, zone).isoformat()))
    waiting = [row for row in rows if row["status"] == EntryStatus.WAITING]
    first = min(waiting, key=lambda row: _turn(row, at, ageing), default=None)
    return None if first is None else str(first["entry_id"])


def zone_of(db: sqlite3.Connection) -> str:
    """The unit's zone, UTC until the feed has told another."""
    return _profile(db)[0]


def _profile(db: sqlite3.Connection) -> tuple[str, int]:
    profile = db.execute("SELECT zone, ageing_minutes FROM unit").fetchone()
    return (profile["zone"], profile["ageing_minutes"]) if profile else ("UTC", 30)


def _turn(row: sqlite3.Row, at: datetime, ageing_minutes: int) -> tuple[int, datetime, int, str]:
    """The order in which waiting entries are called: the rule of the centre's queue. Without a ticket: after those."""
    rank = RANK[PriorityCode(row["priority"])]
    arrived = datetime.fromisoformat(row["arrived_at"])
    lifted = rank - max(0, int((at - arrived).total_seconds() // (ageing_minutes * 60)))
    ticket = _NO_TICKET if row["ticket"] is None else row["ticket"]
    return (min(rank, max(lifted, RANK[PriorityCode.ASAP])), arrived, ticket, row["entry_id"])


def _entry_of(row: sqlite3.Row) -> Json:
    return present(
        id=row["entry_id"],
        ticket=row["ticket"],
        status=row["status"],
        priority=row["priority"],
        patientId=row["patient_id"],
        encounterId=row["encounter_id"],
        arrivedAt=row["arrived_at"],
        calledAt=row["called_at"],
        counter=row["counter"],
        provisional=bool(row["provisional"]) or None,
    )


def present(**values: Any) -> Json:  # Any: JSON values
    """These values as JSON, without those that are None."""
    return {name: value for name, value in values.items() if value is not None}
