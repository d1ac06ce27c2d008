"""Commands made at the unit, on their way to the centre: kept in the order they were made until their outcome is known.

waiting (on this disk) -> accepted (safe with the centre's broker) -> settled (its outcome is known); or refused (the
centre cannot take it as it is). Nothing is forgotten before the centre has said that it has it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from contracts.envelope import Fact, Json, Outcome
from unit_agent import conflicts, provisional

SCHEMA: Final = """
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    subject TEXT NOT NULL,
    issued_at TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'accepted', 'refused', 'settled')),
    code TEXT,
    detail TEXT,
    outcome TEXT,
    asks INTEGER NOT NULL DEFAULT 0,
    ask_at TEXT
);
CREATE INDEX outbox_waiting ON outbox (seq) WHERE state = 'waiting';
CREATE INDEX outbox_unanswered ON outbox (seq) WHERE state = 'accepted';
CREATE INDEX outbox_answered ON outbox (seq) WHERE state = 'accepted' AND ask_at = '';
"""

_TOLD_OF: Final = "SELECT * FROM outbox WHERE state = 'accepted' AND ask_at = '' ORDER BY seq LIMIT ?"
_OLDEST: Final = """
SELECT * FROM (SELECT * FROM outbox WHERE state = 'accepted' ORDER BY seq LIMIT ?) WHERE ask_at <> '' AND ask_at <= ?
LIMIT ?
"""

FIRST_ASK: Final = timedelta(seconds=1)
LONGEST_ASK: Final = timedelta(seconds=60)


class AnotherCommandHasThisId(Exception):
    """The same idempotency key came with another command."""


@dataclass(frozen=True)
class Waiting:
    """A command that is to go up."""

    seq: int
    command_id: UUID
    type: str
    payload: Json
    issued_at: datetime
    subject: str


@dataclass(frozen=True)
class Made:
    """A command as it was made here."""

    issued_at: datetime
    payload: Json


def add(
    db: sqlite3.Connection, *, command_id: UUID, type_name: str, payload: Json, subject: str, issued_at: datetime
) -> bool:
    """Keep a command until the centre has it, inside the caller's transaction; False when it is here already."""
    known = db.execute("SELECT type, payload FROM outbox WHERE command_id = ?", (str(command_id),)).fetchone()
    if known is not None:
        if (known["type"], json.loads(known["payload"])) != (type_name, payload):
            raise AnotherCommandHasThisId
        return False
    db.execute(
        "INSERT INTO outbox (command_id, type, payload, subject, issued_at) VALUES (?, ?, ?, ?, ?)",
        (str(command_id), type_name, json.dumps(payload), subject, issued_at.isoformat()),
    )
    return True


def made(db: sqlite3.Connection, command_id: UUID) -> Made | None:
    """A command that is here already; None when it is not."""
    row = db.execute("SELECT issued_at, payload FROM outbox WHERE command_id = ?", (str(command_id),)).fetchone()
    return None if row is None else Made(datetime.fromisoformat(row["issued_at"]), json.loads(row["payload"]))


def waiting(
    db: sqlite3.Connection, *, after: int, limit: int, put_off: Collection[UUID] = frozenset()
) -> list[Waiting]:
    """Commands still to go up, in the order they were made, from beyond sequence number `after`.

    Those `put_off` go up again even where a fact has told meanwhile that they were carried out.
    """
    if put_off:
        rows = db.execute(
            "SELECT * FROM outbox WHERE (state = 'waiting' OR command_id IN (SELECT value FROM json_each(?))) "
            "AND seq > ? ORDER BY seq LIMIT ?",
            (json.dumps([str(command_id) for command_id in put_off]), after, limit),
        )
    else:
        rows = db.execute(
            "SELECT * FROM outbox WHERE state = 'waiting' AND seq > ? ORDER BY seq LIMIT ?", (after, limit)
        )
    return [
        Waiting(
            row["seq"],
            UUID(row["command_id"]),
            row["type"],
            json.loads(row["payload"]),
            datetime.fromisoformat(row["issued_at"]),
            row["subject"],
        )
        for row in rows
    ]


def accepted(db: sqlite3.Connection, command_ids: Iterable[UUID], now: datetime) -> None:
    """The centre has these; what becomes of them is asked a little later."""
    db.executemany(
        "UPDATE outbox SET state = 'accepted', ask_at = coalesce(ask_at, ?) WHERE command_id = ? AND state = 'waiting'",
        [((now + FIRST_ASK).isoformat(), str(command_id)) for command_id in command_ids],
    )


def refused(db: sqlite3.Connection, command_id: UUID, code: str, detail: str) -> None:
    """The centre cannot take this one as it is, inside the caller's transaction."""
    changed = db.execute(
        "UPDATE outbox SET state = 'refused', code = ?, detail = ? WHERE command_id = ? AND state = 'waiting'",
        (code, detail, str(command_id)),
    )
    if changed.rowcount:
        conflicts.declined(db, str(command_id), code, detail)
        provisional.drop(db, str(command_id))


def any_open(db: sqlite3.Connection) -> bool:
    """Whether there is a command whose outcome is not known here yet."""
    waits = db.execute("SELECT 1 FROM outbox WHERE state = 'waiting' LIMIT 1").fetchone()
    return bool(waits or db.execute("SELECT 1 FROM outbox WHERE state = 'accepted' LIMIT 1").fetchone())


def learn(db: sqlite3.Connection, fact: Fact) -> bool:
    """A fact that a command of ours brought about: its outcome is there to ask for, even if `accepted` got lost."""
    changed = db.execute(
        "UPDATE outbox SET state = 'accepted', ask_at = '' WHERE command_id = ? AND state IN ('waiting', 'accepted')",
        (str(fact.command_id),),
    )
    return changed.rowcount > 0


def to_ask(db: sqlite3.Connection, now: datetime, limit: int) -> list[UUID]:
    """Accepted commands whose outcome it is time to ask for; each is then asked for again later and later.

    Those that a fact has told of, and else only the oldest: a unit's commands are handled in their order, so while
    those have no outcome the many behind them are not worth a question.
    """
    rows = db.execute(_TOLD_OF, (limit,)).fetchall()
    rows += db.execute(_OLDEST, (limit, now.isoformat(), limit - len(rows))).fetchall()
    for row in rows:
        pause = min(FIRST_ASK * 2 ** min(row["asks"], 10), LONGEST_ASK)
        db.execute(
            "UPDATE outbox SET asks = asks + 1, ask_at = ? WHERE command_id = ?",
            ((now + pause).isoformat(), row["command_id"]),
        )
    return [UUID(row["command_id"]) for row in rows]


def settle(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    """How commands ended, as the centre tells, and what follows from it here; inside the caller's transaction."""
    position = db.execute("SELECT coalesce(max(value), 0) FROM state WHERE key = 'position'").fetchone()[0]
    for outcome in outcomes:
        changed = db.execute(
            "UPDATE outbox SET state = 'settled', outcome = ?, ask_at = NULL "
            "WHERE command_id = ? AND state IN ('waiting', 'accepted')",
            (outcome.to_json().decode(), str(outcome.command_id)),
        )
        if changed.rowcount:
            conflicts.settled(db, outcome)
            provisional.settle(db, outcome, position)


def depth(db: sqlite3.Connection) -> int:
    """Commands the centre does not have yet."""
    return int(db.execute("SELECT count(*) FROM outbox WHERE state = 'waiting'").fetchone()[0])


def unanswered(db: sqlite3.Connection) -> bool:
    """Whether there are commands the centre has and whose outcome is not known here yet."""
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'accepted')").fetchone()[0])


def status(db: sqlite3.Connection, command_id: str) -> Json | None:
    """Where a command made here stands; None when it was never made here."""
    row = db.execute("SELECT * FROM outbox WHERE command_id = ?", (command_id,)).fetchone()
    if row is None:
        return None
    told: Json = {
        "commandId": row["command_id"],
        "type": row["type"],
        "issuedAt": row["issued_at"],
        "status": row["state"],
    }
    if row["state"] == "refused":
        told |= {"code": row["code"], "detail": row["detail"]}
    if row["outcome"] is not None:
        told["outcome"] = json.loads(row["outcome"])
    return told
