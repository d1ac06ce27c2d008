"""What commands made here will bring about once the centre has handled them: shown at the site until it has said so.

Kept apart from what the feed has told, each with its command. The centre's facts replace it; a refusal removes it.
Which commands show at once is `Command.offline`'s to say; the merged answers are `site_queues`' and `local_views`'.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts import encounter, patient, queue
from contracts.encounter import EncounterStatus
from contracts.envelope import Fact, Json, Outcome, Status
from contracts.ids import instant_of, service_day
from contracts.model import Command
from contracts.queue import ACTIVE, EntryStatus
from unit_agent.learning import Learners

# `until`: the position at which the centre's own facts tell it; NULL while the outcome is not known.
SCHEMA: Final = """
CREATE TABLE provisional_patients (
    patient_id TEXT PRIMARY KEY,
    command_id TEXT NOT NULL UNIQUE,
    medical_record_number TEXT NOT NULL,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    first_folded TEXT NOT NULL,
    last_folded TEXT NOT NULL,
    date_of_birth TEXT NOT NULL,
    gender TEXT NOT NULL,
    contact TEXT,
    room_number TEXT,
    until INTEGER
) WITHOUT ROWID;
CREATE INDEX provisional_patients_by_last ON provisional_patients (last_folded, first_folded);
CREATE INDEX provisional_patients_by_mrn ON provisional_patients (medical_record_number);
CREATE TABLE provisional_encounters (
    encounter_id TEXT PRIMARY KEY,
    command_id TEXT NOT NULL UNIQUE,
    patient_id TEXT NOT NULL,
    encounter_class TEXT NOT NULL,
    department TEXT NOT NULL,
    arrived_at TEXT NOT NULL,
    until INTEGER
) WITHOUT ROWID;
CREATE INDEX provisional_encounters_by_patient ON provisional_encounters (patient_id);
CREATE TABLE provisional_ends (
    command_id TEXT PRIMARY KEY,
    encounter_id TEXT NOT NULL,
    status TEXT NOT NULL,
    until INTEGER
) WITHOUT ROWID;
CREATE INDEX provisional_ends_by_encounter ON provisional_ends (encounter_id);
CREATE TABLE provisional_places (
    entry_id TEXT PRIMARY KEY,
    command_id TEXT NOT NULL UNIQUE,
    department TEXT NOT NULL,
    service_day TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    encounter_id TEXT NOT NULL,
    priority TEXT NOT NULL,
    arrived_at TEXT NOT NULL,
    until INTEGER
) WITHOUT ROWID;
CREATE INDEX provisional_places_by_day ON provisional_places (department, service_day);
CREATE INDEX provisional_places_by_patient ON provisional_places (patient_id);
CREATE INDEX provisional_places_by_encounter ON provisional_places (encounter_id);
CREATE TABLE provisional_steps (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id TEXT NOT NULL UNIQUE,
    entry_id TEXT NOT NULL,
    status TEXT,
    priority TEXT,
    counter TEXT,
    called_at TEXT,
    until INTEGER
);
CREATE INDEX provisional_steps_by_entry ON provisional_steps (entry_id, seq);
"""

_REMOVE: Final = (
    ("DELETE FROM provisional_patients WHERE command_id = ?", "DELETE FROM provisional_patients WHERE until <= ?"),
    ("DELETE FROM provisional_encounters WHERE command_id = ?", "DELETE FROM provisional_encounters WHERE until <= ?"),
    ("DELETE FROM provisional_ends WHERE command_id = ?", "DELETE FROM provisional_ends WHERE until <= ?"),
    ("DELETE FROM provisional_places WHERE command_id = ?", "DELETE FROM provisional_places WHERE until <= ?"),
    ("DELETE FROM provisional_steps WHERE command_id = ?", "DELETE FROM provisional_steps WHERE until <= ?"),
)
_KEEP_UNTIL: Final = (
    "UPDATE provisional_patients SET until = ? WHERE command_id = ?",
    "UPDATE provisional_encounters SET until = ? WHERE command_id = ?",
    "UPDATE provisional_ends SET until = ? WHERE command_id = ?",
    "UPDATE provisional_places SET until = ? WHERE command_id = ?",
    "UPDATE provisional_steps SET until = ? WHERE command_id = ?",
)
_SHOWS: Final = """
SELECT EXISTS (SELECT 1 FROM provisional_patients WHERE command_id = ?1)
    OR EXISTS (SELECT 1 FROM provisional_encounters WHERE command_id = ?1)
    OR EXISTS (SELECT 1 FROM provisional_ends WHERE command_id = ?1)
    OR EXISTS (SELECT 1 FROM provisional_steps WHERE command_id = ?1)
"""
_ANY: Final = """
SELECT EXISTS (SELECT 1 FROM provisional_patients) OR EXISTS (SELECT 1 FROM provisional_encounters)
    OR EXISTS (SELECT 1 FROM provisional_ends) OR EXISTS (SELECT 1 FROM provisional_places)
    OR EXISTS (SELECT 1 FROM provisional_steps)
"""

_STEPS: Final[dict[type[Command], EntryStatus]] = {
    queue.StartService: EntryStatus.IN_SERVICE,
    queue.CompleteService: EntryStatus.DONE,
    queue.MarkNoShow: EntryStatus.NO_SHOW,
    queue.Requeue: EntryStatus.WAITING,
    queue.Leave: EntryStatus.LEFT,
}
"""Where a queue's command leaves its entry."""

_LEARNERS: Final = Learners()
_on = _LEARNERS.on
learn = _LEARNERS.learn


def show(db: sqlite3.Connection, command_id: UUID, command: Command, *, at: datetime, zone: str) -> None:
    """Show what this command will bring about, inside the transaction that keeps it."""
    match command:
        case patient.RegisterPatient():
            _registered(db, command_id, command)
        case encounter.CheckIn():
            _checked_in(db, command_id, command, at, zone)
        case encounter.Discharge() | encounter.CancelVisit():
            _ended(db, command_id, command)
        case queue.ChangePriority():
            _step(db, command_id, str(command.entry_id), None, priority=command.priority.value)
        case queue.CallNext() | queue.Recall() if command.entry_id is not None:
            counter = command.counter if isinstance(command, queue.CallNext) else None
            _step(db, command_id, str(command.entry_id), EntryStatus.CALLED, counter=counter, called_at=at.isoformat())
        case queue.StartService() | queue.CompleteService() | queue.MarkNoShow() | queue.Requeue() | queue.Leave():
            _step(db, command_id, str(command.entry_id), _STEPS[type(command)])
        case _:
            pass


def shows(db: sqlite3.Connection, command_id: UUID) -> bool:
    """Whether something of this command is shown that the centre has not told yet."""
    return bool(db.execute(_SHOWS, (str(command_id),)).fetchone()[0])


def any_shown(db: sqlite3.Connection) -> bool:
    """Whether anything at all stands in for facts to come."""
    return bool(db.execute(_ANY).fetchone()[0])


def settle(db: sqlite3.Connection, outcome: Outcome, position: int) -> None:
    """The centre has told how a command ended: only what its facts have yet to tell still stands."""
    if outcome.status is Status.ACCEPTED and (outcome.position or 0) > position:
        for statement in _KEEP_UNTIL:
            db.execute(statement, (outcome.position, str(outcome.command_id)))
        return
    drop(db, str(outcome.command_id))


def drop(db: sqlite3.Connection, command_id: str) -> None:
    """Nothing will come of this command, or it is told otherwise now."""
    for by_command, _ in _REMOVE:
        db.execute(by_command, (command_id,))


def reached(db: sqlite3.Connection, position: int) -> None:
    """The feed is here through `position`, by facts or by a snapshot: what it tells needs no standing in."""
    for _, by_position in _REMOVE:
        db.execute(by_position, (position,))


def _registered(db: sqlite3.Connection, command_id: UUID, command: patient.RegisterPatient) -> None:
    told = command.to_dict()
    contact = told.get("contact")
    db.execute(
        "INSERT OR IGNORE INTO provisional_patients VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            told["patientId"],
            str(command_id),
            told["medicalRecordNumber"],
            told["firstName"],
            told["lastName"],
            command.first_name.casefold(),
            command.last_name.casefold(),
            told["dateOfBirth"],
            told["gender"],
            None if contact is None else json.dumps(contact),
            told.get("roomNumber"),
        ),
    )


def _checked_in(db: sqlite3.Connection, command_id: UUID, command: encounter.CheckIn, at: datetime, zone: str) -> None:
    visit, who, arrived = str(command.encounter_id), str(command.patient_id), at.isoformat()
    db.execute(
        "INSERT OR IGNORE INTO provisional_encounters VALUES (?, ?, ?, ?, ?, ?, NULL)",
        (visit, str(command_id), who, command.encounter_class.value, command.department, arrived),
    )
    day = service_day(instant_of(command.queue_entry_id), zone).isoformat()
    db.execute(
        "INSERT OR IGNORE INTO provisional_places VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            str(command.queue_entry_id),
            str(command_id),
            command.department,
            day,
            who,
            visit,
            command.priority.value,
            arrived,
        ),
    )


def _ended(db: sqlite3.Connection, command_id: UUID, command: encounter.Discharge | encounter.CancelVisit) -> None:
    visit = str(command.encounter_id)
    over = EncounterStatus.FINISHED if isinstance(command, encounter.Discharge) else EncounterStatus.CANCELLED
    db.execute("INSERT OR IGNORE INTO provisional_ends VALUES (?, ?, ?, NULL)", (str(command_id), visit, over))
    for place in db.execute(PLACES_OF_VISIT, (visit,)).fetchall():
        if place["status"] in ACTIVE:
            served = place["status"] == EntryStatus.IN_SERVICE
            _step(db, command_id, place["entry_id"], EntryStatus.DONE if served else EntryStatus.LEFT)


def _step(
    db: sqlite3.Connection,
    command_id: UUID,
    entry_id: str,
    status: EntryStatus | None,
    *,
    priority: str | None = None,
    counter: str | None = None,
    called_at: str | None = None,
) -> None:
    db.execute(
        "INSERT OR IGNORE INTO provisional_steps (command_id, entry_id, status, priority, counter, called_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (str(command_id), entry_id, status, priority, counter, called_at),
    )


@_on(patient.PatientRegistered)
def _patient_told(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("DELETE FROM provisional_patients WHERE patient_id = ?", (told["patientId"],))


@_on(encounter.PatientArrived)
def _visit_told(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("DELETE FROM provisional_encounters WHERE encounter_id = ?", (told["encounterId"],))


@_on(encounter.PatientDischarged, encounter.VisitCancelled)
def _end_told(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("DELETE FROM provisional_ends WHERE command_id = ?", (str(fact.command_id),))


@_on(queue.PatientEnqueued)
def _place_told(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("DELETE FROM provisional_places WHERE entry_id = ?", (told["entryId"],))


@_on(
    queue.PatientCalled,
    queue.PatientRecalled,
    queue.ServiceStarted,
    queue.ServiceCompleted,
    queue.PatientNoShow,
    queue.PatientRequeued,
    queue.PriorityChanged,
    queue.PatientLeft,
)
def _step_told(db: sqlite3.Connection, fact: Fact, told: Json) -> None:
    db.execute("DELETE FROM provisional_steps WHERE command_id = ?", (str(fact.command_id),))


_MERGED: Final = """
SELECT e.entry_id, e.department, e.service_day, e.patient_id, e.encounter_id, e.ticket, e.arrived_at,
    coalesce((SELECT s.status FROM provisional_steps s WHERE s.entry_id = e.entry_id AND s.status IS NOT NULL
        ORDER BY s.seq DESC LIMIT 1), e.told_status) AS status,
    coalesce((SELECT s.priority FROM provisional_steps s WHERE s.entry_id = e.entry_id AND s.priority IS NOT NULL
        ORDER BY s.seq DESC LIMIT 1), e.told_priority) AS priority,
    coalesce((SELECT s.counter FROM provisional_steps s WHERE s.entry_id = e.entry_id AND s.counter IS NOT NULL
        ORDER BY s.seq DESC LIMIT 1), e.told_counter) AS counter,
    coalesce((SELECT s.called_at FROM provisional_steps s WHERE s.entry_id = e.entry_id AND s.called_at IS NOT NULL
        ORDER BY s.seq DESC LIMIT 1), e.told_called_at) AS called_at,
    e.is_ours OR EXISTS (SELECT 1 FROM provisional_steps s WHERE s.entry_id = e.entry_id) AS provisional
FROM (
    SELECT entry_id, department, service_day, patient_id, encounter_id, ticket, arrived_at,
        status AS told_status, priority AS told_priority, counter AS told_counter, called_at AS told_called_at,
        0 AS is_ours
    FROM queue_entries
    UNION ALL
    SELECT entry_id, department, service_day, patient_id, encounter_id, NULL, arrived_at,
        'waiting', priority, NULL, NULL, 1
    FROM provisional_places p WHERE NOT EXISTS (SELECT 1 FROM queue_entries q WHERE q.entry_id = p.entry_id)
) AS e
"""
"""All places, as the centre has told and as commands made here will leave them. `ticket` is the centre's to give."""

PLACES_OF_DAY: Final = _MERGED + " WHERE e.department = ? AND e.service_day = ?"
PLACES_OF_PATIENT: Final = _MERGED + " WHERE e.patient_id = ?"
PLACES_OF_VISIT: Final = _MERGED + " WHERE e.encounter_id = ?"
PLACE: Final = _MERGED + " WHERE e.entry_id = ?"
