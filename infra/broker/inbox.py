"""A bridge's inbox: one queue, bound by unit id for every unit whose link the bridge holds.

Nothing here is the truth: whatever was published while the bridge was away is in the log. After every reconnect the
queue is declared anew and bound for all current units, and then the owner is told that there was a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Final

import structlog

from contracts import routing
from infra.broker import wire
from infra.broker.connection import BROKER_TROUBLE, BrokerConnection, Channel
from infra.broker.consumer import Delivery, OnDelivery, consume
from infra.broker.errors import BrokerUnavailable
from infra.broker.private_queue import declare_private
from infra.broker.reconnect import Reconnecting

BIND_TIMEOUT: Final = 30.0
BATCH: Final = 1000
"""Units bound between two looks at what is wanted."""
CHANNELS: Final = 16
"""Bindings are made on so many channels at once: RabbitMQ 4.3 writes each to its metadata store, 700 a second one after
the other and 4,700 this way; 3.10 makes 1,400 a second either way.
"""


PROBE: Final = b"\x00carespine.probe"
PROBE_SECONDS: Final = 5.0
"""How often the inbox sends itself a message: that it consumes is known when it comes, and by nothing else."""
SILENT_SECONDS: Final = 5.0
"""A probe that takes longer makes it unready,"""
LOST_SECONDS: Final = 20.0
"""and one that takes that long makes it begin anew."""

log = structlog.get_logger()


class Inbox(Reconnecting):
    """The queue `bridge.<instance>`. Deliveries go to `on_delivery` as they arrive; they need no acknowledgement."""

    def __init__(
        self,
        url: str,
        *,
        instance: str,
        on_delivery: OnDelivery,
        on_gap: Callable[[], None] | None = None,
        kind: str = "bridge",
        binding: Callable[[str], str] = routing.unit_binding,
    ) -> None:
        """`on_gap` is called after every reconnect but the first connect: something may have been missed for any
        unit. `kind` begins the queue's name; `binding` says which of a unit's messages come here.
        """
        super().__init__(url, name=f"{kind}.{instance}")
        self._base = f"{kind}.{instance}"
        self._binding = binding
        self._on_delivery = on_delivery
        self._on_gap = on_gap
        self._wanted: set[str] = set()
        self._bound: set[str] = set()
        """What the broker has bound for the queue of this connection; empty while there is none."""
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._changed = asyncio.Event()
        self._connected = False
        self._been_up = False
        self._probed_at: float | None = None
        """Loop time at which the probe left that is still to come; None: the last one came."""

    def ready(self) -> str | None:
        """None when deliveries come, as the last probe has shown, else why not."""
        if self._silent() > SILENT_SECONDS:
            return "no deliveries come"
        return super().ready()

    @property
    def units(self) -> frozenset[str]:
        """Units this inbox is bound for, or will be when the broker is back."""
        return frozenset(self._wanted)

    async def bind(self, unit_id: str) -> None:
        """Returns when the broker routes this unit's messages here.

        Raises BrokerUnavailable when it cannot now. The unit stays wanted until `unbind`: it gets its bindings when the
        broker is back, and the owner hears of the gap.
        """
        self._wanted.add(unit_id)
        self._changed.set()
        if unit_id in self._bound:
            return
        if not self._connected:
            raise BrokerUnavailable("not_connected")
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(unit_id, []).append(answer)
        try:
            async with asyncio.timeout(BIND_TIMEOUT):
                await answer
        except TimeoutError:
            raise BrokerUnavailable("timeout") from None

    def unbind(self, unit_id: str) -> None:
        """Stop receiving a unit's messages, soon: some may still arrive."""
        self._wanted.discard(unit_id)
        self._changed.set()

    async def _serve(self, connection: BrokerConnection) -> None:
        queue = await declare_private(connection, self._base)
        consumer = await consume(connection, queue, prefetch=0, exclusive=False, no_ack=True, on_delivery=self._arrived)
        channels = [await connection.channel() for _ in range(CHANNELS)]
        self._connected = True
        self._probed_at = None
        prober = asyncio.create_task(self._keep_probing(connection, channels[0], queue))
        binder = asyncio.create_task(self._keep_bound(channels, queue))
        lost = asyncio.create_task(consumer.until_lost())
        try:
            await asyncio.wait((binder, lost, prober), return_when=asyncio.FIRST_COMPLETED)
            if binder.done():
                await binder
        finally:
            self._connected = False
            for task in (binder, lost, prober):
                task.cancel()
            await asyncio.gather(binder, lost, prober, return_exceptions=True)
            self._probed_at = None
            self._up.clear()
            self._bound.clear()
            self._tell(list(self._waiting), BrokerUnavailable("lost"))

    def _arrived(self, delivery: Delivery) -> None:
        if delivery.body == PROBE:
            self._probed_at = None
        else:
            self._on_delivery(delivery)

    def _silent(self) -> float:
        """For how long a probe has been on its way."""
        return 0.0 if self._probed_at is None else asyncio.get_running_loop().time() - self._probed_at

    async def _keep_probing(self, connection: BrokerConnection, channel: Channel, queue: str) -> None:
        """Send a probe now and then; returns when one did not come back."""
        probe = wire.publish(
            channel.number, "", queue, PROBE, message_id=None, frame_max=connection.frame_max, persistent=False,
            mandatory=False,
        )  # fmt: skip
        while self._silent() <= LOST_SECONDS:
            if self._probed_at is None:
                self._probed_at = asyncio.get_running_loop().time()
                channel.send(probe)
            await asyncio.sleep(PROBE_SECONDS)
        log.error("inbox_silent", queue=queue, seconds=round(self._silent(), 1))

    async def _keep_bound(self, channels: list[Channel], queue: str) -> None:
        """Make the broker's bindings what is wanted, again and again. Nobody else uses these channels, so a caller who
        gives up does not take a half-made request with it.
        """
        while True:
            self._changed.clear()
            while missing := list(islice(self._wanted - self._bound, BATCH)):
                await _on_all(channels, missing, lambda channel, units: self._bind(channel, queue, units))
            if not self._up.is_set():
                self._came_up()
            if surplus := list(islice(self._bound - self._wanted, BATCH)):
                self._bound.difference_update(surplus)
                self._changed.set()
                await _on_all(channels, surplus, lambda channel, units: self._unbind(channel, queue, units))
            await self._changed.wait()

    async def _bind(self, channel: Channel, queue: str, units: list[str]) -> None:
        # A channel's requests are carried out in order, so the answer to the last stands for all of them.
        *unanswered, last = units
        for unit_id in unanswered:
            await channel.rpc.queue_bind(
                queue, routing.EVENTS, self._binding(unit_id), nowait=True, timeout=BIND_TIMEOUT
            )
        await channel.rpc.queue_bind(queue, routing.EVENTS, self._binding(last), timeout=BIND_TIMEOUT)
        self._bound.update(units)
        self._tell(units, None)

    async def _unbind(self, channel: Channel, queue: str, units: list[str]) -> None:
        for unit_id in units:
            await channel.rpc.queue_unbind(queue, routing.EVENTS, self._binding(unit_id), timeout=BIND_TIMEOUT)

    def _came_up(self) -> None:
        self._up.set()
        if self._been_up and self._on_gap is not None:
            self._on_gap()
        self._been_up = True

    def _tell(self, units: list[str], trouble: BrokerUnavailable | None) -> None:
        for unit_id in units:
            for answer in self._waiting.pop(unit_id, ()):
                if answer.done():
                    continue
                if trouble is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(trouble)


async def _on_all(
    channels: list[Channel],
    units: list[str],
    work: Callable[[Channel, list[str]], Coroutine[object, object, None]],
) -> None:
    """Share the units out among the channels and wait for all of them. Raises BrokerUnavailable."""
    shares = [units[place :: len(channels)] for place in range(len(channels))]
    try:
        async with asyncio.TaskGroup() as tasks:
            for channel, share in zip(channels, shares, strict=True):
                if share:
                    tasks.create_task(work(channel, share))
    except ExceptionGroup as several:
        _, bugs = several.split(BROKER_TROUBLE)
        if bugs is not None:
            raise bugs from None
        raise BrokerUnavailable("lost") from several
