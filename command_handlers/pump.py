"""From queues to batches: which messages are taken together, what happens after trouble, when they are acknowledged.

One loop per process takes whatever has arrived on all owned partitions, so batches grow with the load and never wait
for a timer. Order within a partition is kept: a partition's messages are handled one batch after the other, and giving
back gives back everything unacknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from command_handlers.batch import Batches, Result
from command_handlers.messages import Item
from command_handlers.writing import BlockGone, ReceiptTaken
from contracts.dead_letter import Reason
from contracts.routing import commands_queue
from infra.broker.consumer import Consumer, ConsumingConnection, Delivery
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused
from infra.broker.publisher import Publisher
from infra.broker.replies import packed
from infra.broker.wire import TooLong
from infra.database import DatabaseUnavailable, Pool, connected
from infra.event_log import Fenced
from infra.ownership import Ownership
from infra.sealing import KeyNotKnown
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 4
"""Times a command is taken up when handlers keep dying over it, the last ones alone; then it is taken for the cause."""
MOST_DECISIONS = 5
"""Times a single command is decided again because the database said no to it."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
DRAIN_SECONDS = 5.0


@dataclass(slots=True)
class Source:
    """One owned partition: its consumer while there is one, and what has arrived."""

    partition: int
    epoch: int
    task: asyncio.Task[None] | None = None
    consumer: Consumer | None = None
    """None while the queue is not consumed (somebody else still holds it, or the broker is away)."""
    arrived: deque[Delivery] = field(default_factory=deque)

    def live(self) -> bool:
        """Whether what has arrived may be handled and acknowledged."""
        return self.consumer is not None and self.consumer.lost is None


class Pump:
    """Consumes the partitions it is given and has them handled."""

    def __init__(
        self,
        *,
        broker: ConsumingConnection,
        publisher: Publisher,
        pool: Pool,
        batches: Batches,
        metrics: Metrics,
        batch_limit: int,
    ) -> None:
        self._broker = broker
        self._publisher = publisher
        self._pool = pool
        self._batches = batches
        self._metrics = metrics
        self._limit = batch_limit
        self._sources: dict[int, Source] = {}
        self._turn = 0
        """Which partition is looked at first, so that a busy one does not keep the others waiting."""
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.ownership: Ownership
        """Set by whoever wires us; told when a write was fenced."""
        self.trouble: str | None = None
        """What keeps us from handling right now; None: nothing does."""

    async def gained(self, partition: int, epoch: int) -> None:
        """The partition is ours: consume it as soon as its former owner has let go."""
        self._batches.memory.forget(partition)
        source = Source(partition, epoch)
        self._sources[partition] = source
        source.task = asyncio.create_task(self._serve(source), name=f"partition-{partition:02d}")

    async def lost(self, partition: int) -> None:
        """The partition goes to somebody else: finish what is under way and give the rest back."""
        source = self._sources.pop(partition, None)
        if source is None:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("partition.not_drained", partition=partition)
        if source.task is not None:
            source.task.cancel()
            await asyncio.gather(source.task, return_exceptions=True)
        await self._broker.release(commands_queue(partition))
        self._batches.memory.forget(partition)

    async def run(self) -> None:
        """Handle batches until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            while batch := self._take():
                self._idle.clear()
                try:
                    await self._handle_all(batch)
                finally:
                    self._idle.set()

    async def drained(self) -> None:
        """Wait until no batch is under way."""
        await self._idle.wait()

    async def _serve(self, source: Source) -> None:
        queue = commands_queue(source.partition)
        while True:
            try:
                source.consumer = await self._broker.consume(
                    queue,
                    exclusive=True,
                    on_delivery=lambda delivery: self._arrived(source, delivery),
                )
                # What arrived before we knew our consumer was left lying.
                self._something.set()
                log.info("partition.consuming", partition=source.partition, epoch=source.epoch)
                reason = await source.consumer.until_lost()
            except (ConsumerRefused, BrokerUnavailable) as why:
                reason = why.reason
            source.consumer = None
            source.arrived.clear()
            # `exclusive`: the former owner is still there; its broker connection ends it within two heartbeats.
            log.info("partition.waiting", partition=source.partition, reason=reason)
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - jitter, not a secret

    def _arrived(self, source: Source, delivery: Delivery) -> None:
        source.arrived.append(delivery)
        self._something.set()

    def _take(self) -> list[tuple[Source, Item]]:
        """Everything that has arrived, up to the limit; every partition is the first one in its turn."""
        sources = list(self._sources.values())
        self._turn += 1
        batch: list[tuple[Source, Item]] = []
        for place in range(len(sources)):
            source = sources[(self._turn + place) % len(sources)]
            while source.arrived and source.live() and len(batch) < self._limit:
                batch.append((source, Item(source.partition, source.arrived.popleft())))
        return batch

    async def _handle_all(self, batch: list[tuple[Source, Item]]) -> None:
        for _, item in batch:
            self._batches.decode(item)
        suspects = await self._suspects([item for _, item in batch])
        together: list[tuple[Source, Item]] = []
        for source, item in batch:
            if item.envelope is None or item.envelope.command_id not in suspects:
                together.append((source, item))
                continue
            await self._handle(together)
            together = []
            await self._handle([(source, item)])
        await self._handle(together)

    async def _suspects(self, items: Sequence[Item]) -> frozenset[UUID]:
        """Commands over which a handler may have died: delivered again, and under way when a process ended."""
        again = [item.envelope.command_id for item in items if item.envelope and item.message.redelivered]
        if not again:
            return frozenset()
        pause = FIRST_PAUSE
        while True:
            try:
                async with connected(self._pool) as connection:
                    cursor = await connection.execute(
                        "SELECT command_id FROM command_attempts WHERE command_id = ANY(%s)", (again,)
                    )
                    return frozenset(row[0] for row in await cursor.fetchall())
            except DatabaseUnavailable as why:
                pause = await self._wait(why, pause)

    async def _wait(self, why: Exception, pause: float) -> float:
        """Nothing is lost by waiting, and nothing counts against the messages. Returns the next pause."""
        self.trouble = type(why).__name__
        log.warning("batch.waiting", reason=type(why).__name__, seconds=round(pause, 2))
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
        return min(pause * 2, LONGEST_PAUSE)

    async def _handle(self, batch: list[tuple[Source, Item]]) -> None:
        """Handle and acknowledge, however long it takes; what is not ours any more is left to its new owner."""
        pause = FIRST_PAUSE
        decisions = 0
        while batch := [(source, item) for source, item in batch if self._ours(source)]:
            epochs = {source.partition: source.epoch for source, _ in batch}
            try:
                await self._count_attempts([item for _, item in batch])
                result = await self._batches.handle([item for _, item in batch], epochs)
            except Fenced as fenced:
                log.warning("partition.fenced", partition=fenced.partition)
                self._batches.memory.forget(fenced.partition)
                await self._fenced(fenced.partition)
                continue
            except (DatabaseUnavailable, BrokerUnavailable, KeyNotKnown) as why:
                self._forget(epochs)
                pause = await self._wait(why, pause)
                continue
            except (ReceiptTaken, BlockGone) as why:
                self._forget(epochs)
                self._metrics.append_conflicts.inc()
                log.info("batch.decided_again", reason=type(why).__name__)
                continue
            except Exception as bug:  # noqa: BLE001 - found and put aside below, with its type and place
                self._forget(epochs)
                decisions += 1
                if len(batch) > 1:
                    log.warning("batch.split", error_type=type(bug).__name__, count=len(batch))
                    for one in batch:
                        await self._handle([one])
                    return
                if decisions >= MOST_DECISIONS:
                    batch[0][1].dead, batch[0][1].bug = Reason.BUG, bug
                if decisions >= 2 * MOST_DECISIONS:
                    batch[0][1].unanswerable = True
                continue
            self.trouble = None
            self._acknowledge(batch)
            self._tell(result)
            return

    def _ours(self, source: Source) -> bool:
        return self._sources.get(source.partition) is source and source.live()

    async def _fenced(self, partition: int) -> None:
        # `lost` waits until no batch is under way, and we are one: step aside first.
        source = self._sources.pop(partition, None)
        if source is None:
            return
        if source.task is not None:
            source.task.cancel()
        await self._broker.release(commands_queue(partition))
        await self.ownership.drop(partition)

    def _forget(self, partitions: dict[int, int]) -> None:
        for partition in partitions:
            self._batches.memory.forget(partition)

    async def _count_attempts(self, items: Sequence[Item]) -> None:
        """Note which redelivered commands are taken up now, before one of them can take the process down again."""
        again = {
            item.envelope.command_id: item
            for item in items
            if item.envelope and item.message.redelivered and not item.attempted
        }
        if not again:
            return
        async with connected(self._pool) as connection:
            cursor = await connection.execute(
                "INSERT INTO command_attempts (command_id, attempts) SELECT unnest(%s::uuid[]), 1 "
                "ON CONFLICT (command_id) DO UPDATE SET attempts = command_attempts.attempts + 1, last_at = now() "
                "RETURNING command_id, attempts",
                (list(again),),
            )
            for command_id, attempts in await cursor.fetchall():
                again[command_id].attempted = True
                if attempts > MOST_ATTEMPTS:
                    again[command_id].dead = Reason.CRASHED

    def _acknowledge(self, batch: Sequence[tuple[Source, Item]]) -> None:
        last = {source.partition: (source, item.message.tag) for source, item in batch}
        for source, tag in last.values():
            if source.consumer is None:
                continue
            try:
                source.consumer.ack_through(tag)
            except ConsumerLost:
                # Delivered again, and answered from the receipt.
                log.info("partition.ack_lost", partition=source.partition)

    def _tell(self, result: Result) -> None:
        waiting: dict[str, list[tuple[str, bytes]]] = {}
        for envelope, outcome in result.answers:
            if envelope.reply_to is not None:
                waiting.setdefault(envelope.reply_to, []).append((str(envelope.command_id), outcome.to_json()))
        for reply_to, answers in waiting.items():
            try:
                self._publisher.publish_nowait("", reply_to, packed(answers))
            except (BrokerUnavailable, TooLong):
                # Their wait ends with `pending`, and the receipts have the answers.
                log.info("answers.not_sent", count=len(answers))
