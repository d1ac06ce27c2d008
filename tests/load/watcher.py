"""A consumer of `carespine.events`, as a bridge is one, that counts published arrivals and notes their times."""

from __future__ import annotations

import time
from typing import Self

import orjson

from contracts import routing
from contracts.encounter import PatientArrived
from infra.broker.connection import BrokerConnection
from infra.broker.consumer import Delivery, consume
from infra.broker.private_queue import declare_private

ARRIVED = PatientArrived.type_name()


class Watcher:
    """Counts the check-ins published so far; while `seen` is a dict it also notes when each encounter appeared."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._mark = f'"{ARRIVED}"'.encode()
        self.count = 0
        self.seen: dict[str, float] | None = None
        """By encounter id; None while only counting, which is cheaper."""

    @classmethod
    async def start(cls, rabbitmq_url: str) -> Self:
        """Begin to consume everything."""
        connection = await BrokerConnection.open(rabbitmq_url, name="bench.watcher")
        watcher = cls(connection)
        queue = await declare_private(connection, "bench.watcher")
        channel = await connection.channel()
        await channel.rpc.queue_bind(queue, routing.EVENTS, "unit.#")
        await consume(connection, queue, prefetch=0, exclusive=False, no_ack=True, on_delivery=watcher._take)
        return watcher

    def _take(self, delivery: Delivery) -> None:
        self.count += delivery.body.count(self._mark)
        if self.seen is not None:
            now = time.monotonic()
            for fact in orjson.loads(delivery.body)["facts"]:
                if fact["type"] == ARRIVED:
                    self.seen[fact["payload"]["encounterId"]] = now

    async def stop(self) -> None:
        await self._connection.close()
