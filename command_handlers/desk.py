"""The dead-letter desk: files what the fallback queues hold, and carries out replays in the order of their streams.

Every handler process has one. Filing is shared (filing twice is harmless); one desk at a time replays. What operators
may ask and see is `infra.dead_letters`'.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from pydantic import ValidationError

from command_handlers.letters import CODE_VERSION, as_text, fingerprint, undecodable_id
from contracts.dead_letter import MESSAGE_TYPE, DeadLetter, Reason, letter_id_for
from contracts.envelope import CommandEnvelope, Replay
from contracts.ids import partition_of
from contracts.routing import COMMANDS, DEAD_COMMANDS, DEAD_UNITS, command_key, commands_queue
from contracts.text import holds_nul
from infra.broker.consumer import Consumer, ConsumingConnection, Delivery
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused, Unroutable
from infra.broker.publisher import Publisher
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.dead_letters import ledger
from infra.dead_letters.replays import add_items
from infra.dead_letters.store import Letter, file, get_letter, message_of, release_blocks
from infra.sealing import Sealer
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 60.0
"""A replayed command without a receipt after this long is sent again (its id makes that harmless)."""
RAW_SECONDS = 5.0
"""A replayed message without a command id counts as taken when it has not come back after this long."""
_REPLAYING = 0x0DEAD


@dataclass(frozen=True, slots=True)
class Step:
    """The next letter of a running replay."""

    run_id: UUID
    letter_id: UUID
    status: str
    sent_at: datetime | None


class Desk:
    """Files and replays until cancelled."""

    def __init__(
        self,
        *,
        pool: Pool,
        sealer: Sealer,
        publisher: Publisher,
        broker: ConsumingConnection,
        metrics: Metrics,
        partitions: int,
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._publisher = publisher
        self._broker = broker
        self._metrics = metrics
        self._partitions = partitions

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for queue in (DEAD_COMMANDS, DEAD_UNITS):
                tasks.create_task(self._file_from(queue), name=f"desk-{queue}")
            tasks.create_task(self._replay(), name="desk-replay")

    async def _file_from(self, queue: str) -> None:
        while True:
            try:
                consumer = await self._broker.consume(queue, prefetch=50, exclusive=False)
                while True:
                    for delivery in await consumer.take():
                        await self._file(consumer, delivery, queue)
            except (ConsumerLost, ConsumerRefused, BrokerUnavailable) as why:
                log.info("desk.waiting", queue=queue, reason=why.reason)
                await asyncio.sleep(LOOK_SECONDS)

    async def _file(self, consumer: Consumer, delivery: Delivery, queue: str) -> None:
        dead = read_letter(delivery, queue, self._partitions)
        while True:
            try:
                await self._keep(dead)
                break
            except DatabaseUnavailable:
                # The letter stays with the broker until it is filed.
                await asyncio.sleep(LOOK_SECONDS)
                if consumer.lost is not None:
                    return
            except Exception as why:
                if dead.reason is Reason.UNDECODABLE and dead.base64:
                    raise
                # Whatever is wrong with this letter, it must not end the desk: its bytes are filed, and nothing read.
                log.warning("desk.letter_not_readable", queue=queue, error_type=type(why).__name__)
                dead = _undecodable(delivery.body, queue, as_bytes=True)
        consumer.ack(delivery.tag)
        log.info("desk.filed", reason=dead.reason.value, queue=queue)

    async def _keep(self, dead: DeadLetter) -> None:
        async with connected(self._pool) as connection:
            await file(connection, self._sealer, dead)
            if dead.reason is Reason.DELIVERY_LIMIT:
                await self._answer_for(connection, dead)

    async def _answer_for(self, connection: Connection, dead: DeadLetter) -> None:
        """A command the broker gave up has no receipt yet; its caller is told what became of it."""
        envelope = CommandEnvelope.model_validate_json(dead.message)
        await connection.execute(
            "INSERT INTO command_receipts (command_id, unit_id, partition, type, status, code, detail, request_hash, "
            "actor, dead_letter_id, issued_at) VALUES (%s, %s, %s, %s, 'failed', 'poison', "
            "'The broker gave up delivering this command; it waits at the dead-letter desk.', %s, %s::jsonb, %s, %s) "
            "ON CONFLICT (command_id) DO NOTHING",
            (
                envelope.command_id,
                envelope.unit_id,
                partition_of(envelope.unit_id, self._partitions),
                envelope.type,
                envelope.request_hash,
                envelope.actor.model_dump_json(by_alias=True, exclude_none=True),
                dead.letter_id,
                envelope.issued_at,
            ),
        )

    async def _replay(self) -> None:
        while True:
            try:
                await self._replay_while_mine()
            except (DatabaseUnavailable, BrokerUnavailable) as why:
                log.warning("desk.replay_waiting", reason=type(why).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _replay_while_mine(self) -> None:
        """Carry out what is asked, as long as this desk holds the lock that makes it the only one."""
        async with connected(self._pool) as connection:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_REPLAYING,))
            row = await cursor.fetchone()
            if row is None or not row[0]:
                return
            try:
                while (step := await self._next_step(connection)) is not None:
                    await self._carry_out(connection, step)
                await release_blocks(connection)
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_REPLAYING,))

    async def _next_step(self, connection: Connection) -> Step | None:
        cursor = await connection.execute(
            "SELECT i.run_id, i.letter_id, i.status, i.sent_at FROM replay_items i JOIN replays r USING (run_id) "
            "WHERE r.status = 'running' AND i.settled_at IS NULL ORDER BY r.requested_at, i.run_id, i.ord LIMIT 1"
        )
        row = await cursor.fetchone()
        if row is not None:
            return Step(*row)
        await self._finish(connection)
        return None

    async def _finish(self, connection: Connection) -> None:
        cursor = await connection.execute(
            "UPDATE replays r SET status = 'done', finished_at = clock_timestamp() WHERE status = 'running' AND NOT "
            "EXISTS (SELECT FROM replay_items i WHERE i.run_id = r.run_id AND i.settled_at IS NULL) RETURNING run_id"
        )
        for (run_id,) in await cursor.fetchall():
            async with connection.transaction():
                await ledger.record(connection, actor="carespine", act="replay done", reason="-", run_id=run_id)

    async def _carry_out(self, connection: Connection, step: Step) -> None:
        letter = await get_letter(connection, step.letter_id)
        verdict = await self._receipt(connection, letter, since=step.sent_at)
        if verdict == "pending":
            await self._send(connection, step, letter)
            verdict = await self._await_verdict(connection, step, letter)
        elif step.status == "waiting":
            verdict = "already-applied"
        await self._settle(connection, step, letter, verdict)

    async def _send(self, connection: Connection, step: Step, letter: Letter) -> None:
        message = await message_of(connection, self._sealer, letter)
        await connection.execute(
            "UPDATE replay_items SET status = 'sent', sent_at = clock_timestamp() WHERE run_id = %s AND letter_id = %s",
            (step.run_id, letter.letter_id),
        )
        if message is None:
            log.warning("desk.key_gone", reason="erased")
            return
        if letter.command_id is None:
            await self._publisher.publish("", letter.origin, message, message_id=str(letter.letter_id))
            return
        envelope = CommandEnvelope.model_validate_json(message).model_copy(
            update={"replay": Replay(letter_id=letter.letter_id, run_id=step.run_id), "reply_to": None}
        )
        key = command_key(envelope.unit_id, partition_of(envelope.unit_id, self._partitions), envelope.type)
        try:
            await self._publisher.publish(COMMANDS, key, envelope.to_json(), message_id=str(envelope.command_id))
        except Unroutable as why:
            raise BrokerUnavailable("unroutable") from why

    async def _await_verdict(self, connection: Connection, step: Step, letter: Letter) -> str:
        loop = asyncio.get_running_loop()
        cursor = await connection.execute(
            "SELECT sent_at FROM replay_items WHERE run_id = %s AND letter_id = %s", (step.run_id, letter.letter_id)
        )
        row = await cursor.fetchone()
        since = row[0] if row else None
        sent = loop.time()
        while True:
            verdict = await self._receipt(connection, letter, since=since)
            if verdict != "pending":
                return verdict
            if letter.command_id is None and loop.time() - sent > RAW_SECONDS:
                return "applied"
            if loop.time() - sent > ANSWER_SECONDS:
                await self._send(connection, step, letter)
                sent = loop.time()
            await asyncio.sleep(0.05)

    async def _receipt(self, connection: Connection, letter: Letter, *, since: datetime | None) -> str:
        """applied, refused, failed (again, after `since`) or pending."""
        if letter.command_id is None:
            cursor = await connection.execute(
                "SELECT last_failed_at FROM dead_letters WHERE letter_id = %s", (letter.letter_id,)
            )
            row = await cursor.fetchone()
            return "failed" if since is not None and row is not None and row[0] > since else "pending"
        cursor = await connection.execute(
            "SELECT status, recorded_at FROM command_receipts WHERE command_id = %s", (letter.command_id,)
        )
        row = await cursor.fetchone()
        if row is None:
            return "pending"
        status, recorded_at = row
        if status == "failed":
            return "failed" if since is not None and recorded_at > since else "pending"
        return "refused" if status == "refused" else "applied"

    async def _settle(self, connection: Connection, step: Step, letter: Letter, verdict: str) -> None:
        self._metrics.replay_letters.labels(outcome=verdict).inc()
        async with connection.transaction():
            await self._mark(connection, step.run_id, letter.letter_id, verdict)
            if verdict == "failed":
                await self._stop_block(connection, step, letter)
            else:
                await connection.execute(
                    "UPDATE dead_letters SET status = 'replayed', resolution = %s WHERE letter_id = %s",
                    (verdict, letter.letter_id),
                )
                await self._bring_followers(connection, step, letter)
            await ledger.record(
                connection, actor="carespine", act=verdict, reason="-", letter_id=letter.letter_id, run_id=step.run_id
            )
            await release_blocks(connection)
        log.info("desk.replayed", reason=verdict, stream=letter.stream)

    async def _mark(self, connection: Connection, run_id: UUID, letter_id: UUID, status: str) -> None:
        await connection.execute(
            "UPDATE replay_items SET status = %s, settled_at = clock_timestamp() WHERE run_id = %s AND letter_id = %s",
            (status, run_id, letter_id),
        )

    async def _stop_block(self, connection: Connection, step: Step, letter: Letter) -> None:
        """It failed again: it and what waits behind it go back to being open, in their places."""
        cursor = await connection.execute(
            "UPDATE replay_items i SET status = 'skipped', settled_at = clock_timestamp() FROM dead_letters l "
            "WHERE i.run_id = %s AND i.letter_id = l.letter_id AND i.settled_at IS NULL AND l.block_id = %s "
            "RETURNING i.letter_id",
            (step.run_id, letter.block_id),
        )
        back = [letter.letter_id, *(row[0] for row in await cursor.fetchall())]
        await connection.execute("UPDATE dead_letters SET status = 'open' WHERE letter_id = ANY(%s)", (back,))

    async def _bring_followers(self, connection: Connection, step: Step, letter: Letter) -> None:
        """Live commands that were parked while the replay ran come along, so that the stream can go on at its end."""
        if letter.block_id is None:
            return
        cursor = await connection.execute(
            "SELECT letter_id FROM dead_letters WHERE block_id = %s AND status = 'open' AND reason = 'parked' "
            "AND letter_id NOT IN (SELECT letter_id FROM replay_items WHERE run_id = %s) ORDER BY seq",
            (letter.block_id, step.run_id),
        )
        parked = [row[0] for row in await cursor.fetchall()]
        if parked:
            cursor = await connection.execute("SELECT max(ord) + 1 FROM replay_items WHERE run_id = %s", (step.run_id,))
            row = await cursor.fetchone()
            await add_items(connection, step.run_id, parked, first=row[0] if row else 0)


def read_letter(delivery: Delivery, queue: str, partitions: int) -> DeadLetter:
    """A handler's letter, or one made for whatever else lies in a fallback queue."""
    if delivery.properties.type == MESSAGE_TYPE:
        try:
            return DeadLetter.model_validate_json(delivery.body)
        except ValidationError:
            log.warning("desk.letter_not_readable", queue=queue)
    now = datetime.now(UTC)
    try:
        envelope = CommandEnvelope.model_validate_json(delivery.body)
    except ValidationError:
        return _undecodable(delivery.body, _died_in(delivery) or queue)
    return DeadLetter(
        letter_id=letter_id_for(envelope.command_id),
        reason=Reason.DELIVERY_LIMIT,
        fingerprint=fingerprint(Reason.DELIVERY_LIMIT, envelope.type),
        origin=commands_queue(partition_of(envelope.unit_id, partitions)),
        code_version=CODE_VERSION,
        failed_at=now,
        partition=partition_of(envelope.unit_id, partitions),
        message=delivery.body.decode(),
    )


def _undecodable(body: bytes, origin: str, *, as_bytes: bool = False) -> DeadLetter:
    """A letter about a message of which nothing is known but its bytes."""
    message, is_base64 = (base64.b64encode(body).decode(), True) if as_bytes else as_text(body)
    return DeadLetter(
        letter_id=undecodable_id(body),
        reason=Reason.UNDECODABLE,
        fingerprint=fingerprint(Reason.UNDECODABLE, origin),
        origin=origin,
        code_version=CODE_VERSION,
        failed_at=datetime.now(UTC),
        message=message,
        base64=is_base64,
    )


def _died_in(delivery: Delivery) -> str | None:
    """The queue that the broker took the message from; None where its header is missing or not the broker's."""
    deaths = delivery.headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    queue = first.get("queue") if isinstance(first, dict) else None
    return queue if isinstance(queue, str) and not holds_nul(queue) else None
