"""Consuming: many consumers on one connection, each on a channel of its own, that start and stop as leases move.

Messages are handed over as they arrived, in batches of whatever is there (`take`), or one by one to a callback. What
is not acknowledged goes back to its queue, in order, when the consumer is given back or lost. Reconnecting a consumer
is its owner's loop: it asks again when it still wants the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import aiormq

from infra.broker import wire
from infra.broker.connection import BROKER_TROUBLE, BrokerConnection, Channel, Listener
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused
from infra.broker.reconnect import Reconnecting
from infra.broker.sole_consumer import predecessor_gone, release_lock, take_lock
from infra.telemetry.metrics import Metrics

BATCH_LIMIT: Final = 256
PREFETCH: Final = 512
"""The same for every consumer a queue ever has. A quorum queue appends what is given back to what was given back
before and is not delivered again yet: only a successor that takes at least as much at once leaves nothing there, and
keeps the order. So never lower it to handle messages one at a time; take them and handle them one at a time.
"""


class Delivery:
    """One message as it came from the queue. What is rarely asked is decoded when asked."""

    __slots__ = ("_header", "_method", "_properties", "body", "redelivered", "tag")

    def __init__(self, method: bytes, header: bytes, body: bytes, first_tag: int = 0) -> None:
        at = 5 + method[4]  # method index, consumer tag
        fields: tuple[int, int] = wire.TAG_AND_BITS.unpack_from(method, at)
        self.tag: Final[int] = first_tag + fields[0]
        self.redelivered: Final = bool(fields[1] & 1)
        self.body = body
        self._method = method
        self._header = header
        self._properties: wire.Properties | None = None

    @property
    def properties(self) -> wire.Properties:
        """Message id, headers, reply-to and the like."""
        if self._properties is None:
            self._properties = wire.Properties(self._header)
        return self._properties

    @property
    def message_id(self) -> str | None:
        """As the publisher gave it."""
        return self.properties.message_id

    @property
    def headers(self) -> dict[str, Any]:  # Any: AMQP field values
        """Headers of the message, the broker's own (`x-delivery-count`, `x-death`) among them."""
        return self.properties.headers

    @property
    def exchange(self) -> str:
        """Where it was published to."""
        return wire.short_string(self._method, 14 + self._method[4])[0]

    @property
    def routing_key(self) -> str:
        """The key it was published with."""
        return wire.short_string(self._method, wire.short_string(self._method, 14 + self._method[4])[1])[0]


START_TIMEOUT: Final = 10.0
GENERATION: Final = 1 << 48
"""The broker numbers each channel's deliveries from 1. Ours start at a multiple of this that no other consumer of the
connection has, so that what one consumer delivered can never be acknowledged to its successor by mistake.
"""

OnDelivery = Callable[[Delivery], None]


class Consumer(Listener):
    """One consumer of one queue. Made by `ConsumingConnection.consume`."""

    channel: Channel

    def __init__(
        self,
        connection: BrokerConnection,
        queue: str,
        on_delivery: OnDelivery | None = None,
        *,
        generation: int = 0,
    ) -> None:
        self.queue: Final = queue
        self._connection = connection
        self._has_lock = False
        """Whether we are, or may be, the only one allowed to consume the queue."""
        self._first_tag: Final[int] = generation * GENERATION
        self.lost: str | None = None
        """Why it is over; None while it consumes."""
        self._on_delivery = on_delivery
        self._arrived: deque[Delivery] = deque()
        self._waiter: asyncio.Future[None] | None = None
        """Somebody in `take` with nothing to take; else None."""

    @property
    def buffered(self) -> int:
        """Messages here and not yet taken."""
        return len(self._arrived)

    async def start(self, *, prefetch: int, exclusive: bool, no_ack: bool) -> None:
        """Ask the broker for deliveries; once. Raises ConsumerRefused, and the library's errors."""
        rpc = self.channel.rpc
        if exclusive:
            self._has_lock = True  # from here on: cancelled before the answer comes it may be ours
            try:
                await take_lock(rpc, self.queue)
            except ConsumerRefused:
                self._has_lock = False
                raise
            await predecessor_gone(rpc, self.queue)
        await rpc.basic_qos(prefetch_count=prefetch)
        await rpc.basic_consume(self.queue, _never, no_ack=no_ack, consumer_tag=f"carespine.{uuid4().hex}")

    async def take(self, limit: int = BATCH_LIMIT, *, timeout: float | None = None) -> list[Delivery]:
        """Everything that has arrived, oldest first, at most `limit`; waits for the first one.

        Empty only when `timeout` seconds passed without one. Raises ConsumerLost as soon as the consumer is over:
        what is still buffered then belongs to the queue again.
        """
        if self.lost is not None:
            raise ConsumerLost(self.queue, self.lost)
        if not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._waiter
            except TimeoutError:
                return []
            finally:
                self._waiter = None
            if self.lost is not None:
                raise ConsumerLost(self.queue, self.lost)
        if len(self._arrived) <= limit:
            batch = list(self._arrived)
            self._arrived.clear()
            return batch
        return [self._arrived.popleft() for _ in range(limit)]

    async def until_lost(self) -> str:
        """Wait until the consumer is over; for owners that use a callback. Returns the reason."""
        while self.lost is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.lost

    def ack_through(self, tag: int) -> None:
        """Acknowledge every delivery through `tag`. Raises ConsumerLost when that can no longer be said."""
        self._say(wire.ack(self.channel.number, self._own(tag), multiple=True))

    def ack(self, tag: int) -> None:
        """Acknowledge one delivery."""
        self._say(wire.ack(self.channel.number, self._own(tag), multiple=False))

    def reject(self, tag: int, *, requeue: bool = False) -> None:
        """Hand one delivery to the queue's dead-letter exchange. (`requeue` breaks order; see `give_back`.)"""
        self._say(wire.reject(self.channel.number, self._own(tag), requeue=requeue))

    async def give_back(self) -> None:
        """Stop, put everything unacknowledged back in its place, and let others consume the queue."""
        await self.channel.close("given_back")
        if self._has_lock:
            self._has_lock = False
            await release_lock(self._connection, self.queue)

    def delivered(self, method: bytes, header: bytes, body: bytes) -> None:
        delivery = Delivery(method, header, body, self._first_tag)
        if self._on_delivery is not None:
            self._on_delivery(delivery)
            return
        self._arrived.append(delivery)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def ended(self, reason: str) -> None:
        self.lost = reason
        self._arrived.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _own(self, tag: int) -> int:
        """The broker's number of a delivery of ours."""
        number: int = tag - self._first_tag
        if not 0 < number < GENERATION:
            raise ConsumerLost(self.queue, "former_consumer")
        return number

    def _say(self, frame: bytes) -> None:
        if self.lost is not None:
            raise ConsumerLost(self.queue, self.lost)
        self.channel.send(frame)


async def consume(
    connection: BrokerConnection,
    queue: str,
    *,
    prefetch: int = PREFETCH,
    exclusive: bool = True,
    no_ack: bool = False,
    on_delivery: OnDelivery | None = None,
    generation: int = 0,
) -> Consumer:
    """Start consuming on a channel of its own; `exclusive`: as the only one. Raises ConsumerRefused or
    BrokerUnavailable.
    """
    consumer = Consumer(connection, queue, on_delivery, generation=generation)
    consumer.channel = await connection.channel(consumer)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await consumer.start(prefetch=prefetch, exclusive=exclusive, no_ack=no_ack)
    except BaseException as trouble:
        # Cancelled in the middle it may consume all the same: shielded, so that nobody is left consuming unseen.
        await asyncio.shield(consumer.give_back())
        if isinstance(trouble, aiormq.exceptions.ChannelNotFoundEntity):
            raise ConsumerRefused(queue, "missing") from None
        if isinstance(trouble, BROKER_TROUBLE):
            raise BrokerUnavailable("timeout" if isinstance(trouble, TimeoutError) else "lost") from trouble
        raise
    return consumer


async def _never(message: aiormq.abc.DeliveredMessage) -> None:
    """What the library would call: the tap takes every delivery before the library sees it."""


class ConsumingConnection(Reconnecting):
    """One connection for the consumers of one process, as many as it holds leases for."""

    def __init__(self, url: str, *, name: str, metrics: Metrics | None = None, kind: str = "commands") -> None:
        """`kind` is the label of its queues in metrics."""
        super().__init__(url, name=name)
        self._connection: BrokerConnection | None = None
        if metrics is not None:
            metrics.consumers_expected.labels(kind).set_function(lambda: self.expected)
            metrics.consumers_actual.labels(kind).set_function(lambda: self.actual)
        self._generation = 0
        self._starting: set[str] = set()
        self._consumers: dict[str, Consumer | None] = {}
        """By queue wanted; None or a lost one: wanted, and nobody consumes it."""

    @property
    def expected(self) -> int:
        """Queues this process means to consume."""
        return len(self._consumers)

    @property
    def actual(self) -> int:
        """Queues it really consumes."""
        return sum(1 for consumer in self._consumers.values() if consumer is not None and consumer.lost is None)

    def ready(self) -> str | None:
        """None when every wanted queue is consumed, else what is missing."""
        if (missing := super().ready()) is not None:
            return missing
        if self.actual < self.expected:
            return f"{self.actual} of {self.expected} consumers"
        return None

    async def consume(
        self,
        queue: str,
        *,
        prefetch: int = PREFETCH,
        exclusive: bool = True,
        no_ack: bool = False,
        on_delivery: OnDelivery | None = None,
    ) -> Consumer:
        """Start consuming `queue`; from now on it counts as wanted, until `release`.

        Raises ConsumerRefused (somebody else holds it, or it does not exist) or BrokerUnavailable: ask again after a
        pause.
        """
        self._consumers.setdefault(queue, None)
        if self._connection is None:
            raise BrokerUnavailable("not_connected")
        former = self._consumers[queue]
        if queue in self._starting or (former is not None and former.lost is None):
            raise ConsumerRefused(queue, "exclusive")
        self._generation += 1
        self._starting.add(queue)
        try:
            consumer = await consume(
                self._connection,
                queue,
                prefetch=prefetch,
                exclusive=exclusive,
                no_ack=no_ack,
                on_delivery=on_delivery,
                generation=self._generation,
            )
        finally:
            self._starting.discard(queue)
        if queue not in self._consumers:  # released meanwhile
            await consumer.give_back()
            raise ConsumerLost(queue, "given_back")
        self._consumers[queue] = consumer
        return consumer

    async def release(self, queue: str) -> None:
        """Stop wanting `queue`: what is unacknowledged goes back in order, and nobody here consumes it any more."""
        consumer = self._consumers.pop(queue, None)
        if consumer is not None and consumer.lost is None:
            await consumer.give_back()

    async def _serve(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._up.set()
        try:
            await connection.lost.wait()
        finally:
            self._connection = None
