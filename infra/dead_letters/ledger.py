"""The ledger: every act on a dead letter, append-only; each entry carries the hash of the one before it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from psycopg.rows import class_row

from infra.database import Connection

_LOCK = 0x1ED6E2
GENESIS = b"\x00" * 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One act: who did what to which letter or run, why, and the chain."""

    entry: int
    at: datetime
    actor: str
    act: str
    letter_id: UUID | None
    run_id: UUID | None
    reason: str
    previous_hash: bytes
    hash: bytes

    def expected_hash(self) -> bytes:
        """What the hash must be for what stands here."""
        about = [
            self.entry,
            self.at.isoformat(),
            self.actor,
            self.act,
            str(self.letter_id) if self.letter_id else None,
            str(self.run_id) if self.run_id else None,
            self.reason,
        ]
        return hashlib.sha256(bytes(self.previous_hash) + json.dumps(about, ensure_ascii=False).encode()).digest()


async def record(
    connection: Connection,
    *,
    actor: str,
    act: str,
    reason: str,
    letter_id: UUID | None = None,
    run_id: UUID | None = None,
) -> None:
    """Append an act, in the caller's transaction (so that act and entry stand or fall together)."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor = await connection.execute(
        "SELECT coalesce(max(entry), 0) + 1, clock_timestamp() AT TIME ZONE 'UTC', "
        "(SELECT hash FROM dead_letter_ledger ORDER BY entry DESC LIMIT 1) FROM dead_letter_ledger"
    )
    ((number, at, last),) = await cursor.fetchall()
    draft = Entry(number, at.replace(tzinfo=UTC), actor, act, letter_id, run_id, reason, last or GENESIS, b"")
    await connection.execute(
        "INSERT INTO dead_letter_ledger (entry, at, actor, act, letter_id, run_id, reason, previous_hash, hash) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (number, draft.at, actor, act, letter_id, run_id, reason, draft.previous_hash, draft.expected_hash()),
    )


async def entries(connection: Connection, *, after: int = 0, limit: int = 100) -> list[Entry]:
    """Entries after number `after`, oldest first."""
    async with connection.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(
            "SELECT entry, at, actor, act, letter_id, run_id, reason, previous_hash, hash FROM dead_letter_ledger "
            "WHERE entry > %s ORDER BY entry LIMIT %s",
            (after, limit),
        )
        return await cursor.fetchall()


async def first_break(connection: Connection) -> int | None:
    """Number of the first entry that does not fit the chain; None: the ledger is whole."""
    previous, number = GENESIS, 0
    while page := await entries(connection, after=number, limit=1000):
        for entry in page:
            fits = entry.entry == number + 1 and bytes(entry.previous_hash) == previous
            if not fits or bytes(entry.hash) != entry.expected_hash():
                return entry.entry
            previous, number = bytes(entry.hash), entry.entry
    return None
