"""A consumer of `carespine.events`, as a bridge is one, that counts published arrivals and notes their times."""

from __future__ import annotations

import time
from typing import Self

import aiormq
import orjson
from aiormq.abc import DeliveredMessage

from contracts import routing
from contracts.encounter import PatientArrived

ARRIVED = PatientArrived.type_name()


class Watcher:
    """Counts the check-ins published so far; while `seen` is a dict it also notes when each encounter appeared."""

    def __init__(self, connection: aiormq.abc.AbstractConnection) -> None:
        self._connection = connection
        self._mark = f'"{ARRIVED}"'.encode()
        self.count = 0
        self.seen: dict[str, float] | None = None
        """By encounter id; None while only counting, which is cheaper."""

    @classmethod
    async def start(cls, rabbitmq_url: str) -> Self:
        """Begin to consume everything."""
        connection = await aiormq.connect(rabbitmq_url)
        watcher = cls(connection)
        channel = await connection.channel()
        queue = (await channel.queue_declare(exclusive=True)).queue
        assert queue
        await channel.queue_bind(queue, routing.EVENTS, "unit.#")
        await channel.basic_consume(queue, watcher._take, no_ack=True)
        return watcher

    async def _take(self, message: DeliveredMessage) -> None:
        self.count += message.body.count(self._mark)
        if self.seen is not None:
            now = time.monotonic()
            for fact in orjson.loads(message.body)["facts"]:
                if fact["type"] == ARRIVED:
                    self.seen[fact["payload"]["encounterId"]] = now

    async def stop(self) -> None:
        await self._connection.close()
