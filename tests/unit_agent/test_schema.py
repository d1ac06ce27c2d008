"""A store that a former release wrote is taken as it is, with everything in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit_agent.told import NOON, UNIT, frame, queued, told
from unit_agent import mailbox
from unit_agent.schema import bring_up_to_date
from unit_agent.store import SCHEMA_VERSION, Store, StoreUnusable

BEFORE = """
CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL, gone TEXT) WITHOUT ROWID;
CREATE INDEX things_by_size ON things (size);
CREATE TABLE steps (seq INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT CHECK (state IN ('open')));
CREATE TABLE of_others (a INTEGER);
CREATE INDEX of_others_by_a ON of_others (a);
"""
NOW = """
CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL, colour TEXT NOT NULL DEFAULT 'red') WITHOUT ROWID;
CREATE INDEX things_by_colour ON things (colour);
CREATE TABLE steps (seq INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT CHECK (state IN ('open', 'closed')));
CREATE TABLE more (a INTEGER);
"""


def test_rows_are_kept_columns_added_and_dropped_and_indexes_made_anew() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(BEFORE)
        db.execute("INSERT INTO things VALUES ('a', 1, 'x'), ('b', 2, 'y')")
        db.execute("INSERT INTO steps (state) VALUES ('open'), ('open')")
        db.execute("DELETE FROM steps WHERE seq = 2")
        for _ in range(2):  # the second time there is nothing to do
            bring_up_to_date(db, [NOW])
        assert db.execute("SELECT * FROM things").fetchall() == [("a", 1, "red"), ("b", 2, "red")]
        db.execute("UPDATE steps SET state = 'closed'")
        db.execute("INSERT INTO more VALUES (1)")
        indexes = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")}
        assert indexes == {"things_by_colour", "of_others_by_a"}


def test_what_was_received_before_the_update_is_there_after_it(tmp_path: Path) -> None:
    with Store(tmp_path, UNIT) as store:
        store.take([frame(told(1, queued()))], head=0, now=NOON)
        instance = store.instance
        store.db.execute("ALTER TABLE unit_commands DROP COLUMN attempt")  # as it was once
        store.db.execute("DROP TABLE snapshot_parts")
        store.db.execute("PRAGMA user_version = 1")
    with Store(tmp_path, UNIT) as store:
        assert store.position == 1
        assert store.instance == instance
        order = mailbox.next_order(store.db, set())
        assert order is not None
        assert order.attempt == 1


def test_a_store_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path, UNIT) as store:
        store.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreUnusable, match="newer agent"):
        Store(tmp_path, UNIT)
