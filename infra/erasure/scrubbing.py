"""What a purge leaves in Postgres' files, made to go: old versions of rows, planner's statistics, the write-ahead log.

A purged row's former bytes stay in its page, in samples the planner keeps and in log segments until these are written
anew. This is the stated procedure for that; it locks one table after the other, so it has its own hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, LiteralString

import psycopg

TABLES: Final[tuple[LiteralString, ...]] = (
    "subject_keys",
    "read_patients",
    "read_encounters",
    "read_tasks",
    "read_unit_commands",
    "dead_letters",
    "command_receipts",
    "letters_out",
    "timers",
    "claims",
)
"""Whose rows are changed or deleted by an erasure, or by what led to one. The log itself is never rewritten."""
LOCK_SECONDS: Final = 60


def scrub(superuser_url: str) -> Iterator[str]:
    """Carry the procedure out, telling of each step; repeat it whenever it was broken off.

    Log segments from before it are removed and not used again; what was archived or backed up elsewhere is the
    operator's to end (docs/erasure.md).
    """
    with psycopg.connect(superuser_url, autocommit=True, connect_timeout=10) as server:
        server.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        for table in TABLES:
            server.execute("VACUUM (FULL, ANALYZE) " + table)
            yield table
        # Most common values and histogram bounds of names and words stood here.
        server.execute("VACUUM FULL pg_catalog.pg_statistic")
        yield "pg_statistic"
        before = server.execute("SHOW wal_recycle").fetchone()
        server.execute("ALTER SYSTEM SET wal_recycle = off")
        server.execute("SELECT pg_reload_conf()")
        try:
            for _ in range(2):  # the first makes the old segments needless, the second removes them
                server.execute("SELECT pg_switch_wal()")
                server.execute("CHECKPOINT")
        finally:
            if before is not None and before[0] == "on":
                server.execute("ALTER SYSTEM RESET wal_recycle")
                server.execute("SELECT pg_reload_conf()")
        yield "write-ahead log"
