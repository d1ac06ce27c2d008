"""Reading one's own writes: a read that names a position waits, a bounded time, until the read tables have it.

However many requests wait, the checkpoints are asked for once a turn, on one connection, while somebody waits.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, NamedTuple

from gateway.problems import RETRY_AFTER, Problem, invalid_field
from infra.database import DatabaseUnavailable, Pool, connected

PATIENCE: Final = 5.0
PAUSE: Final = 0.01

_TOKEN: Final = re.compile(r"(\d{1,2}):(\d{1,18})")


class Position(NamedTuple):
    """A place in the log."""

    partition: int
    position: int


def position_named(token: str, partitions: int) -> Position:
    """The position in `Carespine-Position: <partition>:<position>`; Problem when it is not one."""
    match = _TOKEN.fullmatch(token)
    if match is None or int(match[1]) >= partitions:
        raise invalid_field("Carespine-Position", "must be a position that this API gave")
    return Position(int(match[1]), int(match[2]))


class Positions:
    """Knows how far the read tables are, and tells those who wait."""

    def __init__(self, pool: Pool, *, patience: float = PATIENCE) -> None:
        self._pool = pool
        self._patience = patience
        self._known: dict[int, int] = {}
        """The checkpoints as last seen; they only grow (a rebuild works in tables of its own)."""
        self._changed = asyncio.Event()
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None
        """Looks while somebody waits, and ends when nobody does."""

    async def reach(self, wanted: Position) -> None:
        """Return once the read tables have the position. Problem 503 when that takes too long."""
        if self._known.get(wanted.partition, -1) >= wanted.position:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                while self._known.get(wanted.partition, -1) < wanted.position:
                    if self._watch is None or self._watch.done():
                        self._watch = asyncio.create_task(self._look(), name="gateway.positions")
                    await self._changed.wait()
        except TimeoutError:
            detail = "Ask again in a moment, or without the position."
            raise Problem("read_model_behind", detail, headers=RETRY_AFTER) from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Stop looking."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _look(self) -> None:
        while self._waiting:
            try:
                async with connected(self._pool) as connection:
                    while self._waiting:
                        cursor = await connection.execute("SELECT partition, position FROM projection_checkpoints")
                        self._known = dict(await cursor.fetchall())
                        changed, self._changed = self._changed, asyncio.Event()
                        changed.set()
                        await asyncio.sleep(PAUSE)
            except DatabaseUnavailable:
                await asyncio.sleep(PAUSE)  # those who wait have their own deadline
