"""How many are let in: so many connections a second in all, so many a minute of one unit, none while leaving.

Asked before the upgrade and before any other work, so a storm of ten thousand costs the database nothing. Whoever is
turned away is told when to come back, each a moment of their own. Who may come in at all is `ws_bridge.admission`'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from infra.telemetry.metrics import Metrics
from ws_bridge.admission import Visitor, problem
from ws_bridge.pacing import Turnstile, Visits

Look = Callable[[ServerConnection, Request], Response | None]
LEAVING_AWAY: Final = 2.0


class Entrance:
    """One for all paths of a bridge."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], *, a_second: int, of_a_unit_a_minute: int) -> None:
        self._clock = clock
        self._turned_away = metrics.connects_turned_away
        for reason in ("leaving", "rate", "unit_rate"):
            self._turned_away.labels(reason)
        self._turnstile = Turnstile(a_second)
        self._visits = Visits(of_a_unit_a_minute)
        self.leaving = False
        """No new connections: come back elsewhere, or later."""

    def look(self, connection: ServerConnection, request: Request) -> Response | None:
        """None: there is room for one more."""
        if self.leaving:
            return self._later(503, "leaving", "leaving", "This bridge is leaving.", LEAVING_AWAY)
        wait = self._turnstile.enter(self._clock())
        if wait:
            return self._later(503, "rate", "too_many_connections", "Too many connect at once.", wait)
        return None

    def one_unit(self, look: Look) -> Look:
        """`look`, and then whether the unit it let in does not connect too often."""

        def look_twice(connection: ServerConnection, request: Request) -> Response | None:
            answer = look(connection, request)
            if answer is not None or not isinstance(connection, Visitor) or connection.claims.unit is None:
                return answer
            wait = self._visits.enter(connection.claims.unit, self._clock())
            if wait:
                return self._later(429, "unit_rate", "too_many_connections", "This unit connects too often.", wait)
            return None

        return look_twice

    def _later(self, status: int, reason: str, code: str, detail: str, wait: float) -> Response:
        self._turned_away.labels(reason).inc()
        seconds = ceil(wait + random.random())  # noqa: S311 - jitter, not a secret
        return problem(status, code, detail, {"Retry-After": str(seconds)})
