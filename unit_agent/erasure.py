"""People who were erased at the centre are forgotten on this disk too: once each, in the transaction that learns of it.

By the fact, or by a snapshot in which they are nobody any more. What was done stays known (ids, codes, times), nothing
that was said; the centre is told how much went, in the same transaction. `Store` has the file scrubbed afterwards.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.ids import PatientId, keyed_command_id
from contracts.patient import RecordErased, ReportErasure
from unit_agent import outbox

SCHEMA: Final = """
CREATE TABLE erased_people (patient_id TEXT PRIMARY KEY, purged_at TEXT NOT NULL) WITHOUT ROWID;
"""

_NEW: Final = """
SELECT patient_id FROM patients
WHERE erased = 1 AND patient_id NOT IN (SELECT patient_id FROM erased_people)
"""
_NAMED: Final = """
SELECT command_id, state FROM outbox o WHERE payload <> '{}' AND EXISTS (
    SELECT 1 FROM json_each(?) named WHERE instr(o.payload, named.value))
"""
_IDS: Final = """
SELECT ?1 UNION SELECT encounter_id FROM encounters WHERE patient_id = ?1
UNION SELECT encounter_id FROM provisional_encounters WHERE patient_id = ?1
UNION SELECT entry_id FROM queue_entries WHERE patient_id = ?1
UNION SELECT entry_id FROM provisional_places WHERE patient_id = ?1
"""
"""By what commands made here name the person."""


def purge(db: sqlite3.Connection, unit_id: str, now: datetime) -> int:
    """Forget everybody who was erased and not yet forgotten, in the caller's transaction; how many people that were."""
    people = [str(row[0]) for row in db.execute(_NEW)]
    for patient_id in people:
        counts = {place: count for place, count in _forget(db, patient_id).items() if count}
        db.execute("INSERT INTO erased_people VALUES (?, ?)", (patient_id, now.isoformat()))
        report = ReportErasure(patient_id=PatientId(UUID(patient_id)), counts=counts)
        outbox.add(
            db,
            command_id=keyed_command_id("agent", unit_id, f"erasure:{patient_id}"),
            type_name=report.type_name(),
            payload=report.to_dict(),
            subject="agent",
            issued_at=now,
        )
    return len(people)


def _forget(db: sqlite3.Connection, patient_id: str) -> dict[str, int]:
    counts = {
        "patients": db.execute(
            "UPDATE patients SET medical_record_number = NULL, first_name = NULL, last_name = NULL, "
            "first_folded = NULL, last_folded = NULL, date_of_birth = NULL, contact = NULL, room_number = NULL "
            "WHERE patient_id = ?",
            (patient_id,),
        ).rowcount,
        "provisional patients": db.execute(
            "DELETE FROM provisional_patients WHERE patient_id = ?", (patient_id,)
        ).rowcount,
        "commands made here": _outbox(db, patient_id),
        "unit commands": _unit_commands(db, patient_id),
    }
    return counts | _hl7(db, patient_id)


def _outbox(db: sqlite3.Connection, patient_id: str) -> int:
    ids = json.dumps([row[0] for row in db.execute(_IDS, (patient_id,))])
    named = db.execute(_NAMED, (ids,)).fetchall()
    for row in named:
        if row["state"] == "waiting":  # it could only be refused there
            outbox.refused(db, UUID(row["command_id"]), RecordErased.code(), RecordErased.message())
        db.execute("UPDATE outbox SET payload = '{}' WHERE command_id = ?", (row["command_id"],))
    return len(named)


def _unit_commands(db: sqlite3.Connection, patient_id: str) -> int:
    # Reports on their way are still needed, without what the site has answered.
    db.execute(
        "UPDATE outbox SET payload = json_remove(payload, '$.result') WHERE command_id IN "
        "(SELECT report_id FROM unit_commands WHERE patient_id = ?)",
        (patient_id,),
    )
    return db.execute(
        "UPDATE unit_commands SET payload = '{}', result = NULL, erased = 1 WHERE patient_id = ?", (patient_id,)
    ).rowcount


def _hl7(db: sqlite3.Connection, patient_id: str) -> dict[str, int]:
    """Messages, also where the interface has been switched off since."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    counts: dict[str, int] = {}
    if "hl7_received" in tables:
        counts["hl7 received"] = db.execute(
            "UPDATE hl7_received SET content = x'' WHERE patient_id = ?1 OR (patient_id IS NULL AND EXISTS "
            "(SELECT 1 FROM hl7_patients p WHERE p.patient_id = ?1 AND instr(content, CAST(p.number AS BLOB))))",
            (patient_id,),
        ).rowcount
        counts["hl7 numbers"] = db.execute("DELETE FROM hl7_patients WHERE patient_id = ?", (patient_id,)).rowcount
    if "hl7_to_send" in tables:
        counts["hl7 to send"] = db.execute("DELETE FROM hl7_to_send WHERE patient_id = ?", (patient_id,)).rowcount
    return counts
