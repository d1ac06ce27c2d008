"""What can be read off the running system from outside: positions, links, letters. To show, and to wait by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import psycopg

_READ = """
SELECT (SELECT sum(head) FROM log_partitions)::bigint,
    (SELECT sum(position) FROM projection_checkpoints)::bigint,
    (SELECT count(*) FROM unit_sessions WHERE connected AND lease_until > now()),
    (SELECT count(*) FROM dead_letters WHERE status IN ('open', 'replaying')),
    (SELECT count(*) FROM read_unit_commands WHERE status = 'queued')
"""


@dataclass(frozen=True)
class Reading:
    """One look."""

    stored: int = 0
    projected: int = 0
    linked: int = 0
    letters: int = 0
    orders_open: int = 0


class Gauges:
    """One connection to Postgres that only looks. Blocking; threads take turns at it."""

    def __init__(self, postgres_url: str) -> None:
        self._connection = psycopg.connect(postgres_url, autocommit=True, connect_timeout=10)

    def close(self) -> None:
        self._connection.close()

    def read(self) -> Reading:
        """How things stand now."""
        row = self._connection.execute(_READ).fetchone()
        return Reading(*row) if row else Reading()

    def heads(self) -> dict[str, int]:
        """By unit: the position of its last fact."""
        return dict(self._connection.execute("SELECT unit_id, max(position) FROM events GROUP BY unit_id").fetchall())

    def count(self, unit_id: str, after: int) -> int:
        """How many facts of the unit lie beyond a position."""
        statement = "SELECT count(*) FROM events WHERE unit_id = %s AND position > %s"
        row = self._connection.execute(statement, (unit_id, after)).fetchone()
        return int(row[0]) if row else 0

    def unanswered(self, command_ids: Iterable[UUID]) -> int:
        """How many of these commands have no receipt yet."""
        ids = list(command_ids)
        statement = "SELECT count(*) FROM command_receipts WHERE command_id = ANY(%s)"
        row = self._connection.execute(statement, (ids,)).fetchone()
        return len(ids) - (row[0] if row else 0)
