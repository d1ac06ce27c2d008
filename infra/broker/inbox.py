"""A bridge's inbox: one queue, bound by unit id for every unit whose link the bridge holds.

Nothing here is the truth: whatever was published while the bridge was away is in the log. After every reconnect the
queue is declared anew and bound for all current units, and then the owner is told that there was a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from contracts import routing
from infra.broker.connection import BrokerConnection, Channel
from infra.broker.consumer import OnDelivery, consume
from infra.broker.errors import BrokerUnavailable
from infra.broker.private_queue import declare_private
from infra.broker.reconnect import Reconnecting

BIND_TIMEOUT: Final = 10.0
BATCH: Final = 200
"""Units bound between two answers of the broker."""
BINDINGS: Final = (
    (routing.EVENTS, routing.unit_binding),
    (routing.COMMANDS, lambda unit_id: routing.call_key(unit_id, "#")),
)
"""(exchange, routing key pattern of a unit)"""


class Inbox(Reconnecting):
    """The queue `bridge.<instance>`. Deliveries go to `on_delivery` as they arrive; they need no acknowledgement."""

    def __init__(
        self,
        url: str,
        *,
        instance: str,
        on_delivery: OnDelivery,
        on_gap: Callable[[], None] | None = None,
    ) -> None:
        """`on_gap` is called after every reconnect but the first connect: something may have been missed for any
        unit.
        """
        super().__init__(url, name=f"bridge.{instance}")
        self._base = f"bridge.{instance}"
        self._on_delivery = on_delivery
        self._on_gap = on_gap
        self._wanted: set[str] = set()
        self._bound: set[str] = set()
        """What the broker has bound for the queue of this connection; empty while there is none."""
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._changed = asyncio.Event()
        self._connected = False
        self._been_up = False

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
        consumer = await consume(
            connection, queue, prefetch=0, exclusive=False, no_ack=True, on_delivery=self._on_delivery
        )
        channel = await connection.channel()
        self._connected = True
        binder = asyncio.create_task(self._keep_bound(channel, queue))
        lost = asyncio.create_task(consumer.until_lost())
        try:
            await asyncio.wait((binder, lost), return_when=asyncio.FIRST_COMPLETED)
            if binder.done():
                await binder
        finally:
            self._connected = False
            binder.cancel()
            lost.cancel()
            await asyncio.gather(binder, lost, return_exceptions=True)
            self._up.clear()
            self._bound.clear()
            self._tell(list(self._waiting), BrokerUnavailable("lost"))

    async def _keep_bound(self, channel: Channel, queue: str) -> None:
        """Make the broker's bindings what is wanted, again and again. The only one to use `channel`, so that a caller
        who
        gives up does not take a half-made request with it."""
        while True:
            self._changed.clear()
            missing = list(self._wanted - self._bound)
            for start in range(0, len(missing), BATCH):
                await self._bind(channel, queue, missing[start : start + BATCH])
            if not self._up.is_set() and not self._wanted - self._bound:
                self._came_up()
            for unit_id in self._bound - self._wanted:
                self._bound.discard(unit_id)
                for exchange, pattern in BINDINGS:
                    await channel.rpc.queue_unbind(queue, exchange, pattern(unit_id), timeout=BIND_TIMEOUT)
            await self._changed.wait()

    async def _bind(self, channel: Channel, queue: str, units: list[str]) -> None:
        # A channel's requests are carried out in order, so the one answer at the end stands for all of them.
        *unanswered, (exchange, key) = [(exchange, pattern(unit)) for unit in units for exchange, pattern in BINDINGS]
        for one_exchange, one_key in unanswered:
            await channel.rpc.queue_bind(queue, one_exchange, one_key, nowait=True, timeout=BIND_TIMEOUT)
        await channel.rpc.queue_bind(queue, exchange, key, timeout=BIND_TIMEOUT)
        self._bound.update(units)
        self._tell(units, None)

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
