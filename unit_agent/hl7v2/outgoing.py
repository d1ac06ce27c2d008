"""Messages on their way to the site's own system, on this disk: written with the fact they tell of, sent in its order.

A message is written in the transaction that takes its fact from the feed, so none is missed and none is sent for a fact
that is not here. It stays until it is acknowledged, or is set aside when the receiver will not have it. Unit commands
sent this way are noted before their first byte leaves, so that it is known later whether they can have arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from contracts.envelope import Fact, Json
from contracts.patient import PatientErased
from unit_agent import site_record
from unit_agent.hl7v2 import inbox
from unit_agent.hl7v2.options import Send
from unit_agent.hl7v2.writing import adt, control_id_of_fact
from unit_agent.store import Store

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS hl7_to_send (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    position INTEGER NOT NULL,
    control_id TEXT NOT NULL UNIQUE,
    fact TEXT NOT NULL,
    patient_id TEXT,
    content TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    set_aside TEXT
)""",
    "CREATE INDEX IF NOT EXISTS hl7_waiting ON hl7_to_send (seq) WHERE set_aside IS NULL",
    "CREATE INDEX IF NOT EXISTS hl7_waiting_of ON hl7_to_send (patient_id)",
    "CREATE TABLE IF NOT EXISTS hl7_sending (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS hl7_orders (
    unit_command_id TEXT PRIMARY KEY, written_at TEXT NOT NULL, code TEXT, condition TEXT
) WITHOUT ROWID""",
)
_EMPTY: Final = "it tells of nobody this unit knows"

log = structlog.get_logger()


@dataclass(frozen=True)
class Waiting:
    """The message that is next."""

    seq: int
    position: int
    control_id: str
    content: str
    attempts: int


@dataclass(frozen=True)
class Written:
    """What is known of a unit command whose message has begun to leave; `code` None: no answer has come."""

    code: str | None
    condition: str


def prepare(store: Store, now: datetime) -> datetime:
    """Make room in the store; answers since when facts are sent: the first time this was done."""
    inbox.prepare(store)
    with store.transaction() as db:
        for statement in SCHEMA:
            db.execute(statement)
        db.execute("INSERT OR IGNORE INTO hl7_sending VALUES ('since', ?)", (now.isoformat(),))
        since = db.execute("SELECT value FROM hl7_sending WHERE key = 'since'").fetchone()[0]
    return datetime.fromisoformat(since)


def learner(
    options: Send, unit_id: str, *, since: datetime, wake: Callable[[], None]
) -> Callable[[sqlite3.Connection, Fact], None]:
    """What writes a message for each fact that is to be sent, inside the transaction that takes the fact."""

    def learn(db: sqlite3.Connection, fact: Fact) -> None:
        event, patient_id = options.facts.get(fact.type), fact.payload.get("patientId")
        if fact.erased or fact.type == PatientErased.type_name():
            # What still waits tells of somebody whose data were erased.
            db.execute("DELETE FROM hl7_to_send WHERE patient_id = ?", (patient_id,))
            return
        if event is None or fact.recorded_at < since or inbox.came_from_here(db, fact):
            return
        content = _content(db, fact, event, unit_id, options)
        db.execute(
            "INSERT OR IGNORE INTO hl7_to_send (position, control_id, fact, patient_id, content, set_aside) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                fact.position,
                control_id_of_fact(fact.position),
                fact.type,
                patient_id,
                content,
                None if content else _EMPTY,
            ),
        )
        wake()

    return learn


def following(db: sqlite3.Connection) -> Waiting | None:
    """The oldest message that is not set aside."""
    row = db.execute("SELECT * FROM hl7_to_send WHERE set_aside IS NULL ORDER BY seq LIMIT 1").fetchone()
    if row is None:
        return None
    return Waiting(row["seq"], row["position"], row["control_id"], row["content"], row["attempts"])


def sent(store: Store, one: Waiting, now: datetime) -> None:
    """The receiver has it: the message goes, the position stays."""
    with store.transaction() as db:
        db.execute("DELETE FROM hl7_to_send WHERE seq = ?", (one.seq,))
        _put(db, "position", one.position)
        _put(db, "sent", int(_get(db, "sent") or 0) + 1)
        _put(db, "last_sent_at", now.isoformat())


def not_taken(store: Store, one: Waiting, why: str, *, for_good: bool) -> None:
    """The receiver answered AE or AR; `for_good`: the next ones go on without it."""
    with store.transaction() as db:
        db.execute(
            "UPDATE hl7_to_send SET attempts = attempts + 1, set_aside = ? WHERE seq = ?",
            (why if for_good else None, one.seq),
        )


def send_again(store: Store) -> int:
    """Put everything that was set aside back in line, in its old place; returns how many."""
    with store.transaction() as db:
        return db.execute(
            "UPDATE hl7_to_send SET set_aside = NULL, attempts = 0 WHERE set_aside IS NOT NULL AND content <> ''"
        ).rowcount


def report(db: sqlite3.Connection) -> Json:
    """Where sending stands."""
    waiting, aside = db.execute(
        "SELECT count(*) FILTER (WHERE set_aside IS NULL), count(*) FILTER (WHERE set_aside IS NOT NULL) "
        "FROM hl7_to_send"
    ).fetchone()
    return {
        "waiting": waiting,
        "setAside": aside,
        "sent": int(_get(db, "sent") or 0),
        "position": int(_get(db, "position") or 0),
        "lastSentAt": _get(db, "last_sent_at"),
    }


def about_to_write(store: Store, order_id: UUID) -> None:
    """From here on the receiver may have got this unit command."""
    with store.transaction() as db:
        db.execute(
            "INSERT OR REPLACE INTO hl7_orders (unit_command_id, written_at) VALUES (?, ?)",
            (str(order_id), datetime.now(UTC).isoformat()),
        )


def answered(store: Store, order_id: UUID, code: str, condition: str) -> None:
    """What the receiver said to this unit command."""
    with store.transaction() as db:
        db.execute(
            "UPDATE hl7_orders SET code = ?, condition = ? WHERE unit_command_id = ?", (code, condition, str(order_id))
        )


def written(db: sqlite3.Connection, order_id: UUID) -> Written | None:
    """What is known of a unit command; None: no byte of it ever left."""
    row = db.execute("SELECT code, condition FROM hl7_orders WHERE unit_command_id = ?", (str(order_id),)).fetchone()
    return None if row is None else Written(row["code"], row["condition"] or "")


def _content(db: sqlite3.Connection, fact: Fact, event: str, unit_id: str, options: Send) -> str:
    """The message; empty when the fact does not say enough for one. Nothing a fact holds may stop the feed."""
    patient_id = fact.payload.get("patientId")
    patient = site_record.patient_summary(db, str(patient_id))
    if patient is None:
        return ""
    encounter_id = fact.payload.get("encounterId")
    encounter = None if encounter_id is None else site_record.encounter_summary(db, str(encounter_id))
    if encounter is not None:
        encounter |= {name: fact.payload[name] for name in ("priority", "reason") if fact.payload.get(name)}
    try:
        return adt(
            event,
            patient,
            encounter,
            control_id=control_id_of_fact(fact.position),
            occurred_at=fact.occurred_at,
            now=fact.recorded_at,
            unit_id=unit_id,
            options=options,
        )
    except (KeyError, TypeError, ValueError) as why:
        log.error("hl7_not_written", unit_id=unit_id, position=fact.position, error_type=type(why).__name__)
        return ""


def _get(db: sqlite3.Connection, key: str) -> str | int | None:
    row = db.execute("SELECT value FROM hl7_sending WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _put(db: sqlite3.Connection, key: str, value: str | int) -> None:
    db.execute("INSERT INTO hl7_sending VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value))
