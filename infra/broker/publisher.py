"""Publishing: one connection, one confirmed channel, one unconfirmed, any number of callers at once.

`publish` returns when the broker has the message safe, or raises; `publish_nowait` is for what may be lost (live
pushes, answers to waiting callers). A lost confirm does not mean a lost message: receivers deduplicate by id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from infra.broker import wire
from infra.broker.connection import BrokerConnection, Channel, Listener
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.reconnect import Backoff, Reconnecting
from infra.telemetry.metrics import Metrics

MAX_IN_FLIGHT: Final = 4096
SWEEP_SECONDS: Final = 0.05
"""How often deadlines are looked at: one timer for all publishes instead of one each."""


class Publisher(Reconnecting):
    """Publishes on one connection and reconnects by itself; while it is away every publish fails at once."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        max_in_flight: int = MAX_IN_FLIGHT,
        on_confirmed: Callable[[float], None] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`on_confirmed` is told the seconds from publish to confirm; without it they go to the metrics."""
        super().__init__(url, name=name)
        self._max_in_flight = max_in_flight
        self._observe = on_confirmed or (metrics.publish_confirm_duration_seconds.observe if metrics else None)
        self._failures = metrics.publish_failures if metrics else None
        self._lane: _ConfirmedLane | None = None
        self._transient: Channel | None = None
        self._connection: BrokerConnection | None = None

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet confirmed."""
        return len(self._lane.pending) if self._lane is not None else 0

    def ready(self) -> str | None:
        """None when a publish can succeed, else why not."""
        if self._connection is not None and self._connection.blocked:
            return "broker blocks publishers (memory or disk alarm)"
        return super().ready()

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: dict[str, Any] | None = None,  # Any: AMQP field values
        persistent: bool = True,
        mandatory: bool = True,
        deadline: float = 5.0,
        expiration: int | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        type: str | None = None,  # noqa: A002 - AMQP's own name for the property
    ) -> None:
        """Return when the broker has confirmed the message, within `deadline` seconds.

        Raises BrokerUnavailable (not connected, blocked, lost, no confirm in time: it may have been delivered all the
        same) or Unroutable (mandatory, and no queue is bound). `expiration` is the message's life in milliseconds.
        """
        try:
            lane = self._lane
            if lane is None:
                raise BrokerUnavailable("not_connected")
            connection = lane.connection
            if connection.blocked:
                raise BrokerUnavailable("blocked")
            due = lane.clock() + deadline
            if lane.is_full or connection.congested:
                await lane.room(due)
            data = wire.publish(
                lane.channel.number, exchange, routing_key, body, message_id=message_id,
                frame_max=connection.frame_max, persistent=persistent, mandatory=mandatory, headers=headers,
                correlation_id=correlation_id, reply_to=reply_to, expiration=expiration, type=type,
            )  # fmt: skip
            await lane.send(data, message_id, due)
        except BrokerUnavailable as trouble:
            self._count(trouble.reason)
            raise
        except Unroutable:
            self._count("unroutable")
            raise

    def publish_nowait(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str | None = None,
        headers: dict[str, Any] | None = None,  # Any: AMQP field values
        expiration: int | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        type: str | None = None,  # noqa: A002 - AMQP's own name for the property
    ) -> None:
        """Send a transient message nobody confirms. Raises BrokerUnavailable when it cannot even be sent."""
        channel, connection = self._transient, self._connection
        if channel is None or channel.ended is not None or connection is None:
            raise BrokerUnavailable("not_connected")
        if connection.blocked:
            raise BrokerUnavailable("blocked")
        if connection.congested:
            raise BrokerUnavailable("full")
        channel.send(
            wire.publish(
                channel.number, exchange, routing_key, body, message_id=message_id, frame_max=connection.frame_max,
                persistent=False, mandatory=False, headers=headers, correlation_id=correlation_id, reply_to=reply_to,
                expiration=expiration, type=type,
            )
        )  # fmt: skip

    def _count(self, reason: str) -> None:
        if self._failures is not None:
            self._failures.labels(reason).inc()

    async def _serve(self, connection: BrokerConnection) -> None:
        backoff = Backoff()
        self._connection = connection
        try:
            while not connection.lost.is_set():
                lane = _ConfirmedLane(connection, self._max_in_flight, self._observe, self._down)
                transient = _TransientLane(self._down)
                lane.channel = await connection.channel(lane, confirms=True)
                self._transient = transient.channel = await connection.channel(transient)
                self._lane = lane
                self._up.set()
                await _first_of(lane.over, transient.over)
                # A channel dies alone when somebody publishes to an exchange that is not there: the others' messages
                # were on it too, so it is opened again, but not in a tight loop.
                if not connection.lost.is_set():
                    await lane.channel.close("channel_closed")
                    await transient.channel.close("channel_closed")
                    await asyncio.sleep(backoff.next())
        finally:
            self._down()
            self._connection = None

    def _down(self) -> None:
        """At once, not when `_serve` gets its turn: whoever publishes in between must hear the truth."""
        self._up.clear()
        self._lane = None
        self._transient = None


class _TransientLane(Listener):
    channel: Channel

    def __init__(self, down: Callable[[], None]) -> None:
        self.over = asyncio.Event()
        self._down = down

    def ended(self, reason: str) -> None:
        self.over.set()
        self._down()


class _ConfirmedLane(Listener):
    """Numbers the messages of one confirmed channel and pairs them with the broker's confirms."""

    channel: Channel

    def __init__(
        self,
        connection: BrokerConnection,
        max_in_flight: int,
        observe: Callable[[float], None] | None,
        down: Callable[[], None],
    ) -> None:
        self.over = asyncio.Event()
        self._down = down
        self.pending: dict[int, tuple[asyncio.Future[None], str, float, float]] = {}
        """By delivery tag, oldest first: who waits, message id, deadline, when it was sent."""
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self._tag = 0
        self.connection: Final = connection
        self._max_in_flight = max_in_flight
        self._observe = observe
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        return len(self.pending) >= self._max_in_flight

    def send(self, data: bytes, message_id: str, due: float) -> asyncio.Future[None]:
        if self.over.is_set():
            raise BrokerUnavailable("lost")
        self.channel.send(data)
        self._tag += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self.pending[self._tag] = (future, message_id, due, self.clock())
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    async def room(self, due: float) -> None:
        """Wait until another message may be in flight."""
        try:
            async with asyncio.timeout_at(due):
                while self.is_full or self.connection.congested:
                    if self.over.is_set():
                        raise BrokerUnavailable("lost")
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    self._waiting.append(waiter)
                    if self._sweeper is None:
                        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
                    await waiter
        except TimeoutError:
            raise BrokerUnavailable("full") from None

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        if multiple:
            tags = []
            for waiting in self.pending:
                if waiting > tag:
                    break
                tags.append(waiting)
        else:
            tags = [tag]
        for one in tags:
            entry = self.pending.pop(one, None)
            if entry is None or entry[0].done():
                continue  # its caller gave up, or the message was returned
            if taken:
                entry[0].set_result(None)
                if self._observe is not None:
                    self._observe(self.clock() - entry[3])
            else:
                entry[0].set_exception(BrokerUnavailable("rejected"))
        if self._waiting:
            self._let_in()

    def returned(self, method: bytes, header: bytes) -> None:
        # Method index, reply code, reply text, exchange, routing key. The confirm follows; its caller hears this
        # instead.
        _, at = wire.short_string(method, 6)
        exchange, at = wire.short_string(method, at)
        routing_key, _ = wire.short_string(method, at)
        message_id = wire.Properties(header).message_id
        for future, sent_id, _, _ in self.pending.values():
            if sent_id == message_id and not future.done():
                future.set_exception(Unroutable(exchange, routing_key))
                return

    def ended(self, reason: str) -> None:
        self.over.set()
        self._down()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for future, _, _, _ in self.pending.values():
            if not future.done():
                future.set_exception(BrokerUnavailable("lost"))
        self.pending.clear()
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.clock()
        late = [tag for tag, entry in self.pending.items() if entry[2] <= now]
        for tag in late:
            future = self.pending.pop(tag)[0]
            if not future.done():
                future.set_exception(BrokerUnavailable("no_confirm"))
        if self._waiting:
            self._let_in()
        if self.pending or self._waiting:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
