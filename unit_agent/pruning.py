"""Keeps the store from growing for ever: what is over and old goes, a few thousand rows at a time.

Nothing goes that anybody waits for: open visits and places, commands without an outcome, reports the centre has not
confirmed, conflicts. The position stays what it is, so what was pruned does not come again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from unit_agent.store import Store

LOOK_EVERY: Final = 6 * 3600.0
AT_ONCE: Final = 2_000
"""Rows in one transaction, between which others have their turn at the disk."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Keep:
    """What stays."""

    facts: int = 5_000_000
    """At most so many, the newest, for auditors."""
    facts_for: timedelta = timedelta(days=400)
    over_for: timedelta = timedelta(days=90)
    """Visits, places in queues and commands stay so long after they are over."""


_OVER: Final = {
    "outbox": "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox "
    "WHERE state IN ('settled', 'refused') AND issued_at < :before "
    "AND command_id NOT IN (SELECT report_id FROM unit_commands WHERE report_id IS NOT NULL) LIMIT :limit)",
    "unit_commands": "DELETE FROM unit_commands WHERE unit_command_id IN (SELECT c.unit_command_id "
    "FROM unit_commands c LEFT JOIN outbox o ON o.command_id = c.report_id "
    "WHERE c.state NOT IN ('received', 'executing') AND c.ended_at < :before "
    "AND (c.report_id IS NULL OR o.state = 'settled') LIMIT :limit)",
    "queue_entries": "DELETE FROM queue_entries WHERE entry_id IN (SELECT entry_id FROM queue_entries "
    "WHERE status IN ('done', 'left', 'transferred') AND arrived_at < :before LIMIT :limit)",
    "encounters": "DELETE FROM encounters WHERE encounter_id IN (SELECT encounter_id FROM encounters "
    "WHERE status IN ('finished', 'cancelled') AND arrived_at < :before LIMIT :limit)",
}
"""By table: what is over, since before an instant."""


async def keep_small(store: Store, now: Callable[[], datetime], keep: Keep | None = None) -> None:
    """Prune now and every few hours, until cancelled."""
    while True:
        gone = await pruned(store, now(), keep or Keep())
        if gone:
            log.info("store_pruned", count=gone)
        await asyncio.sleep(LOOK_EVERY)


async def pruned(store: Store, now: datetime, keep: Keep) -> int:
    """Prune once; how many rows are gone. A full or broken disk is left to those who have to write."""
    gone = 0
    await store.run(store.scrub)
    for prune in (_facts, _over):
        while True:
            try:
                some = await store.run(_in_transaction, store, prune, now, keep)
            except sqlite3.Error:
                return gone
            gone += some
            if some < AT_ONCE:
                break
    return gone


Prune = Callable[[sqlite3.Connection, datetime, Keep], int]


def _in_transaction(store: Store, prune: Prune, now: datetime, keep: Keep) -> int:
    with store.transaction() as db:
        return prune(db, now, keep)


def _facts(db: sqlite3.Connection, now: datetime, keep: Keep) -> int:
    # Positions grow with time, so the oldest are the first.
    surplus = max(0, int(db.execute("SELECT count(*) FROM facts").fetchone()[0]) - keep.facts)
    oldest = db.execute("SELECT position, recorded_at FROM facts ORDER BY position LIMIT ?", (AT_ONCE,)).fetchall()
    before = (now - keep.facts_for).isoformat()
    old = sum(1 for row in oldest if row["recorded_at"] < before)
    count = min(len(oldest), max(old, surplus))
    if count:
        db.execute("DELETE FROM facts WHERE position <= ?", (oldest[count - 1]["position"],))
    return count


def _over(db: sqlite3.Connection, now: datetime, keep: Keep) -> int:
    about = {"before": (now - keep.over_for).isoformat(), "limit": AT_ONCE}
    return max(db.execute(statement, about).rowcount for statement in _OVER.values())
