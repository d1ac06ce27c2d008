"""Whose access tokens are void before they run out: sessions that have ended, accounts suspended, roles taken away.

Looked for twice a second by every process that lets people in, as units' revocations are
(`infra.unit_credentials.Revocations`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from infra.database import DatabaseUnavailable, Pool, connected
from infra.tokens import Claims, Clock

LOOK_SECONDS: Final = 0.5
OVERLAP: Final = timedelta(seconds=20)
"""How long a transaction that ends a session may take to be seen; no statement of ours takes longer."""
REMEMBERED: Final = timedelta(seconds=3600 + 60)
"""No access token lives longer."""

_ENDED: Final = "SELECT session_id, ended_at FROM staff_sessions WHERE ended_at > %s ORDER BY ended_at"
_REVOKED: Final = """
SELECT r.account_id, r.partition, r.position, r.not_before
FROM read_staff_revocations r LEFT JOIN unnest(%s::int[], %s::bigint[]) AS seen (partition, position) USING (partition)
WHERE r.position > coalesce(seen.position, -1) ORDER BY r.partition, r.position
"""
"""A partition is projected by one at a time and in order, so what is visible of it has no holes."""

log = structlog.get_logger()


class StaffRevocations:
    """What this process has heard of."""

    def __init__(self, pool: Pool, *, clock: Clock = time.time) -> None:
        self._pool = pool
        self._told: list[Callable[[], None]] = []
        self._clock = clock
        self._sessions: OrderedDict[str, datetime] = OrderedDict()
        """When each ended, in the order they were heard of."""
        self._not_before: dict[str, float] = {}
        """By account: older tokens are void."""
        self._through: dict[int, int] = {}
        self._since = datetime.fromtimestamp(clock(), UTC) - REMEMBERED
        self._trouble: str | None = "revocations not read yet"
        self._is_known = False

    def ready(self) -> str | None:
        """None when they could be read the last time, else why not."""
        return self._trouble

    def tell(self, told: Callable[[], None]) -> None:
        """Have it called whenever something was heard of: what is open may have to end."""
        self._told.append(told)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
                self._trouble = None
            except DatabaseUnavailable:
                if self._trouble is None:
                    log.warning("staff_revocations_not_read", reason="database_unavailable")
                self._trouble = "database unavailable"
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises DatabaseUnavailable."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', '*', true)")
            cursor = await connection.execute(_ENDED, (self._since,))
            ended = await cursor.fetchall()
            cursor = await connection.execute(_REVOKED, (list(self._through), list(self._through.values())))
            revoked = await cursor.fetchall()
        self._is_known = True
        fresh = [(str(session_id), at) for session_id, at in ended if str(session_id) not in self._sessions]
        self._sessions.update(fresh)
        if ended:
            self._since = max(self._since, ended[-1][1] - OVERLAP)
        for account_id, partition, position, not_before in revoked:
            self._through[partition] = position
            account = str(account_id)
            self._not_before[account] = max(self._not_before.get(account, 0.0), not_before.timestamp())
        self._forget()
        if fresh or revoked:
            for tell in self._told:
                tell()

    def ended(self, claims: Claims) -> str | None:
        """Why the token of a session lets nobody in: `revoked`, `revocations_not_known`; None when nothing is."""
        if not self._is_known:
            return "revocations_not_known"
        if claims.sid in self._sessions or claims.iat < self._not_before.get(claims.sub, 0.0):
            return "revoked"
        return None

    def _forget(self) -> None:
        over = datetime.fromtimestamp(self._clock(), UTC) - REMEMBERED
        while self._sessions and next(iter(self._sessions.values())) < over:
            self._sessions.popitem(last=False)
