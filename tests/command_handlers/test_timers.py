"""What is due is sent when it can be: a queue that is not there yet ends nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

from psycopg.types.json import Jsonb

from command_handlers.timers import Timers
from contracts.envelope import CommandEnvelope, Origin
from contracts.identity import SYSTEM
from contracts.ids import partition_of
from infra.broker.errors import Unroutable
from infra.broker.publisher import Publisher
from infra.database import pool
from tests.kit.commands import PARTITIONS, new_id
from tests.kit.waiting import eventually


class WithoutQueue:
    """A broker whose queue is there from the second attempt on."""

    def __init__(self) -> None:
        self.attempts = 0

    async def publish(self, exchange: str, key: str, body: bytes, *, message_id: str) -> None:
        self.attempts += 1
        if self.attempts == 1:
            raise Unroutable(exchange, key)


async def test_a_timer_whose_queue_is_not_declared_yet_is_sent_when_it_is(postgres: str) -> None:
    partition = partition_of("north", PARTITIONS)
    envelope = CommandEnvelope(
        command_id=new_id(), type="unit_command.ExpireUnitCommand", unit_id="north",
        payload={"unitCommandId": str(uuid4())}, actor=SYSTEM, issued_at=datetime.now(UTC), request_hash="timer",
        origin=Origin.TIMER, correlation_id="a timer",
    )  # fmt: skip
    broker = WithoutQueue()
    async with pool(postgres, role="handlers") as database:
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO timers (timer_id, partition, due_at, envelope) VALUES (%s, %s, now(), %s)",
                (envelope.command_id, partition, Jsonb(envelope.to_dict())),
            )
        timers = Timers(
            pool=database, publisher=cast(Publisher, broker), partitions=PARTITIONS, owned=lambda: [partition]
        )
        running = asyncio.create_task(timers.run())
        await eventually(lambda: broker.attempts == 2 or running.done(), within=10)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
