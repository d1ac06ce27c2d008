"""Whether this gateway cuts units into partitions as its installation does: otherwise commands would go astray."""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import structlog

from infra.database import DatabaseUnavailable, Pool, connected

LOOK_AGAIN: Final = 1.0

log = structlog.get_logger(__name__)


class Partitioning:
    """Compares the setting with what the installation was made with, as soon as Postgres can be asked.

    Until then commands are taken: a gateway starts without Postgres.
    """

    def __init__(self, pool: Pool, partitions: int) -> None:
        self._pool = pool
        self._partitions = partitions
        self._installed: int | None = None
        """What the installation was made with; None: not known yet."""

    def trouble(self) -> str | None:
        """None when they agree, as far as is known; else why not."""
        if self._installed in (None, self._partitions):
            return None
        return f"CARESPINE_PARTITIONS is {self._partitions}, the installation has {self._installed}"

    async def look(self) -> None:
        """Ask until there is an answer."""
        while self._installed is None:
            try:
                async with connected(self._pool) as connection:
                    cursor = await connection.execute("SELECT partitions FROM installation")
                    row = await cursor.fetchone()
                self._installed = int(row[0]) if row is not None else None
            except (DatabaseUnavailable, psycopg.errors.UndefinedTable):
                pass  # commands are taken without it, and before `carespine migrate`
            if self._installed is None:
                await asyncio.sleep(LOOK_AGAIN)
        if (trouble := self.trouble()) is not None:
            log.critical("partitions_differ", partitions=self._partitions, reason=trouble)
