"""Received messages on this disk: a message, its commands and what its numbers mean are written together or not at all.

Only then is it acknowledged, so an AA is never for something that a power cut can take back. The same control id of
the same sender is the same message: answered again, done once.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from contracts.envelope import Fact, Json
from contracts.ids import derived, keyed_command_id
from unit_agent import local_commands, local_views, outbox
from unit_agent.hl7v2 import message as hl7v2
from unit_agent.hl7v2 import person
from unit_agent.hl7v2.message import Message, Unacceptable
from unit_agent.hl7v2.options import Listen
from unit_agent.hl7v2.visit import Understood, Visit, understood
from unit_agent.store import Store

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS hl7_received (
    sender TEXT NOT NULL,
    control_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    event TEXT NOT NULL,
    received_at TEXT NOT NULL,
    commands TEXT NOT NULL,
    patient_id TEXT,
    content BLOB NOT NULL,
    PRIMARY KEY (sender, control_id)
) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS hl7_received_at ON hl7_received (received_at)",
    "CREATE INDEX IF NOT EXISTS hl7_received_of ON hl7_received (patient_id)",
    "CREATE TABLE IF NOT EXISTS hl7_commands (command_id TEXT PRIMARY KEY, made_at TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS hl7_patients (number TEXT PRIMARY KEY, patient_id TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS hl7_patients_by_id ON hl7_patients (patient_id)",
    """CREATE TABLE IF NOT EXISTS hl7_visits (
    number TEXT PRIMARY KEY, encounter_id TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Taken:
    """What became of a message that is on this disk."""

    repeated: bool
    commands: int


def prepare(store: Store) -> None:
    """Make room for messages in the store; harmless when there is."""
    with store.transaction() as db:
        for statement in SCHEMA:
            db.execute(statement)


def take(store: Store, unit_id: str, content: bytes, options: Listen, *, now: datetime) -> Taken:
    """Read a message and keep what it asks for, durably. Raises Unacceptable, sqlite3.Error; then nothing was kept.

    What the centre would refuse is kept all the same, also while the link is down: a hospital's feed cannot wait, and
    the refusal becomes a conflict that somebody sees.
    """
    message = Message(content, charset=options.charset)
    header = message.header
    if not 0 < len(header.control_id) <= hl7v2.CONTROL_ID_LENGTH:
        raise Unacceptable("AR", hl7v2.REQUIRED_MISSING, "MSH-10 names no control id, or too long a one")
    if not re.fullmatch(r"2(?:\.\d+)*", header.at(12).split(header.component)[0]):
        raise Unacceptable("AR", hl7v2.UNSUPPORTED_VERSION, "MSH-12 is not a version 2")
    if header.at(11).split(header.component)[0] not in options.processing:
        raise Unacceptable("AR", hl7v2.UNSUPPORTED_PROCESSING, "MSH-11 is not a processing id that is taken here")
    digest = _digest(content, header.at(9))
    with store.transaction() as db:
        first = db.execute(
            "SELECT digest, commands FROM hl7_received WHERE sender = ? AND control_id = ?",
            (header.sender, header.control_id),
        ).fetchone()
        if first is not None:
            if first["digest"] != digest:
                raise Unacceptable("AR", hl7v2.DUPLICATE_KEY, "MSH-10 came with another message before")
            return Taken(repeated=True, commands=len(json.loads(first["commands"])))
        # With the digest, since a sender's control ids come round again when this message is long forgotten.
        key = f"hl7:{header.sender}:{header.control_id}:{digest}"
        seed = keyed_command_id("agent", unit_id, key)
        asked = understood(message, _OnDisk(db), options, lambda purpose: str(derived(seed, purpose, now)))
        commands = _kept(db, unit_id, asked, key, now)
        db.execute(
            "INSERT INTO hl7_received VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                header.sender,
                header.control_id,
                digest,
                header.kind[1],
                now.isoformat(),
                json.dumps(commands),
                asked.patient[1] if asked.patient else None,
                content,
            ),
        )
        return Taken(repeated=False, commands=len(commands))


def forget(store: Store, options: Listen, now: datetime) -> int:
    """Let go of messages whose time is over; returns how many."""
    before = (now - timedelta(days=options.keep_days)).isoformat()
    with store.transaction() as db:
        db.execute("DELETE FROM hl7_commands WHERE made_at < ?", (before,))
        return db.execute("DELETE FROM hl7_received WHERE received_at < ?", (before,)).rowcount


def learn(db: sqlite3.Connection, fact: Fact) -> None:
    """A person whose data were erased is forgotten here too: number and messages; that they came is still known."""
    if fact.erased and isinstance(patient_id := fact.payload.get("patientId"), str):
        db.execute("DELETE FROM hl7_patients WHERE patient_id = ?", (patient_id,))
        db.execute("UPDATE hl7_received SET content = x'' WHERE patient_id = ?", (patient_id,))


def came_from_here(db: sqlite3.Connection, fact: Fact) -> bool:
    """Whether a fact is what a received message brought about: nobody has to be told what they told us."""
    found = db.execute("SELECT 1 FROM hl7_commands WHERE command_id = ?", (str(fact.command_id),))
    return found.fetchone() is not None


def count(db: sqlite3.Connection) -> int:
    """Messages kept."""
    return int(db.execute("SELECT count(*) FROM hl7_received").fetchone()[0])


def _kept(db: sqlite3.Connection, unit_id: str, understood: Understood, key: str, now: datetime) -> list[str]:
    commands = []
    for number, one in enumerate(understood.asked):
        try:
            made = local_commands.keep_within(
                db, unit_id, one.type, one.payload, subject="hl7", key=f"{key}:{number}", now=now
            )
        except local_commands.NotACommand as wrong:
            raise Unacceptable("AE", hl7v2.DATA_TYPE, _where(wrong.detail)) from None
        except outbox.AnotherCommandHasThisId:
            raise Unacceptable("AR", hl7v2.DUPLICATE_KEY, "MSH-10 came with another message before") from None
        commands.append(str(made.command_id))
    db.executemany("INSERT OR IGNORE INTO hl7_commands VALUES (?, ?)", [(one, now.isoformat()) for one in commands])
    if understood.patient is not None:
        db.execute("INSERT OR REPLACE INTO hl7_patients VALUES (?, ?)", understood.patient)
    if understood.opened is not None:
        db.execute("INSERT OR REPLACE INTO hl7_visits VALUES (?, ?, 0)", understood.opened)
    if understood.ended is not None:
        db.execute("UPDATE hl7_visits SET ended = 1 WHERE number = ?", (understood.ended,))
    return commands


class _OnDisk:
    """What the store knows, for one message."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def patient(self, number: str) -> str | None:
        holder = local_views.holder_of(self._db, number)
        if holder is not None:
            return holder
        row = self._db.execute("SELECT patient_id FROM hl7_patients WHERE number = ?", (number,)).fetchone()
        return None if row is None else str(row[0])

    def demographics(self, patient_id: str) -> Json | None:
        return local_views.patient_summary(self._db, patient_id)

    def visit(self, number: str) -> Visit | None:
        row = self._db.execute("SELECT encounter_id, ended FROM hl7_visits WHERE number = ?", (number,)).fetchone()
        return None if row is None else Visit(row["encounter_id"], bool(row["ended"]))

    def open_encounters(self, patient_id: str) -> list[str]:
        found = local_views.patient_summary(self._db, patient_id) or {}
        return [str(encounter["id"]) for encounter in found.get("encounters", [])]


def _digest(content: bytes, kind: str) -> str:
    """Of everything but the header, whose time of sending a repetition may have anew."""
    _, _, body = content.lstrip(b"\r\n").replace(b"\r\n", b"\r").replace(b"\n", b"\r").partition(b"\r")
    return hashlib.sha256(kind.encode() + b"\r" + body).hexdigest()


def _where(detail: str) -> str:
    """A refusal of the command's fields, told in the message's places."""
    said, colon, fields = detail.partition(": ")
    if not colon:
        return detail
    return f"{said}: {', '.join(person.PLACES.get(field, field) for field in fields.split(', '))}"
