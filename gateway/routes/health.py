"""How the gateway is. Ready means: commands can be taken, which needs the broker and not the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.answers import json_answer
from gateway.passage import passage
from infra.database import DatabaseUnavailable, Pool, connected
from infra.settings import Mode
from infra.telemetry.health import Health

LOOK_AGAIN: Final = 1.0
"""Seconds for which the database's answer is believed: health may be asked for often."""
PATIENCE: Final = 1.0


class DatabaseHealth:
    """Whether Postgres answers, asked at most once a second."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._looked = -LOOK_AGAIN
        self._trouble: str | None = None
        self._lock = asyncio.Lock()

    async def trouble(self) -> str | None:
        """None when it answers, else why not."""
        async with self._lock:
            if time.monotonic() - self._looked >= LOOK_AGAIN:
                self._trouble = await self._look()
                self._looked = time.monotonic()
            return self._trouble

    async def _look(self) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE), connected(self._pool) as connection:
                await connection.execute("SELECT 1")
        except (TimeoutError, DatabaseUnavailable):
            return "database not reachable"
        return None


def routes(health: Health, mode: Mode, broker: Callable[[], str | None], database: DatabaseHealth) -> list[Route]:
    """`/health` with everything in it; live, ready, startup and metrics as in every process."""

    async def whole(request: Request) -> Response:
        passage(request).route = "/health"
        seen = {"rabbitmq": broker(), "postgres": await database.trouble()}
        return json_answer(
            {
                "status": "degraded" if any(seen.values()) else "ok",
                "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "version": health.version,
                "environment": mode.value,
                "commands": "not taken" if seen["rabbitmq"] else "taken",
                "questions": "not answered" if seen["postgres"] else "answered",
                "checks": {name: reason or "ok" for name, reason in seen.items()},
            }
        )

    return [Route("/health", whole), *(route for route in health.routes() if route.path != "/health")]
