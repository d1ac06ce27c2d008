"""How caches learn from facts: a function per kind of fact, run inside the transaction that keeps the fact."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from contracts.envelope import Fact, Json
from contracts.model import Event

Learner = Callable[[sqlite3.Connection, Fact, Json], object]


class Learners:
    """What one family of tables does with the facts it is interested in."""

    def __init__(self) -> None:
        self._by_type: dict[str, Learner] = {}

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
