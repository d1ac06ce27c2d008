"""The store's tables as this release has them: made where they are missing, brought up to date where they differ.

A table that a former release wrote is copied into its new shape, column by column, and its indexes are made anew; all
of it in the caller's transaction. New columns need a default or may be empty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


def bring_up_to_date(db: sqlite3.Connection, schemas: Iterable[str]) -> None:
    """Make the file's tables and indexes those of `schemas`; tables not named there are left alone."""
    wanted = _as_told(schemas)
    found = _objects(db)
    for name, sql in wanted["table"].items():
        if name not in found["table"]:
            db.execute(sql)
        elif found["table"][name] != sql:
            _reshape(db, name, sql)
    indexes = _objects(db)["index"]
    for name, sql in indexes.items():
        if sql != wanted["index"].get(name) and _table_of(db, name) in wanted["table"]:
            db.execute(f'DROP INDEX "{name}"')
    for name, sql in wanted["index"].items():
        if indexes.get(name) != sql:
            db.execute(sql)


def _as_told(schemas: Iterable[str]) -> dict[str, dict[str, str]]:
    model = sqlite3.connect(":memory:")
    try:
        for schema in schemas:
            model.executescript(schema)
        return _objects(model)
    finally:
        model.close()


def _objects(db: sqlite3.Connection) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"table": {}, "index": {}}
    # SQLite's own tables and indexes have no SQL or a name of its own.
    for kind, name, sql in db.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    ):
        if kind in found:
            found[kind][name] = sql
    return found


def _table_of(db: sqlite3.Connection, index: str) -> str:
    return str(db.execute("SELECT tbl_name FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0])


def _reshape(db: sqlite3.Connection, name: str, sql: str) -> None:
    old = f"former_{name}"
    had = [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
    db.execute(f'ALTER TABLE "{name}" RENAME TO "{old}"')
    for (index,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (old,)
    ).fetchall():
        db.execute(f'DROP INDEX "{index}"')
    db.execute(sql)
    has = {row[1] for row in db.execute(f'PRAGMA table_info("{name}")')}
    kept = ", ".join(f'"{column}"' for column in had if column in has)
    db.execute(f'INSERT INTO "{name}" ({kept}) SELECT {kept} FROM "{old}"')  # noqa: S608 - names of our own
    db.execute(f'DROP TABLE "{old}"')
