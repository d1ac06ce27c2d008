"""The agent's disk: one SQLite file in which facts, position, caches, journal and outbox change together or not at all.

Knows the file, the transaction and the feed's position; each table family is its own module's (`site_record`,
`site_queues`, `mailbox`, `outbox`). Committed means on disk (WAL, synchronous=FULL), so an ack after the commit is
honest. An auditor may read the file at any time; `facts` and `state` are kept stable for that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, ParamSpec, Self, TypeVar
from uuid import UUID, uuid4

from contracts.envelope import Fact
from contracts.frames import Facts, Snapshot
from unit_agent import conflicts, erasure, mailbox, outbox, provisional, site_queues, site_record, snapshot
from unit_agent.schema import bring_up_to_date

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA_VERSION: Final = 2
SKEW_WORTH_NOTING: Final = timedelta(seconds=0.5)

_SCHEMA: Final = """
CREATE TABLE state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE facts (
    position INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    stream TEXT NOT NULL,
    stream_version INTEGER NOT NULL,
    command_id TEXT NOT NULL,
    recorded_at TEXT NOT NULL
);
"""

_SCHEMAS: Final = (
    _SCHEMA,
    site_record.SCHEMA,
    site_queues.SCHEMA,
    mailbox.SCHEMA,
    outbox.SCHEMA,
    provisional.SCHEMA,
    conflicts.SCHEMA,
    snapshot.SCHEMA,
    erasure.SCHEMA,
)
_CACHES: Final = (site_record.CACHE, site_queues.CACHE)


class StoreUnusable(Exception):
    """The store cannot be used as it is; the message says why and what to do, and names no person."""


@dataclass(frozen=True)
class Taken:
    """What a commit of facts did."""

    position: int
    runnable: int
    """Unit commands that may run now and could not before."""
    answered: int
    """Facts that came of commands made here."""
    reports: int
    """Reports that they have put in the outbox."""


class Learned(NamedTuple):
    """What followed from a frame's facts, counted as in `Taken`."""

    answered: int
    reports: int


class Store:
    """One unit's store. Not for two tasks at once: `run` gives each piece of work its turn, off the event loop."""

    def __init__(self, folder: Path, unit_id: str, executor: Executor | None = None) -> None:
        """Open, or create, `<folder>/agent.db`, readable by this account only. Raises StoreUnusable."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path: Final = folder / "agent.db"
        self.path.touch(mode=0o600, exist_ok=True)
        self._lock = _locked(folder)
        self._executor = executor
        self._turn = asyncio.Lock()
        self.learners: Final[list[Callable[[sqlite3.Connection, Fact], object]]] = []
        """Who else learns from each fact, inside the transaction that keeps it."""
        # Each statement is one thread's at a time: `run` sees to it.
        self.db: Final = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        self.db.row_factory = sqlite3.Row
        try:
            self._prepare(unit_id)
        except sqlite3.DatabaseError as why:
            self.close()
            raise StoreUnusable(
                f"{self.path}: {why}; set the file aside and the agent starts from an empty one"
            ) from why
        except StoreUnusable:
            self.close()
            raise

    def _prepare(self, unit_id: str) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA secure_delete = ON")
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnusable(f"{self.path} was written by a newer agent; use that one")
        with self.transaction() as db:
            bring_up_to_date(db, _SCHEMAS)
            snapshot.clear(db)
            if version == 0:
                self._set("unit_id", unit_id)
            if self._get("instance", None) is None:
                self._set("instance", str(uuid4()))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
        if self._get("unit_id", unit_id) != unit_id:
            raise StoreUnusable(
                f"{self.path} belongs to unit {self._get('unit_id', '')}; give each unit its own folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was committed stays."""
        self.db.close()
        self._lock.close()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a piece of work on this store in its turn, without holding up the event loop."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._executor, lambda: work(*args, **kwargs))
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                await asyncio.wait([done])  # the connection is in its hands until it ends
                if not done.cancelled():
                    done.exception()  # looked at; whoever asked is gone
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            if self.db.in_transaction:  # a full disk may have rolled it back already
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    @property
    def position(self) -> int:
        """Through where the feed is on this disk."""
        return int(self._get("position", 0))

    @property
    def instance(self) -> UUID:
        """Which store this is, for ever: two agents with one identity are told apart by it."""
        return UUID(self._get("instance", ""))

    def take(self, frames: Sequence[Facts | Snapshot], *, head: int, now: datetime) -> Taken:
        """Write facts, everything that follows from them, and the position, in one transaction.

        `head` is where the feed reached when this session began: unit commands up to there are late, and none may run
        before all of it is here, since what became of them may stand further on. A snapshot counts when its last part
        is here; until then the position stays where it was.
        """
        with self.transaction() as db:
            position = self.position
            answered = reports = 0
            for frame in frames:
                if isinstance(frame, Facts):
                    fresh = [fact for fact in frame.facts if fact.position > position]
                    self._count("duplicates_seen", len(frame.facts) - len(fresh))
                    new = self._learn(db, fresh, head=head, now=now)
                    answered, reports = answered + new.answered, reports + new.reports
                    position = max(position, frame.through)
                elif not frame.last:
                    snapshot.stage(db, frame)
                else:
                    swapped = snapshot.swap(db, frame, _CACHES, after=position, head=head, now=now)
                    # What is older was told once before, and the journal has only forgotten it.
                    self._keep(db, [fact for fact in swapped.facts if fact.position > position])
                    reports += swapped.reports
                    position = frame.position
                    self._set("snapshot_position", position)
                    self._count("snapshots_taken", 1)
            runnable = mailbox.release(db) if position >= head else 0
            provisional.reached(db, position)
            self._set("position", position)
            erased = erasure.purge(db, str(self._get("unit_id", "")), now)
            if erased:
                self._set("scrub_due", 1)
        if erased:
            self.scrub()
        reports += erased
        return Taken(position, runnable, answered, reports)

    def scrub(self) -> bool:
        """Have nothing of erased people stay in the file's unused parts or its journal; whether nothing is left to do.

        Nothing is due where nobody was erased. What does not succeed (a full disk, a reader) is due until it does.
        """
        if not self._get("scrub_due", 0):
            return True
        try:
            self.db.execute("VACUUM")
            with self.transaction():
                self._set("scrub_due", 0)
            busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError:
            busy = 1
        if busy:
            with self.transaction():
                self._set("scrub_due", 1)
        return not busy

    def _learn(self, db: sqlite3.Connection, facts: Sequence[Fact], *, head: int, now: datetime) -> Learned:
        answered = reports = 0
        # Asked once for all of them: a site that catches up has mostly nothing of its own under way.
        awaited, shown, failed = outbox.any_open(db), provisional.any_shown(db), conflicts.any_failed(db)
        self._keep(db, facts)
        for fact in facts:
            site_record.learn(db, fact)
            site_queues.learn(db, fact)
            reports += mailbox.learn(db, fact, late=fact.position <= head, now=now)
            for learner in self.learners:
                learner(db, fact)
            if awaited:
                answered += outbox.learn(db, fact)
            if shown:
                provisional.learn(db, fact)
            if failed:
                conflicts.learn(db, fact)
        return Learned(answered, reports)

    def _keep(self, db: sqlite3.Connection, facts: Sequence[Fact]) -> None:
        db.executemany(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    fact.position,
                    fact.type,
                    fact.stream,
                    fact.stream_version,
                    str(fact.command_id),
                    fact.recorded_at.isoformat(),
                )
                for fact in facts
            ],
        )
        self._count("facts_applied", len(facts))

    def caught_up(self, head: int) -> int:
        """Nothing up to `head` is missing, so waiting unit commands may run; returns how many."""
        if self.position < head:
            return 0
        with self.transaction() as db:
            return mailbox.release(db)

    @property
    def clock_skew(self) -> timedelta:
        """How far the centre's clock was ahead of ours when it was last heard of."""
        return timedelta(milliseconds=int(self._get("clock_skew_ms", 0)))

    def remember_skew(self, skew: timedelta) -> None:
        """For the next start: deadlines are the centre's, also before it has been heard of again."""
        if abs(skew - self.clock_skew) > SKEW_WORTH_NOTING:
            with self.transaction():
                self._set("clock_skew_ms", round(skew.total_seconds() * 1000))

    def saw_duplicates(self, count: int) -> None:
        """Facts the bridge sent again, which the link cut away."""
        with self.transaction():
            self._count("duplicates_seen", count)

    def figures(self) -> dict[str, int]:
        """Counts an operator or auditor asks for."""
        first, last, facts = self.db.execute("SELECT min(position), max(position), count(*) FROM facts").fetchone()
        return {
            "position": self.position,
            "factsApplied": int(self._get("facts_applied", 0)),
            "factsStored": facts,
            "duplicatesSeen": int(self._get("duplicates_seen", 0)),
            "snapshotsTaken": int(self._get("snapshots_taken", 0)),
            "firstPosition": first or 0,
            "lastPosition": last or 0,
            "outboxWaiting": outbox.depth(self.db),
            "unitCommandsOpen": mailbox.open_count(self.db),
            "bytesOnDisk": self.path.stat().st_size,
        }

    def _get(self, key: str, default: T) -> T:
        row = self.db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def _set(self, key: str, value: str | int) -> None:
        self.db.execute(
            "INSERT INTO state VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value)
        )

    def _count(self, key: str, more: int) -> None:
        if more:
            self._set(key, int(self._get(key, 0)) + more)


def _locked(folder: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends: a transaction that stays open in a file of its own."""
    lock = sqlite3.connect(folder / "agent.lock", isolation_level=None, timeout=0, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as why:
        lock.close()
        raise StoreUnusable(f"another agent uses {folder}; give each its own folder") from why
    return lock
