"""A snapshot on its way to the agent's caches: its parts wait on disk until the last is here, then all change together.

What the caches make of records is their own (`learning.Learners`); the order of parts is `unit_agent.link`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from contracts.envelope import Fact
from contracts.frames import Snapshot
from unit_agent import mailbox
from unit_agent.learning import Learners

SCHEMA: Final = """
CREATE TABLE snapshot_parts (
    part INTEGER PRIMARY KEY,
    frame BLOB NOT NULL
);
"""


def stage(db: sqlite3.Connection, part: Snapshot) -> None:
    """Keep a part until the last is here; the first one makes whatever was left of another snapshot go."""
    if part.part == 0:
        clear(db)
    db.execute("INSERT INTO snapshot_parts VALUES (?, ?)", (part.part, part.to_json()))


def clear(db: sqlite3.Connection) -> None:
    """Forget parts of a snapshot that never came to its end."""
    db.execute("DELETE FROM snapshot_parts")


@dataclass(frozen=True)
class Swapped:
    """What a snapshot brought besides the state of the caches."""

    facts: Sequence[Fact]
    """Those not here before, all of unit commands that are still to be executed."""
    reports: int
    """Reports that they have put in the outbox."""


def swap(
    db: sqlite3.Connection, last: Snapshot, caches: Sequence[Learners], *, after: int, head: int, now: datetime
) -> Swapped:
    """Put the caches into the snapshot's state, in the caller's transaction; facts through `after` are here already.

    Unit commands that are not in the snapshot have ended at the centre while nobody here was told.
    """
    for cache in caches:
        cache.forget(db)
    told: list[Fact] = []
    for part in _parts(db, last):
        for record in part.records:
            for cache in caches:
                cache.take(db, record.kind, record.body)
        told += part.facts
    still_open = {str(fact.payload["unitCommandId"]) for fact in told if "unitCommandId" in fact.payload}
    known = mailbox.known(db, still_open)
    # Of a command that is here, everything through `after` was learned when it came; of others nothing was.
    facts = [fact for fact in told if fact.position > after or fact.payload.get("unitCommandId") not in known]
    reports = sum(mailbox.learn(db, fact, late=fact.position <= head, now=now) for fact in facts)
    mailbox.only_open(db, still_open, now)
    clear(db)
    return Swapped(facts, reports)


def _parts(db: sqlite3.Connection, last: Snapshot) -> Iterator[Snapshot]:
    rows = db.execute("SELECT frame FROM snapshot_parts WHERE part < ? ORDER BY part", (last.part,))
    for (frame,) in rows:
        yield Snapshot.model_validate_json(frame)
    yield last
