"""Commands made here that the centre did not carry out: kept, counted and listed until somebody has seen them.

What becomes of them at the centre (a task of the unit) is the centre's own affair.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Final

from contracts.envelope import Fact, Json, Outcome, Status

SCHEMA: Final = """
CREATE TABLE conflicts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    issued_at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('refused', 'declined', 'failed')),
    code TEXT NOT NULL,
    detail TEXT,
    about TEXT,
    found_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    seen_at TEXT
);
CREATE INDEX conflicts_open ON conflicts (seq) WHERE seen_at IS NULL;
"""

_NOTE: Final = """
INSERT OR IGNORE INTO conflicts (command_id, type, subject, issued_at, kind, code, detail, about)
SELECT command_id, type, subject, issued_at, ?, ?, ?, ? FROM outbox WHERE command_id = ?
"""


def settled(db: sqlite3.Connection, outcome: Outcome) -> None:
    """How a command ended, if that is a conflict: refused by a rule, or kept at the centre as a dead letter."""
    if outcome.status not in (Status.REFUSED, Status.FAILED):
        return
    kind = "refused" if outcome.status is Status.REFUSED else "failed"
    about = None if outcome.about is None else json.dumps(outcome.about)
    db.execute(_NOTE, (kind, outcome.code or kind, outcome.detail, about, str(outcome.command_id)))


def declined(db: sqlite3.Connection, command_id: str, code: str, detail: str) -> None:
    """The centre's door did not let it in."""
    db.execute(_NOTE, ("declined", code, detail, None, command_id))


def any_failed(db: sqlite3.Connection) -> bool:
    """Whether facts could still bring one of them to an end."""
    return bool(db.execute("SELECT 1 FROM conflicts WHERE seen_at IS NULL AND kind = 'failed' LIMIT 1").fetchone())


def learn(db: sqlite3.Connection, fact: Fact) -> None:
    """A fact of a command that had failed: somebody at the centre has brought it to its end, as it was meant."""
    db.execute(
        "UPDATE conflicts SET seen_at = ? WHERE command_id = ? AND kind = 'failed' AND seen_at IS NULL",
        (fact.recorded_at.isoformat(), str(fact.command_id)),
    )


def seen(db: sqlite3.Connection, command_id: str, at: datetime) -> bool:
    """Somebody at the site has taken note; False when there is no such conflict."""
    changed = db.execute(
        "UPDATE conflicts SET seen_at = coalesce(seen_at, ?) WHERE command_id = ?", (at.isoformat(), command_id)
    )
    return changed.rowcount > 0


def listing(db: sqlite3.Connection, *, before: int | None, only_open: bool, limit: int) -> list[Json]:
    """Conflicts, newest first, from before sequence number `before`."""
    rows = db.execute(
        "SELECT * FROM conflicts WHERE (?1 IS NULL OR seq < ?1) AND (NOT ?2 OR seen_at IS NULL) "
        "ORDER BY seq DESC LIMIT ?3",
        (before, only_open, limit),
    )
    return [_told(row) for row in rows]


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """How many there are that nobody has seen yet, and ever were."""
    waiting, total = db.execute("SELECT count(*) FILTER (WHERE seen_at IS NULL), count(*) FROM conflicts").fetchone()
    return {"open": waiting, "total": total}


def by_code(db: sqlite3.Connection) -> dict[str, int]:
    """How many there ever were of each code."""
    return dict(db.execute("SELECT code, count(*) FROM conflicts GROUP BY code").fetchall())


def _told(row: sqlite3.Row) -> Json:
    told: Json = {
        "seq": row["seq"],
        "commandId": row["command_id"],
        "type": row["type"],
        "subject": row["subject"],
        "issuedAt": row["issued_at"],
        "kind": row["kind"],
        "code": row["code"],
        "detail": row["detail"],
        "about": None if row["about"] is None else json.loads(row["about"]),
        "foundAt": row["found_at"],
        "seenAt": row["seen_at"],
    }
    return {name: value for name, value in told.items() if value is not None}
