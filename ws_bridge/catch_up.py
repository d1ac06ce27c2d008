"""Reads from the log what units have missed: pages for links that are behind, and a sweep for pushes that got lost.

A few workers take turns over all links that are behind, one page each, so a unit that was away for a year does not keep
one waiting that was away for a second, and the number of database connections never depends on the number of units.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import structlog

from contracts.frames import CloseCode
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.sealing import KeyNotKnown, SealBroken, Sealer
from ws_bridge.link import Link
from ws_bridge.links import Links
from ws_bridge.pages import read_page
from ws_bridge.snapshot import Snapshots

READERS: Final = 3
SWEEP_SECONDS: Final = 2.0
TROUBLE_PAUSE: Final = 1.0
TROUBLE_AWAY: Final = 60.0

_ALL_VISIBLE: Final = "SELECT partition, position FROM projection_checkpoints"
_REACHED: Final = """
SELECT e.unit_id, max(e.position)
FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS span (partition, after, through)
JOIN events e ON e.partition = span.partition AND e.position > span.after AND e.position <= span.through
GROUP BY e.unit_id
"""

log = structlog.get_logger()


class CatchUp:
    """The log, for links that are behind."""

    def __init__(self, pool: Pool, sealer: Sealer, links: Links, snapshots: Snapshots) -> None:
        self._pool = pool
        self._snapshots = snapshots
        self._sealer = sealer
        self._links = links
        self._behind: deque[Link] = deque()
        self._work = asyncio.Semaphore(0)
        self._swept: dict[int, int] = {}
        """Through where each partition was looked at for lost pushes."""
        self._seen: dict[int, int] = {}
        """The checkpoints of one sweep ago: pushes of what became visible since may still be under way."""
        self._at_once = asyncio.Event()
        self._at_once.set()  # the first look finds out where the partitions are
        self._trouble: str | None = "log not read yet"

    def push(self, link: Link) -> None:
        """If the link is behind and has room, it gets its turn at the log, or at a snapshot if it asks for one."""
        if link.session.snapshot_due and link.is_open and self._snapshots.take(link):
            return
        if not link.queued and link.wants_page():
            link.queued = True
            self._behind.append(link)
            self._work.release()

    def ready(self) -> str | None:
        """None when the log could be read the last time, else why not."""
        return self._trouble

    def look_now(self) -> None:
        """Pushes may have been lost for any unit: sweep at once, up to what is visible now."""
        self._at_once.set()

    async def read(self) -> None:
        """One reader: a page for the link whose turn it is, until cancelled."""
        while True:
            await self._work.acquire()
            link = self._behind.popleft()
            link.queued = False
            if not link.wants_page():
                continue
            try:
                moved = await self._read_page(link)
            except DatabaseUnavailable:
                log.warning("catch_up_waits", reason="database_unavailable")
                await asyncio.sleep(TROUBLE_PAUSE)
                moved = True
            except (KeyNotKnown, SealBroken) as trouble:
                log.error("feed_cannot_be_opened", unit_id=link.unit_id, error_type=type(trouble).__name__)
                link.end(CloseCode.TROUBLE, "the unit's feed cannot be read", retry_after=TROUBLE_AWAY)
                moved = False
            if moved:
                self.push(link)

    async def _read_page(self, link: Link) -> bool:
        """Read one page and deliver it; whether there was anything."""
        page = link.session.feed.page()
        if page is None:
            return False
        after, limit = page
        async with connected(self._pool) as connection:
            read = await read_page(connection, self._sealer, link.partition, link.unit_id, after, limit)
        link.deliver(after, read.through, read.facts)
        return read.through > after

    async def sweep(self) -> None:
        """Now and then compare how far units' feeds reach with how far they were sent, until cancelled."""
        while True:
            hurried = False
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._at_once.wait()
                self._at_once.clear()
                hurried = True
            except TimeoutError:
                pass
            try:
                async with connected(self._pool) as connection:
                    await self._sweep(connection, hurried=hurried)
                self._trouble = None
            except DatabaseUnavailable:
                self._trouble = "database unavailable"
                if hurried:
                    self._at_once.set()
                    await asyncio.sleep(TROUBLE_PAUSE)

    async def _sweep(self, connection: Connection, *, hurried: bool) -> None:
        cursor = await connection.execute(_ALL_VISIBLE)
        visible = {int(partition): int(position) for partition, position in await cursor.fetchall()}
        through = visible if hurried else self._seen
        spans = [
            (partition, self._swept[partition], position)
            for partition, position in through.items()
            if position > self._swept.get(partition, position)
        ]
        if spans:
            cursor = await connection.execute(_REACHED, [list(column) for column in zip(*spans, strict=True)])
            for unit_id, position in await cursor.fetchall():
                link = self._links.of(unit_id)
                if link is not None:
                    link.session.feed.exists(position)
        for partition, position in through.items():
            self._swept[partition] = max(position, self._swept.get(partition, 0))
        self._seen = visible
        for link in self._links:
            self.push(link)
