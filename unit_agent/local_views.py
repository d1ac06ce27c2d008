"""Patients and their visits as the site sees them: what the feed has told, and what was done here since.

The feed's part is `site_record`'s, what the centre has yet to confirm `provisional`'s; each such thing says so.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from contracts.envelope import Json
from unit_agent import site_queues, site_record

_OURS: Final = """
SELECT p.* FROM provisional_patients p
WHERE NOT EXISTS (SELECT 1 FROM patients told WHERE told.patient_id = p.patient_id)
"""
_FOUND: Final = (
    _OURS
    + """ AND (last_folded LIKE ?1 ESCAPE '\\' OR first_folded LIKE ?1 ESCAPE '\\'
    OR medical_record_number = ?2 OR date_of_birth = ?2 OR ?2 = '')
ORDER BY last_folded, first_folded, patient_id LIMIT ?3
"""
)
_ONE: Final = _OURS + " AND p.patient_id = ?"
_VISITS: Final = """
SELECT v.* FROM provisional_encounters v
WHERE v.patient_id = ? AND NOT EXISTS (SELECT 1 FROM encounters told WHERE told.encounter_id = v.encounter_id)
    AND NOT EXISTS (SELECT 1 FROM provisional_ends o WHERE o.encounter_id = v.encounter_id)
ORDER BY v.arrived_at
"""
_IS_OVER: Final = "SELECT 1 FROM provisional_ends WHERE encounter_id = ?"
_STATUS: Final = """
SELECT coalesce(
    (SELECT status FROM provisional_ends WHERE encounter_id = ?1 LIMIT 1),
    (SELECT status FROM encounters WHERE encounter_id = ?1),
    (SELECT 'arrived' FROM provisional_encounters WHERE encounter_id = ?1)
)
"""
_MRN: Final = """
SELECT patient_id FROM patients WHERE medical_record_number = ?1
UNION ALL SELECT patient_id FROM provisional_patients WHERE medical_record_number = ?1
"""
_OPEN_VISIT: Final = """
SELECT encounter_id FROM (
    SELECT encounter_id, patient_id, encounter_class FROM encounters WHERE status NOT IN ('finished', 'cancelled')
    UNION ALL SELECT encounter_id, patient_id, encounter_class FROM provisional_encounters
) AS e
WHERE e.patient_id = ?1 AND e.encounter_class = ?2
    AND NOT EXISTS (SELECT 1 FROM provisional_ends o WHERE o.encounter_id = e.encounter_id)
"""


def search_patients(db: sqlite3.Connection, text: str, limit: int = 50) -> list[Json]:
    """As `site_record.search_patients`, with those registered here that the centre has not told yet."""
    begins = text.strip().casefold().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    ours = [_patient(row) for row in db.execute(_FOUND, (begins, text.strip(), limit))]
    told = site_record.search_patients(db, text, limit)
    return sorted(told + ours, key=_by_name)[:limit] if ours else told


def patient_summary(db: sqlite3.Connection, patient_id: str) -> Json | None:
    """As `site_record.patient_summary`, with what was done here since; None: nobody here has heard of the patient."""
    found = site_record.patient_summary(db, patient_id)
    if found is None:
        row = db.execute(_ONE, (patient_id,)).fetchone()
        if row is None:
            return None
        found = {**_patient(row), "encounters": [], "queueEntries": site_queues.places_of(db, patient_id)}
    told = [visit for visit in found["encounters"] if not db.execute(_IS_OVER, (visit["id"],)).fetchone()]
    ours = [_visit(row) for row in db.execute(_VISITS, (patient_id,))]
    return {**found, "encounters": told + ours}


def holder_of(db: sqlite3.Connection, medical_record_number: str) -> str | None:
    """Who has this number at the unit, as far as is known here."""
    row = db.execute(_MRN, (medical_record_number,)).fetchone()
    return None if row is None else str(row["patient_id"])


def open_visit(db: sqlite3.Connection, patient_id: str, encounter_class: str) -> str | None:
    """The patient's open visit of a class, as far as is known here."""
    row = db.execute(_OPEN_VISIT, (patient_id, encounter_class)).fetchone()
    return None if row is None else str(row["encounter_id"])


def visit_status(db: sqlite3.Connection, encounter_id: str) -> str | None:
    """Where a visit stands; None when nobody here has heard of it."""
    row = db.execute(_STATUS, (encounter_id,)).fetchone()
    return None if row[0] is None else str(row[0])


def _by_name(found: Json) -> tuple[str, str, str]:
    return (found.get("lastName", "").casefold(), found.get("firstName", "").casefold(), found["id"])


def _patient(row: sqlite3.Row) -> Json:
    told = {
        "id": row["patient_id"],
        "medicalRecordNumber": row["medical_record_number"],
        "firstName": row["first_name"],
        "lastName": row["last_name"],
        "dateOfBirth": row["date_of_birth"],
        "gender": row["gender"],
        "contact": None if row["contact"] is None else json.loads(row["contact"]),
        "roomNumber": row["room_number"],
        "status": "active",
        "provisional": True,
    }
    return {name: value for name, value in told.items() if value is not None}


def _visit(row: sqlite3.Row) -> Json:
    return {
        "id": row["encounter_id"],
        "encounterClass": row["encounter_class"],
        "department": row["department"],
        "status": "arrived",
        "arrivedAt": row["arrived_at"],
        "provisional": True,
    }
