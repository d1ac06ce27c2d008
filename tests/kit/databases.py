"""A fresh, migrated database for each test: cloned from a template that is migrated once.

The template carries a digest of the migrations in its name, so a server that outlives the run never serves an old
schema.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


@contextlib.contextmanager
def fresh_database(postgres_url: str) -> Iterator[str]:
    """The URL of a migrated, empty database that is dropped afterwards, whoever is still connected."""
    template = _template(postgres_url)
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield with_database(postgres_url, name)
    finally:
        _drop(postgres_url, name)


@contextlib.contextmanager
def bare_database(postgres_url: str) -> Iterator[str]:
    """The URL of a database without any schema, for tests of the migrations themselves."""
    name = f"bare_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield with_database(postgres_url, name)
    finally:
        _drop(postgres_url, name)


def _drop(postgres_url: str, name: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _template(postgres_url: str) -> str:
    """The name of the migrated template, made if this server has none for the migrations as they are now."""
    name = f"template_{_digest()}"
    with psycopg.connect(postgres_url, autocommit=True) as server:
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return name
        draft = f"draft_{secrets.token_hex(6)}"
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(draft)))
        try:
            from migrations import upgrade  # late: tests that need no database must not need the schema

            upgrade(with_database(postgres_url, draft))
            server.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(draft), sql.Identifier(name))
            )
        except psycopg.errors.DuplicateDatabase:  # another run was quicker: its template is as good
            _drop(postgres_url, draft)
        except BaseException:
            _drop(postgres_url, draft)
            raise
    return name


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parents[2] / "migrations").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
