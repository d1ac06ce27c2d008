"""The read side at work: takes what is new in the log, brings it into the read tables, tells the bridges.

One turn takes new events of all owned partitions, applies them to every read model and moves the checkpoints, all in
one transaction; what became visible is published after the commit. Turns follow one another while there is work; then
the runner waits for the log's NOTIFY, and looks once a second in case it was not heard.

A fact that a read model cannot apply (bad data, a handler's bug, an event of a newer release) is left out there and
noted in `projection_faults`; everything else goes on. Trouble with the database is waited out and counts against
nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import psycopg
import structlog

from infra.database import Connection, DatabaseUnavailable, Pool, connected, listening
from infra.event_log import WAKE_CHANNEL
from infra.sealing import KeyNotKnown
from infra.telemetry.metrics import Metrics
from projections.applying import AT_FAULT, Applying
from projections.checkpoints import leave_out, take
from projections.feed import Batch, Feed, by_unit

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""How long a NOTIFY that was not heard can go unnoticed."""
TURN_SECONDS = 60.0
"""Longer than the slowest turn (every fact of a full batch on its own); what takes longer is stuck."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0


class Runner:
    """Projects the partitions that `owned` names: `{partition: epoch}`, asked before every turn."""

    def __init__(
        self,
        *,
        pool: Pool,
        applying: Applying,
        feed: Feed,
        metrics: Metrics,
        owned: Callable[[], Mapping[int, int]],
        limit: int = 500,
    ) -> None:
        self._pool = pool
        self._applying = applying
        self._feed = feed
        self._metrics = metrics
        self._owned = owned
        self._limit = limit
        """Events of one partition in one turn, at most."""
        self._wake = asyncio.Event()
        self.trouble: str | None = "no turn yet"
        """What keeps us from projecting right now; None: nothing does."""

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Take turns until told to stop (`wake` makes it notice at once); a turn under way is finished."""
        pause = FIRST_PAUSE
        while not stopping.is_set():
            try:
                async with connected(self._pool) as connection:
                    while not stopping.is_set():
                        self._wake.clear()
                        async with asyncio.timeout(TURN_SECONDS):
                            taken = await self.turn(connection)
                        self.trouble = None
                        pause = FIRST_PAUSE
                        if taken < self._limit:  # no partition has more; what is appended from now on wakes us
                            await _until(self._wake, POLL_SECONDS)
            except (DatabaseUnavailable, KeyNotKnown, psycopg.Error, TimeoutError) as why:
                self.trouble = type(why).__name__
                log.warning("projecting.waiting", reason=self.trouble, seconds=round(pause, 2))
                await _until(stopping, random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, LONGEST_PAUSE)

    async def turn(self, connection: Connection) -> int:
        """Make visible what is new, once, and tell; answers how many facts that were."""
        owned = self._owned()
        if not owned:
            return 0
        try:
            try:
                batches = await self._together(connection, owned)
            except AT_FAULT as why:
                log.warning("projecting.isolated", error_type=type(why).__name__)
                batches = await self._isolated(connection, owned)
        except BaseException:
            # It may have been committed all the same: where the units' feeds stand is for the log to say.
            self._feed.forget()
            raise
        self._feed.publish(batches)
        return sum(len(batch.facts) for batch in batches)

    async def _together(self, connection: Connection, owned: Mapping[int, int]) -> list[Batch]:
        """The ordinary way: two round trips, whatever the size of the batch."""
        async with connection.pipeline(), connection.transaction():
            events = await take(connection, owned, self._limit)
            facts, steps = await self._applying.together(connection, events)
            batches = by_unit(facts)
            await self._feed.prepare(connection, batches)
        for step in steps:
            self._metrics.projection_events.labels(step.reaction.read_model).inc(len(step.rows))
        return batches

    async def _isolated(self, connection: Connection, owned: Mapping[int, int]) -> list[Batch]:
        """After a failure: only what is at fault stays out."""
        async with connection.transaction():
            events = await take(connection, owned, self._limit)
            facts, left_out = await self._applying.isolated(connection, events)
            await leave_out(connection, left_out)
            batches = by_unit(facts)
            await self._feed.prepare(connection, batches)
        for fault in left_out:
            log.error(
                "fact.left_out",
                read_model=fault.read_model,
                partition=fault.partition,
                position=fault.position,
                type=fault.event_type,
                error_type=fault.error_type,
            )
        return batches


async def listen(postgres_url: str, heard: Callable[[], None]) -> None:
    """Call `heard` whenever the log says that it has grown, until cancelled. Reconnects by itself."""
    pause = FIRST_PAUSE
    while True:
        try:
            connection = await listening(postgres_url, role="projections", channel=WAKE_CHANNEL)
            try:
                heard()
                pause = FIRST_PAUSE
                async for _ in connection.notifies():
                    heard()
            finally:
                await connection.close()
        except psycopg.Error as why:
            log.warning("listening.waiting", reason=type(why).__name__, seconds=round(pause, 2))
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, LONGEST_PAUSE)


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
