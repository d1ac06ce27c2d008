"""The journal of durable unit commands: each is executed once, whatever dies in between, and its outcome goes up.

received -> executing -> applied | rejected, or called_off when the centre said so before it began. `executing` is on
disk before the connector is called, and the outcome goes to the outbox in the transaction that ends it, so after a
crash the one doubtful state is `executing`: `unit_agent.execution` asks about those instead of repeating them.

The centre may have a command tried again. Then what was done is only reported again, what may have been done is done
again only if somebody has confirmed it, and everything else waits once more, until the new deadline.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.envelope import Fact, Json
from contracts.ids import UnitCommandId, keyed_command_id
from contracts.unit_command import (
    OUTCOME_UNKNOWN,
    OnReconnect,
    ReportUnitCommand,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandSuperseded,
)
from unit_agent import outbox

SCHEMA: Final = """
CREATE TABLE unit_commands (
    unit_command_id TEXT PRIMARY KEY,
    unit_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    patient_id TEXT,
    deadline TEXT NOT NULL,
    on_reconnect TEXT NOT NULL,
    queued_at TEXT NOT NULL,
    received_at TEXT NOT NULL,
    late INTEGER NOT NULL,
    runnable INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'received'
        CHECK (state IN ('received', 'executing', 'applied', 'rejected', 'called_off')),
    attempts INTEGER NOT NULL DEFAULT 0,
    centre TEXT,
    code TEXT,
    result TEXT,
    ended_at TEXT,
    report_id TEXT,
    attempt INTEGER NOT NULL DEFAULT 1,
    in_doubt INTEGER NOT NULL DEFAULT 0,
    erased INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX unit_commands_open ON unit_commands (position) WHERE state IN ('received', 'executing');
"""

_SAID: Final = {
    UnitCommandApplied.type_name(): "applied",
    UnitCommandRejected.type_name(): "rejected",
    UnitCommandExpired.type_name(): "expired",
    UnitCommandCancelled.type_name(): "cancelled",
    UnitCommandSuperseded.type_name(): "superseded",
}


@dataclass(frozen=True)
class Order:
    """A unit command as whoever executes it sees it."""

    id: UUID
    unit_id: str
    type: str
    payload: Json
    patient_id: str | None
    deadline: datetime
    on_reconnect: OnReconnect
    late: bool
    """It was queued while this agent was away."""
    attempts: int
    """How often the site was asked to do it."""
    attempt: int
    """Which of the centre's attempts this is: 1, and more once it is tried again."""
    in_doubt: bool
    """It may have been done already, and somebody has confirmed that it may be done again."""
    erased: bool
    """What exactly was asked is gone: the person's key was destroyed."""

    @property
    def lane(self) -> str:
        """What its order matters within: one person's commands, or those about nobody in particular."""
        return self.patient_id or ""


def learn(db: sqlite3.Connection, fact: Fact, *, late: bool, now: datetime) -> bool:
    """A fact of the mailbox: a new command, or what became of one. Whether there is a report in the outbox for it."""
    if fact.type == UnitCommandQueued.type_name():
        told = fact.payload
        db.execute(
            "INSERT OR IGNORE INTO unit_commands (unit_command_id, unit_id, position, type, payload, patient_id, "
            "deadline, on_reconnect, queued_at, received_at, late, erased) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                told["unitCommandId"],
                told["unitId"],
                fact.position,
                told["type"],
                json.dumps(told.get("payload") or {}),
                told.get("patientId"),
                told["deadline"],
                told["onReconnect"],
                fact.recorded_at.isoformat(),
                now.isoformat(),
                late,
                fact.erased,
            ),
        )
    elif fact.type == UnitCommandRetried.type_name():
        return _tried_again(db, fact, late=late, now=now)
    elif fact.type in _SAID:
        said = _SAID[fact.type]
        db.execute(
            "UPDATE unit_commands SET centre = ?1, "
            "code = CASE state WHEN 'received' THEN ?1 ELSE code END, "
            "ended_at = CASE state WHEN 'received' THEN ?2 ELSE ended_at END, "
            "state = CASE state WHEN 'received' THEN 'called_off' ELSE state END WHERE unit_command_id = ?3",
            (said, now.isoformat(), fact.payload["unitCommandId"]),
        )
    return False


def _tried_again(db: sqlite3.Connection, fact: Fact, *, late: bool, now: datetime) -> bool:
    told = fact.payload
    row = db.execute("SELECT * FROM unit_commands WHERE unit_command_id = ?", (told["unitCommandId"],)).fetchone()
    if row is None or told["attempt"] <= row["attempt"]:
        return False
    db.execute(
        "UPDATE unit_commands SET attempt = ?, deadline = ?, position = ?, late = ?, centre = NULL "
        "WHERE unit_command_id = ?",
        (told["attempt"], told["deadline"], fact.position, late, told["unitCommandId"]),
    )
    confirmed = bool(told.get("confirmed"))
    was_done = "applied" in (row["state"], row["centre"])
    in_doubt = row["state"] == "rejected" and row["code"] == OUTCOME_UNKNOWN
    if was_done or (in_doubt and not confirmed):
        _report(db, told["unitCommandId"], now)
        return True
    if row["state"] != "executing":  # what is being executed goes on, with the new deadline
        db.execute(
            "UPDATE unit_commands SET state = 'received', runnable = 0, in_doubt = ?, code = NULL, result = NULL, "
            "ended_at = NULL, report_id = NULL WHERE unit_command_id = ?",
            (confirmed, told["unitCommandId"]),
        )
    return False


def known(db: sqlite3.Connection, unit_command_ids: Collection[str]) -> frozenset[str]:
    """Which of these the journal has."""
    rows = db.execute(
        "SELECT unit_command_id FROM unit_commands WHERE unit_command_id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(unit_command_ids)),),
    )
    return frozenset(row["unit_command_id"] for row in rows)


def only_open(db: sqlite3.Connection, unit_command_ids: Collection[str], now: datetime) -> None:
    """These are all that the centre still waits for: it has ended every other one, in whatever way."""
    db.execute(
        "UPDATE unit_commands SET centre = coalesce(centre, 'ended'), "
        "code = CASE state WHEN 'received' THEN 'ended' ELSE code END, "
        "ended_at = CASE state WHEN 'received' THEN ?1 ELSE ended_at END, "
        "state = CASE state WHEN 'received' THEN 'called_off' ELSE state END "
        "WHERE state IN ('received', 'executing') AND unit_command_id NOT IN (SELECT value FROM json_each(?2))",
        (now.isoformat(), json.dumps(sorted(unit_command_ids))),
    )


def release(db: sqlite3.Connection) -> int:
    """The feed is here as far as it reached when the session began: what waits may run. Returns how many are new."""
    return db.execute("UPDATE unit_commands SET runnable = 1 WHERE state = 'received' AND runnable = 0").rowcount


def next_order(db: sqlite3.Connection, busy: Collection[str]) -> Order | None:
    """The oldest command that may run and in whose lane nothing is being executed."""
    rows = db.execute("SELECT * FROM unit_commands WHERE state = 'received' AND runnable = 1 ORDER BY position")
    for row in rows:
        if (row["patient_id"] or "") not in busy:
            return _order(row)
    return None


def interrupted(db: sqlite3.Connection) -> list[Order]:
    """Commands whose execution had begun when the agent died: nobody here knows whether they were done."""
    rows = db.execute("SELECT * FROM unit_commands WHERE state = 'executing' ORDER BY position")
    return [_order(row) for row in rows]


def begin(db: sqlite3.Connection, order: Order) -> bool:
    """Execution begins, once more; False when the centre has called the command off meanwhile."""
    return (
        db.execute(
            "UPDATE unit_commands SET state = 'executing', attempts = attempts + 1 "
            "WHERE unit_command_id = ? AND state IN ('received', 'executing') AND centre IS NULL",
            (str(order.id),),
        ).rowcount
        == 1
    )


def postpone(db: sqlite3.Connection, order: Order, now: datetime) -> None:
    """It is certain that nothing was done: the command waits again, or is over where the centre does not want it."""
    db.execute(
        "UPDATE unit_commands SET code = centre, ended_at = CASE WHEN centre IS NULL THEN NULL ELSE ? END, "
        "state = CASE WHEN centre IS NULL THEN 'received' ELSE 'called_off' END "
        "WHERE unit_command_id = ? AND state = 'executing'",
        (now.isoformat(), str(order.id)),
    )


def end(
    db: sqlite3.Connection, order: Order, *, applied: bool, code: str | None, result: Json | None, now: datetime
) -> bool:
    """What became of it; the report is in the outbox from this transaction on.

    False when it is not over: the centre has it tried again meanwhile, and why not before says nothing of that attempt.
    """
    row = db.execute(
        "SELECT attempt FROM unit_commands WHERE unit_command_id = ? AND state IN ('received', 'executing')",
        (str(order.id),),
    ).fetchone()
    if row is None:
        return True
    if row["attempt"] > order.attempt and not applied and code != OUTCOME_UNKNOWN:
        db.execute(
            "UPDATE unit_commands SET state = 'received', code = NULL WHERE unit_command_id = ?", (str(order.id),)
        )
        return False
    db.execute(
        "UPDATE unit_commands SET state = ?, code = ?, result = ?, ended_at = ? WHERE unit_command_id = ?",
        (
            "applied" if applied else "rejected",
            None if applied else code,
            None if result is None else json.dumps(result),
            now.isoformat(),
            str(order.id),
        ),
    )
    _report(db, str(order.id), now)
    return True


def _report(db: sqlite3.Connection, unit_command_id: str, now: datetime) -> None:
    """Tell the centre how it ended, as the journal has it; once for each attempt, however often this is called."""
    row = db.execute("SELECT * FROM unit_commands WHERE unit_command_id = ?", (unit_command_id,)).fetchone()
    applied = "applied" in (row["state"], row["centre"])
    report = ReportUnitCommand(
        unit_command_id=UnitCommandId(UUID(unit_command_id)),
        applied=applied,
        code=None if applied else row["code"],
        result=None if row["result"] is None else json.loads(row["result"]),
        attempt=row["attempt"],
    )
    which = "" if row["attempt"] == 1 else f":{row['attempt']}"
    report_id = keyed_command_id("agent", row["unit_id"], f"report:{unit_command_id}{which}")
    db.execute("UPDATE unit_commands SET report_id = ? WHERE unit_command_id = ?", (str(report_id), unit_command_id))
    outbox.add(
        db,
        command_id=report_id,
        type_name=report.type_name(),
        payload=report.to_dict(),
        subject="agent",
        issued_at=now,
    )


def open_count(db: sqlite3.Connection) -> int:
    """Commands received and not ended."""
    query = "SELECT count(*) FROM unit_commands WHERE state IN ('received', 'executing')"
    return int(db.execute(query).fetchone()[0])


def listing(db: sqlite3.Connection, limit: int) -> list[Json]:
    """The newest commands first, with where each stands and whether the centre has its report."""
    rows = db.execute(
        "SELECT c.*, o.state AS report FROM unit_commands c LEFT JOIN outbox o ON o.command_id = c.report_id "
        "ORDER BY c.position DESC LIMIT ?",
        (limit,),
    )
    return [
        {
            "id": row["unit_command_id"],
            "type": row["type"],
            "state": row["state"],
            "deadline": row["deadline"],
            "onReconnect": row["on_reconnect"],
            "receivedAt": row["received_at"],
            "late": bool(row["late"]),
            "attempts": row["attempts"],
            "attempt": row["attempt"],
            "code": row["code"],
            "endedAt": row["ended_at"],
            "reported": row["report"] in ("accepted", "settled"),
        }
        for row in rows
    ]


def _order(row: sqlite3.Row) -> Order:
    return Order(
        id=UUID(row["unit_command_id"]),
        unit_id=row["unit_id"],
        type=row["type"],
        payload=json.loads(row["payload"]),
        patient_id=row["patient_id"],
        deadline=datetime.fromisoformat(row["deadline"]),
        on_reconnect=OnReconnect(row["on_reconnect"]),
        late=bool(row["late"]),
        attempts=row["attempts"],
        attempt=row["attempt"],
        in_doubt=bool(row["in_doubt"]),
        erased=bool(row["erased"]),
    )
