"""How caches learn: a function per kind of fact, and one per kind of record of a snapshot.

Each runs inside the transaction that keeps the fact, or that puts the whole snapshot in the place of what was known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from contracts.envelope import Fact, Json
from contracts.model import Event

Learner = Callable[[sqlite3.Connection, Fact, Json], object]
Recorder = Callable[[sqlite3.Connection, Json], object]


def instant(text: str | None) -> str | None:
    """An instant as caches keep it, however it was written: in UTC, so that equal ones are equal text."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC).isoformat()


class Learners:
    """What one family of tables does with the facts it is interested in."""

    def __init__(self) -> None:
        self._by_type: dict[str, Learner] = {}
        self._by_kind: dict[str, tuple[str, Recorder]] = {}
        """Kind of record -> its table, and what takes it in."""

    def on(self, *events: type[Event]) -> Callable[[Learner], Learner]:
        """Register a function for these kinds of facts."""

        def note(learner: Learner) -> Learner:
            for event in events:
                self._by_type[event.type_name()] = learner
            return learner

        return note

    def learn(self, db: sqlite3.Connection, fact: Fact) -> None:
        """Take one fact in, inside the caller's transaction."""
        learner = self._by_type.get(fact.type)
        if learner is not None:
            learner(db, fact, fact.payload)

    def record(self, kind: str, *, table: str) -> Callable[[Recorder], Recorder]:
        """Register a function for records of this kind, which stand in `table` and nowhere else."""

        def note(recorder: Recorder) -> Recorder:
            self._by_kind[kind] = table, recorder
            return recorder

        return note

    def forget(self, db: sqlite3.Connection) -> None:
        """Empty the tables that a snapshot fills, inside the caller's transaction."""
        for table, _ in self._by_kind.values():
            db.execute(f'DELETE FROM "{table}"')  # noqa: S608 - named in our own code

    def take(self, db: sqlite3.Connection, kind: str, body: Json) -> None:
        """Take in one record of a snapshot, if it is of a kind known here."""
        known = self._by_kind.get(kind)
        if known is not None:
            known[1](db, body)
