"""Replays: a frozen selection in the order it will run, its progress, and what each letter came to.

Order per stream is the plan's: selecting a letter selects everything open before and behind it in the same block.
`command_handlers.desk` carries a replay out; here it is planned, recorded and shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from psycopg.rows import class_row

from contracts.dead_letter import UNIT_REASONS
from contracts.ids import uuid7
from contracts.unit_command import OUTCOME_UNKNOWN
from infra.database import Connection
from infra.dead_letters import ledger
from infra.dead_letters.store import LetterNotFound, LetterNotOpen


@dataclass(frozen=True, slots=True)
class Planned:
    """One letter's place in a replay."""

    letter_id: UUID
    stream: str | None
    seq: int
    asked_for: bool
    """False: it comes along because it stands in the same block."""
    already_applied: bool
    """Its command has been answered meanwhile; it will not be sent."""
    in_doubt: bool
    """A unit command of which nobody knows whether it was done: it runs again only where that is confirmed."""


class NotConfirmed(Exception):
    """Nobody knows whether one of these unit commands was done, and nobody has said that it may be done twice."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay; `run_id` is None for a dry run, which writes nothing."""

    run_id: UUID | None
    items: list[Planned]


@dataclass(frozen=True, slots=True)
class RunItem:
    """What became of one letter in a replay."""

    letter_id: UUID
    ord: int
    status: str
    sent_at: datetime | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Run:
    """A replay's record."""

    run_id: UUID
    requested_by: str
    reason: str
    status: str
    requested_at: datetime
    finished_at: datetime | None
    letters: int
    settled: int


_PLAN = """
SELECT l.letter_id, l.stream, l.seq, l.letter_id = ANY(%(asked)s) AS asked_for,
    l.reason <> ALL(%(units)s) AND EXISTS (
        SELECT FROM command_receipts r WHERE r.command_id = l.command_id AND r.status <> 'failed') AS already_applied,
    l.reason = ANY(%(units)s) AND coalesce(l.error_type LIKE %(doubt)s, false) AS in_doubt
FROM dead_letters l
WHERE l.status = 'open' AND (l.letter_id = ANY(%(asked)s)
    OR l.block_id IN (SELECT block_id FROM dead_letters WHERE letter_id = ANY(%(asked)s) AND block_id IS NOT NULL))
ORDER BY coalesce((SELECT min(h.filed_at) FROM dead_letters h WHERE h.block_id = l.block_id), l.filed_at),
    l.block_id, l.seq, l.letter_id
"""
_RUNS = """
SELECT r.run_id, r.requested_by, r.reason, r.status, r.requested_at, r.finished_at, count(i.*)::int AS letters,
    count(i.settled_at)::int AS settled
FROM replays r LEFT JOIN replay_items i USING (run_id)
"""


async def request_replay(
    connection: Connection,
    *,
    letter_ids: Sequence[UUID],
    actor: str,
    reason: str,
    dry_run: bool = False,
    confirmed: bool = False,
) -> Replay:
    """Freeze a selection and have it run; `dry_run` only shows it.

    `confirmed`: what may have been done already may be done again. Raises `LetterNotFound`, `LetterNotOpen`,
    `NotConfirmed`.
    """
    asked = list(dict.fromkeys(letter_ids))
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('carespine.replay'))")
        items = await _plan(connection, asked)
        planned = {item.letter_id for item in items}
        for letter_id in asked:
            if letter_id not in planned:
                await _explain(connection, letter_id)
        if dry_run:
            return Replay(None, items)
        if not confirmed and any(item.in_doubt for item in items):
            raise NotConfirmed
        run_id = uuid7(datetime.now(UTC), os.urandom(10))
        selection = [item.letter_id for item in items]
        await connection.execute(
            "INSERT INTO replays (run_id, requested_by, reason, selection, confirmed) VALUES (%s, %s, %s, %s, %s)",
            (run_id, actor, reason, selection, confirmed),
        )
        await add_items(connection, run_id, selection, first=0)
        act = f"replay of {len(items)}" + (", even if done before" if confirmed else "")
        await ledger.record(connection, actor=actor, act=act, reason=reason, run_id=run_id)
    return Replay(run_id, items)


async def add_items(connection: Connection, run_id: UUID, letter_ids: Sequence[UUID], *, first: int) -> None:
    """Put letters into a run, in order, and mark them as being replayed."""
    for place, letter_id in enumerate(letter_ids, start=first):
        await connection.execute(
            "INSERT INTO replay_items (run_id, letter_id, ord) VALUES (%s, %s, %s)", (run_id, letter_id, place)
        )
    await connection.execute(
        "UPDATE dead_letters SET status = 'replaying' WHERE letter_id = ANY(%s) AND status = 'open'",
        (list(letter_ids),),
    )


async def list_replays(connection: Connection, *, before: UUID | None = None, limit: int = 50) -> list[Run]:
    """Replays, newest first; `before` is the last run id of the page before."""
    async with connection.cursor(row_factory=class_row(Run)) as rows:
        await rows.execute(
            (_RUNS + "WHERE %(before)s::uuid IS NULL OR run_id < %(before)s "
             "GROUP BY r.run_id ORDER BY r.run_id DESC LIMIT %(limit)s").encode(),
            {"before": before, "limit": limit},
        )  # fmt: skip
        return await rows.fetchall()


async def show_replay(connection: Connection, run_id: UUID) -> tuple[Run, list[RunItem]]:
    """A replay and what became of each of its letters; `LookupError` when there is none."""
    async with connection.cursor(row_factory=class_row(Run)) as rows:
        await rows.execute((_RUNS + "WHERE r.run_id = %s GROUP BY r.run_id").encode(), (run_id,))
        run = await rows.fetchone()
    if run is None:
        raise LookupError(f"there is no replay {run_id}")
    async with connection.cursor(row_factory=class_row(RunItem)) as items:
        await items.execute(
            "SELECT letter_id, ord, status, sent_at, settled_at FROM replay_items WHERE run_id = %s ORDER BY ord",
            (run_id,),
        )
        return run, await items.fetchall()


async def _plan(connection: Connection, asked: list[UUID]) -> list[Planned]:
    async with connection.cursor(row_factory=class_row(Planned)) as rows:
        units = [reason.value for reason in UNIT_REASONS]
        await rows.execute(_PLAN, {"asked": asked, "units": units, "doubt": f"%/{OUTCOME_UNKNOWN}"})
        return await rows.fetchall()


async def _explain(connection: Connection, letter_id: UUID) -> None:
    cursor = await connection.execute("SELECT status FROM dead_letters WHERE letter_id = %s", (letter_id,))
    if await cursor.fetchone() is None:
        raise LetterNotFound(str(letter_id))
    raise LetterNotOpen(str(letter_id))
