"""The dead-letter desk: files what the fallback queues hold, and tells the commands among it how they ended.

Every handler process has one; filing twice is harmless. Replays are `command_handlers.replaying`'s, what operators may
ask and see is `infra.dead_letters`'.
"""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from command_handlers.letters import CODE_VERSION, as_text, fingerprint, undecodable_id
from contracts.dead_letter import MESSAGE_TYPE, DeadLetter, Reason, letter_id_for
from contracts.envelope import CommandEnvelope
from contracts.identity import Role
from contracts.ids import partition_of
from contracts.routing import DEAD_COMMANDS, DEAD_UNITS, commands_queue
from contracts.text import holds_nul
from infra.broker.consumer import Consumer, ConsumingConnection, Delivery
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.dead_letters.store import Letter, file
from infra.sealing import Sealer

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
UNANSWERED = frozenset({Reason.DELIVERY_LIMIT, Reason.UNDECODABLE, Reason.WRONG_PARTITION})
"""Letters of commands that no handler got as far as answering."""


class Desk:
    """Files until cancelled."""

    def __init__(
        self,
        *,
        pool: Pool,
        sealer: Sealer,
        broker: ConsumingConnection,
        partitions: int,
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._broker = broker
        self._partitions = partitions

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for queue in (DEAD_COMMANDS, DEAD_UNITS):
                tasks.create_task(self._file_from(queue), name=f"desk-{queue}")

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
            letter = await file(connection, self._sealer, dead)
            if letter.command_id is not None and letter.unit_id is not None and dead.reason in UNANSWERED:
                await self._answer_for(connection, letter, letter.command_id, letter.unit_id)

    async def _answer_for(self, connection: Connection, letter: Letter, command_id: UUID, unit_id: str) -> None:
        """No handler wrote a receipt for this command; its caller is told what became of it all the same."""
        await connection.execute(
            "INSERT INTO command_receipts (command_id, unit_id, partition, type, status, code, detail, request_hash, "
            "actor, dead_letter_id, issued_at) VALUES (%s, %s, %s, %s, 'failed', 'poison', "
            "'No handler could take this command; it waits at the dead-letter desk.', %s, %s, %s, %s) "
            "ON CONFLICT (command_id) DO NOTHING",
            (
                command_id,
                unit_id,
                partition_of(unit_id, self._partitions),
                letter.type or "unknown",
                str(letter.envelope.get("requestHash", "unknown")),
                Jsonb(letter.envelope.get("actor", {"subject": "unknown", "role": Role.SYSTEM.value})),
                letter.letter_id,
                letter.first_failed_at,
            ),
        )


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
    if holds_nul(envelope.to_dict()):
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
