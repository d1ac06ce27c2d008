"""What the site's software may ask offline of patients and their visits, as far as the feed has told.

Tables, facts in, questions out. Facts are read as JSON objects and unknown ones passed over, so an agent may be older
than the centre. Waiting rooms are `site_queues`'.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from contracts import encounter, patient
from contracts.envelope import Fact, Json
from unit_agent import site_queues
from unit_agent.learning import Learners, instant

SCHEMA: Final = """
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
CREATE INDEX patients_erased ON patients (patient_id) WHERE erased = 1;
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
"""

CACHE: Final = Learners()
_on = CACHE.on
learn = CACHE.learn


def _folded(name: object) -> str | None:
    return name.casefold() if isinstance(name, str) else None


@_on(patient.PatientRegistered, patient.DemographicsUpdated)
def _demographics(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    contact = told.get("contact")
    db.execute(
        "INSERT INTO patients VALUES (:patient_id, :mrn, :first, :last, :first_folded, :last_folded, :born, :gender, "
        ":contact, :room, 'active', NULL, :erased) ON CONFLICT DO UPDATE SET first_name = :first, last_name = :last, "
        "first_folded = :first_folded, last_folded = :last_folded, date_of_birth = :born, gender = :gender, "
        "contact = :contact, room_number = :room, erased = :erased, "
        "medical_record_number = CASE WHEN :erased THEN NULL ELSE coalesce(:mrn, medical_record_number) END",
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


@_on(patient.PatientErased)
def _erased(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    # Also of somebody who was never told of here: messages and commands may name them all the same.
    db.execute(
        "INSERT INTO patients (patient_id, status, erased) VALUES (?, 'inactive', 1) "
        "ON CONFLICT DO UPDATE SET erased = 1",
        (told["patientId"],),
    )


_STANDING: Final = {
    patient.PatientDeactivated.type_name(): "status = 'inactive'",
    patient.PatientReactivated.type_name(): "status = 'active', deceased_at = NULL",
    patient.PatientDied.type_name(): "status = 'deceased', deceased_at = :at",
}


@_on(patient.PatientDeactivated, patient.PatientReactivated, patient.PatientDied)
def _standing(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute(
        f"UPDATE patients SET {_STANDING[fact.type]} WHERE patient_id = :patient_id",  # noqa: S608 - ours
        {"patient_id": told["patientId"], "at": instant(told.get("deceasedAt"))},
    )


@CACHE.record("patient", table="patients")
def _patient_record(db: sqlite3.Connection, body: Json) -> None:
    contact = body.get("contact")
    db.execute(
        "INSERT OR REPLACE INTO patients VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body["patientId"],
            body.get("medicalRecordNumber"),
            body.get("firstName"),
            body.get("lastName"),
            _folded(body.get("firstName")),
            _folded(body.get("lastName")),
            body.get("dateOfBirth"),
            body.get("gender"),
            None if contact is None else json.dumps(contact),
            body.get("roomNumber"),
            body["status"],
            instant(body.get("deceasedAt")),
            body.get("erased", False),
        ),
    )


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
        "UPDATE encounters SET status = CASE WHEN ?1 = 'triaged' AND status <> 'arrived' THEN status "
        "ELSE coalesce(?1, status) END, acuity = coalesce(?2, acuity), room = coalesce(?3, room), "
        "department = coalesce(?4, department) WHERE encounter_id = ?5",
        (
            _ENCOUNTER_STATUS.get(fact.type),
            told.get("acuity"),
            told.get("room"),
            told.get("department"),
            told["encounterId"],
        ),
    )


@CACHE.record("encounter", table="encounters")
def _encounter_record(db: sqlite3.Connection, body: Json) -> None:
    db.execute(
        "INSERT OR REPLACE INTO encounters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body["encounterId"],
            body["patientId"],
            body["encounterClass"],
            body["department"],
            body["status"],
            body.get("acuity"),
            body.get("room"),
            instant(body["arrivedAt"]),
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
    return {
        **_patient(row),
        "encounters": [_encounter(visit) for visit in visits],
        "queueEntries": site_queues.places_of(db, patient_id),
    }


def encounter_summary(db: sqlite3.Connection, encounter_id: str) -> Json | None:
    """A visit, open or over; None when the unit's feed has told of no such visit."""
    row = db.execute("SELECT * FROM encounters WHERE encounter_id = ?", (encounter_id,)).fetchone()
    return None if row is None else _encounter(row)


def _encounter(row: sqlite3.Row) -> Json:
    return site_queues.present(
        id=row["encounter_id"],
        encounterClass=row["encounter_class"],
        department=row["department"],
        status=row["status"],
        acuity=row["acuity"],
        room=row["room"],
        arrivedAt=row["arrived_at"],
    )


def _patient(row: sqlite3.Row) -> Json:
    return site_queues.present(
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
