"""Compares, on quiet links, what the log has for a unit with what the unit was told, and has the unit compare too.

Pushes and sweeps already bring everything; this finds out if they ever did not, at either end. All links have their
turn within a minute, some hundreds in one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from infra.database import DatabaseUnavailable, Pool, connected
from ws_bridge.link import Link
from ws_bridge.links import Links

CHECK_SECONDS: Final = 60.0
AT_ONCE: Final = 500
SHORTEST_PAUSE: Final = 0.05

_HEADS: Final = """
SELECT w.unit_id, coalesce((SELECT max(e.position) FROM events e
    WHERE e.partition = w.partition AND e.unit_id = w.unit_id AND e.position <= c.position), 0)
FROM unnest(%s::int[], %s::text[]) AS w (partition, unit_id) JOIN projection_checkpoints c USING (partition)
"""


class PositionCheck:
    """One bridge's links, looked at one after the other."""

    def __init__(self, pool: Pool, links: Links, behind: Callable[[Link], None], *, every: float = CHECK_SECONDS):
        """`behind` is told of each link that lacks something."""
        self._pool = pool
        self._links = links
        self._behind = behind
        self._every = every

    async def watch(self) -> None:
        """Look at every link again and again, until cancelled."""
        while True:
            links = list(self._links)
            lots = [links[start : start + AT_ONCE] for start in range(0, len(links), AT_ONCE)]
            for lot in lots:
                await self.look(lot)
                await asyncio.sleep(max(self._every / len(lots), SHORTEST_PAUSE))
            if not lots:
                await asyncio.sleep(self._every)

    async def look(self, links: Sequence[Link]) -> None:
        """Ask the log about those that are quiet; a database that is away is asked the next time."""
        quiet = {link.unit_id: link for link in links if link.is_open and link.session.check() is not None}
        if not quiet:
            return
        try:
            async with connected(self._pool) as connection:
                cursor = await connection.execute(
                    _HEADS, ([link.partition for link in quiet.values()], list(quiet)), binary=True
                )
                heads = await cursor.fetchall()
        except DatabaseUnavailable:
            return
        for unit_id, head in heads:
            link = quiet[unit_id]
            link.session.feed.exists(head)
            check = link.session.check()  # it may have become busy meanwhile
            if link.session.feed.is_behind:
                self._behind(link)
            elif check is not None and link.is_open and link.may_speak:
                link.say(check)
