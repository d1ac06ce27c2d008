"""What the read side tells about itself: how far behind each owned partition is, and how many facts were left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import psycopg

from infra.database import DatabaseUnavailable, Pool, connected
from infra.telemetry.metrics import Metrics
from projections.checkpoints import standing

LOOK_SECONDS = 5.0
ALL = "all"
"""Read models share the checkpoints, so they share the lag."""


class Monitor:
    """Looks every few seconds and keeps the metrics. Facts left out make nobody unready: /ops/projections tells."""

    def __init__(self, pool: Pool, metrics: Metrics, owned: Callable[[], Mapping[int, int]]) -> None:
        self._pool = pool
        self._metrics = metrics
        self._owned = owned
        self._shown: set[int] = set()
        self._faults: dict[str, int] = {}
        """Facts left out, by read model."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with suppress(DatabaseUnavailable, psycopg.Error):  # the runner says so; old figures are better than none
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Bring the figures up to date."""
        owned = self._owned()
        async with connected(self._pool) as connection:
            standings = await standing(connection, list(owned))
            cursor = await connection.execute("SELECT read_model, count(*) FROM projection_faults GROUP BY read_model")
            faults = dict(await cursor.fetchall())
        for gone in self._shown - owned.keys():
            self._metrics.projection_lag_events.remove(ALL, str(gone))
            self._metrics.projection_lag_seconds.remove(ALL, str(gone))
        self._shown = set(owned)
        for each in standings:
            self._metrics.projection_lag_events.labels(ALL, str(each.partition)).set(each.lag_events)
            self._metrics.projection_lag_seconds.labels(ALL, str(each.partition)).set(each.lag_seconds)
        for model in self._faults.keys() | faults.keys():
            self._metrics.projection_held.labels(model).set(faults.get(model, 0))
        self._faults = faults
