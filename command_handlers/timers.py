"""Commands whose time has come: sent by the owner of their partition; their fixed ids make sending twice harmless."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from contracts.envelope import CommandEnvelope
from contracts.ids import partition_of
from contracts.routing import COMMANDS, command_key
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.database import DatabaseUnavailable, Pool, connected

log = structlog.get_logger(__name__)

EVERY_SECONDS = 0.5
AT_ONCE = 200


class Timers:
    """Looks twice a second for what is due in the partitions that are ours."""

    def __init__(
        self, *, pool: Pool, publisher: Publisher, partitions: int, owned: Callable[[], Iterable[int]]
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._partitions = partitions
        self._owned = owned

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                fired = await self.fire_due()
            except (DatabaseUnavailable, BrokerUnavailable, Unroutable) as why:
                log.warning("timers.waiting", reason=type(why).__name__)
                fired = 0
            if fired < AT_ONCE:
                await asyncio.sleep(EVERY_SECONDS)

    async def fire_due(self) -> int:
        """Send what is due now; returns how many."""
        owned = list(self._owned())
        if not owned:
            return 0
        async with connected(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT timer_id, envelope FROM timers WHERE partition = ANY(%s) AND due_at <= clock_timestamp() "
                "ORDER BY due_at LIMIT %s",
                (owned, AT_ONCE),
            )
            due = await cursor.fetchall()
            for timer_id, stored in due:
                envelope = CommandEnvelope.model_validate(stored)
                partition = partition_of(envelope.unit_id, self._partitions)
                await self._publisher.publish(
                    COMMANDS,
                    command_key(envelope.unit_id, partition, envelope.type),
                    envelope.to_json(),
                    message_id=str(envelope.command_id),
                )
                await connection.execute("DELETE FROM timers WHERE timer_id = %s", (timer_id,))
        return len(due)
