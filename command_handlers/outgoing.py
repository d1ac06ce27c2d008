"""Letters that wait in the database for the broker: sent by the owner of their partition, gone once it has them.

They were written in the transaction of what they tell of, so none is lost. A letter sent twice is filed once, and in
whatever order two about the same command arrive, the later word stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

import structlog

from contracts.dead_letter import MESSAGE_TYPE, OF_A_UNIT, Reason
from contracts.routing import DEAD, UNIT_LETTER_KEYS
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.database import DatabaseUnavailable, Pool, connected
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 0.5
AT_ONCE: Final = 100

_COUNTED: Final = {key: reason for reason, key in UNIT_LETTER_KEYS.items() if reason != Reason.UNIT_SETTLED}
_WAITING: Final = """
SELECT entry, letter_id, routing_key, body FROM letters_out WHERE partition = ANY(%s) ORDER BY entry LIMIT %s
"""


class Outgoing:
    """Looks twice a second for letters of the partitions that are ours."""

    def __init__(
        self, *, pool: Pool, publisher: Publisher, metrics: Metrics, owned: Callable[[], Iterable[int]]
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._metrics = metrics
        self._owned = owned

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                sent = await self.send_waiting()
            except* (DatabaseUnavailable, BrokerUnavailable, Unroutable) as why:
                log.warning("letters.waiting", reason=type(why.exceptions[0]).__name__)
                sent = 0
            if sent < AT_ONCE:
                await asyncio.sleep(EVERY_SECONDS)

    async def send_waiting(self) -> int:
        """Send what waits now, the oldest first; returns how many."""
        owned = list(self._owned())
        if not owned:
            return 0
        async with connected(self._pool) as connection:
            cursor = await connection.execute(_WAITING, (owned, AT_ONCE))
            waiting = await cursor.fetchall()
            async with asyncio.TaskGroup() as sending:
                for _, letter_id, routing_key, body in waiting:
                    sending.create_task(self._send(letter_id, routing_key, body))
            if waiting:
                sent = [entry for entry, *_ in waiting]
                await connection.execute("DELETE FROM letters_out WHERE entry = ANY(%s)", (sent,))
        return len(waiting)

    async def _send(self, letter_id: UUID, routing_key: str, body: str) -> None:
        await self._publisher.publish(DEAD, routing_key, body.encode(), message_id=str(letter_id), type=MESSAGE_TYPE)
        if routing_key in _COUNTED:
            self._metrics.dead_letters.labels(reason=_COUNTED[routing_key], origin=OF_A_UNIT).inc()
