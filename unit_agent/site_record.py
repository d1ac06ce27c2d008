"""What the site's software may ask offline: the unit's patients, visits and waiting rooms, as far as the feed has told.

Tables, facts in, questions out. Facts are read as JSON objects and unknown ones passed over, so an agent may be older
than the centre.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from contracts import encounter, patient, queue, unit
from contracts.envelope import Fact, Json
from contracts.ids import service_day
from contracts.model import Event
from contracts.queue import RANK, EntryStatus, PriorityCode

SCHEMA: Final = """
CREATE TABLE unit (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT,
    zone TEXT NOT NULL,
    ageing_minutes INTEGER NOT NULL
);
CREATE TABLE patients (
    patient_id TEXT PRIMARY KEY,
    medical_record_number TEXT,
    first_name TEXT,
    last_name TEXT,
    first_folded TEXT,
    last_folded TEXT,
    date_of_birth TEXT,
    gender TEXT,
    contact TEXT,
    room_number TEXT,
    status TEXT NOT NULL,
    deceased_at TEXT,
    erased INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX patients_by_last ON patients (last_folded, first_folded);
CREATE INDEX patients_by_first ON patients (first_folded);
CREATE INDEX patients_by_mrn ON patients (medical_record_number);
CREATE TABLE encounters (
    encounter_id TEXT PRIMARY KEY,
    patient_id TEXT NOT NULL,
    encounter_class TEXT NOT NULL,
    department TEXT NOT NULL,
    status TEXT NOT NULL,
    acuity INTEGER,
    room TEXT,
    arrived_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX encounters_by_patient ON encounters (patient_id);
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

_Learner = Callable[[sqlite3.Connection, Fact, Json], object]
_LEARNERS: Final[dict[str, _Learner]] = {}

ACTIVE: Final = ("waiting", "called", "in-service", "no-show")
_WAITING_FIRST: Final = {"in-service": 0, "called": 1, "waiting": 2, "no-show": 3}


def learn(db: sqlite3.Connection, fact: Fact) -> None:
    """Take one fact in, inside the caller's transaction."""
    learner = _LEARNERS.get(fact.type)
    if learner is not None:
        learner(db, fact, fact.payload)


def _on(*events: type[Event]) -> Callable[[_Learner], _Learner]:
    def note(learner: _Learner) -> _Learner:
        for event in events:
            _LEARNERS[event.type_name()] = learner
        return learner

    return note


def _folded(name: object) -> str | None:
    return name.casefold() if isinstance(name, str) else None


@_on(unit.UnitRegistered, unit.UnitConfigured)
def _settings(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    settings = told.get("settings", {})
    db.execute(
        "INSERT INTO unit VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name), "
        "zone = excluded.zone, ageing_minutes = excluded.ageing_minutes",
        (told.get("name"), settings.get("zone", "UTC"), settings.get("ageingMinutes", 30)),
    )


@_on(patient.PatientRegistered, patient.DemographicsUpdated)
def _demographics(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    contact = told.get("contact")
    db.execute(
        "INSERT INTO patients VALUES (:patient_id, :mrn, :first, :last, :first_folded, :last_folded, :born, :gender, "
        ":contact, :room, 'active', NULL, :erased) ON CONFLICT DO UPDATE SET first_name = :first, last_name = :last, "
        "first_folded = :first_folded, last_folded = :last_folded, date_of_birth = :born, gender = :gender, "
        "contact = :contact, room_number = :room, erased = :erased, "
        "medical_record_number = coalesce(:mrn, medical_record_number)",
        {
            "patient_id": told["patientId"],
            "mrn": told.get("medicalRecordNumber"),
            "first": told.get("firstName"),
            "last": told.get("lastName"),
            "first_folded": _folded(told.get("firstName")),
            "last_folded": _folded(told.get("lastName")),
            "born": told.get("dateOfBirth"),
            "gender": told.get("gender"),
            "contact": None if contact is None else json.dumps(contact),
            "room": told.get("roomNumber"),
            "erased": fact.erased,
        },
    )


@_on(patient.MrnAssigned)
def _mrn(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        "UPDATE patients SET medical_record_number = ? WHERE patient_id = ?",
        (told.get("medicalRecordNumber"), told["patientId"]),
    )


@_on(patient.PatientDeactivated, patient.PatientReactivated)
def _standing(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    status = "inactive" if fact.type == patient.PatientDeactivated.type_name() else "active"
    db.execute("UPDATE patients SET status = ? WHERE patient_id = ?", (status, told["patientId"]))


@_on(patient.PatientDied)
def _died(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("UPDATE patients SET deceased_at = ? WHERE patient_id = ?", (told["deceasedAt"], told["patientId"]))


@_on(encounter.PatientArrived)
def _arrived(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        "INSERT OR REPLACE INTO encounters VALUES (?, ?, ?, ?, 'arrived', NULL, NULL, ?)",
        (
            told["encounterId"],
            told["patientId"],
            told["encounterClass"],
            told["department"],
            fact.occurred_at.isoformat(),
        ),
    )


_ENCOUNTER_STATUS: Final = {
    encounter.PatientTriaged.type_name(): "triaged",
    encounter.ConsultationStarted.type_name(): "in-progress",
    encounter.PatientDischarged.type_name(): "finished",
    encounter.VisitCancelled.type_name(): "cancelled",
}


@_on(
    encounter.PatientTriaged,
    encounter.LocationAssigned,
    encounter.ConsultationStarted,
    encounter.PatientDischarged,
    encounter.VisitCancelled,
    encounter.MovedToDepartment,
)
def _visit(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        "UPDATE encounters SET status = coalesce(?, status), acuity = coalesce(?, acuity), room = coalesce(?, room), "
        "department = coalesce(?, department) WHERE encounter_id = ?",
        (
            _ENCOUNTER_STATUS.get(fact.type),
            told.get("acuity"),
            told.get("room"),
            told.get("department"),
            told["encounterId"],
        ),
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


def search_patients(db: sqlite3.Connection, text: str, limit: int = 50) -> list[Json]:
    """Patients whose last or first name begins with `text`, or whose MRN or birth date it is; all when empty."""
    begins = text.strip().casefold().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = db.execute(
        "SELECT * FROM patients WHERE last_folded LIKE ?1 ESCAPE '\\' OR first_folded LIKE ?1 ESCAPE '\\' "
        "OR medical_record_number = ?2 OR date_of_birth = ?2 OR ?2 = '' "
        "ORDER BY last_folded, first_folded, patient_id LIMIT ?3",
        (begins, text.strip(), limit),
    )
    return [_patient(row) for row in rows]


def patient_summary(db: sqlite3.Connection, patient_id: str) -> Json | None:
    """A patient with open visits and active queue entries; None when the unit's feed has told of no such patient."""
    row = db.execute("SELECT * FROM patients WHERE patient_id = ?", (patient_id,)).fetchone()
    if row is None:
        return None
    visits = db.execute(
        "SELECT * FROM encounters WHERE patient_id = ? AND status NOT IN ('finished', 'cancelled') ORDER BY arrived_at",
        (patient_id,),
    )
    places = db.execute(
        "SELECT * FROM queue_entries WHERE patient_id = ? AND status IN (?, ?, ?, ?) ORDER BY arrived_at",
        (patient_id, *ACTIVE),
    )
    return {
        **_patient(row),
        "encounters": [
            _present(
                id=visit["encounter_id"],
                encounterClass=visit["encounter_class"],
                department=visit["department"],
                status=visit["status"],
                acuity=visit["acuity"],
                room=visit["room"],
                arrivedAt=visit["arrived_at"],
            )
            for visit in visits
        ],
        "queueEntries": [{"department": place["department"], **_entry_of(place)} for place in places],
    }


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


def _patient(row: sqlite3.Row) -> Json:
    return _present(
        id=row["patient_id"],
        medicalRecordNumber=row["medical_record_number"],
        firstName=row["first_name"],
        lastName=row["last_name"],
        dateOfBirth=row["date_of_birth"],
        gender=row["gender"],
        contact=None if row["contact"] is None else json.loads(row["contact"]),
        roomNumber=row["room_number"],
        status=row["status"],
        deceasedAt=row["deceased_at"],
        erased=bool(row["erased"]) or None,
    )


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
