"""Taking a command in: its id, its envelope, the broker's confirm, and its outcome if that comes in time.

Only when the broker has the command safe is the caller told that it was taken, and nothing here touches Postgres: with
the database away commands are accepted and nothing is lost. Who may ask for what unit is `gateway.callers`'; how an
outcome becomes an HTTP answer is `gateway.answers`'.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from contracts import ids, routing
from contracts.envelope import CommandEnvelope, Origin, Outcome
from contracts.identity import Actor
from contracts.model import Command
from gateway.passage import Passage, Wishes
from gateway.problems import Problem
from infra.broker.errors import BrokerUnavailable, ReplyLost, Unroutable
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox

CONFIRM_TIMEOUT: Final = 5.0
REMEMBERED_KEYS: Final = 20_000
NOTHING_SENT: Final = frozenset({"not_connected", "blocked", "full", "no_queue"})
"""Reasons after which the broker certainly has not got the command."""


class Order:
    """One command being taken in: its id and instant are fixed before its words are complete."""

    __slots__ = ("actor", "asked", "command_id", "issued_at", "name", "unit_id", "wishes")

    def __init__(
        self, command_id: UUID, issued_at: datetime, actor: Actor, unit_id: str, wishes: Wishes, asked: Passage
    ) -> None:
        self.command_id = command_id
        self.name = str(command_id)
        self.issued_at = issued_at
        self.actor = actor
        self.unit_id = unit_id
        self.wishes = wishes
        self.asked = asked

    def new_id(self, purpose: str) -> UUID:
        """The id of what this command brings into being."""
        return ids.derived(self.command_id, purpose, self.issued_at)


class Intake:
    """The one way in for commands over HTTP."""

    def __init__(
        self,
        publisher: Publisher,
        replies: ReplyBox,
        *,
        partitions: int,
        accepted: Callable[[str], None],
        not_accepted: Callable[[str], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._publisher = publisher
        self._replies = replies
        self._partitions = partitions
        self._accepted = accepted
        """Told the type of every command that is safe with the broker."""
        self._not_accepted = not_accepted
        """Told why, where the broker did not confirm."""
        self._clock = clock
        self._entropy = entropy
        self._hashes: OrderedDict[UUID, str] = OrderedDict()
        """What recent Idempotency-Keys were used for, so that the answer to one body is never given to another."""

    def open(self, actor: Actor, unit_id: str, wishes: Wishes, asked: Passage) -> Order:
        """Begin an order: the same subject, unit and Idempotency-Key give the same command id."""
        now = self._clock()
        if wishes.key is None:
            return Order(ids.fresh_command_id(now, self._entropy(10)), now, actor, unit_id, wishes, asked)
        return Order(ids.keyed_command_id(actor.subject, unit_id, wishes.key), now, actor, unit_id, wishes, asked)

    async def submit(
        self, order: Order, command: Command, request_hash: str, origin: Origin = Origin.GATEWAY
    ) -> Outcome | None:
        """Publish the command, wait for the confirm and then, as long as the caller wishes, for the outcome.

        None: the outcome is not known yet. Raises BrokerUnavailable when the broker did not confirm
        (the command may have been taken all the same: repeating it under its key is safe), Problem for a reused key.
        """
        keyed = order.wishes.key is not None
        if keyed:
            self._remember(order.command_id, request_hash)
        try:
            if order.wishes.wait and self._replies.queue is not None:
                with self._replies.expect(order.name) as answer:
                    await self._publish(order, command, request_hash, origin, self._replies.queue)
                    try:
                        async with asyncio.timeout(order.wishes.wait):
                            return Outcome.model_validate_json(await answer)
                    except (TimeoutError, ReplyLost):
                        return None
            await self._publish(order, command, request_hash, origin, None)
        except BrokerUnavailable as trouble:
            self._not_accepted(trouble.reason)
            if keyed and trouble.reason in NOTHING_SENT:
                self._hashes.pop(order.command_id, None)  # the key has not been used up
            raise
        return None

    async def _publish(
        self, order: Order, command: Command, request_hash: str, origin: Origin, reply_to: str | None
    ) -> None:
        type_name = type(command).type_name()
        envelope = CommandEnvelope(
            command_id=order.command_id,
            type=type_name,
            type_version=type(command).version,
            unit_id=order.unit_id,
            payload=command.to_dict(),
            actor=order.actor,
            issued_at=order.issued_at,
            request_hash=request_hash,
            origin=origin,
            correlation_id=order.asked.trace_id,
            expected_version=order.wishes.expected_version,
            traceparent=order.asked.traceparent,
            reply_to=reply_to,
        )
        try:
            await self._publisher.publish(
                routing.COMMANDS,
                routing.command_key(order.unit_id, ids.partition_of(order.unit_id, self._partitions), type_name),
                envelope.to_json(),
                message_id=order.name,
                deadline=CONFIRM_TIMEOUT,
                reply_to=reply_to,
                type=type_name,
            )
        except Unroutable:
            # The partition's queue is not declared yet, or was deleted: whoever declares it does so soon.
            raise BrokerUnavailable("no_queue") from None
        self._accepted(type_name)

    def _remember(self, command_id: UUID, request_hash: str) -> None:
        known = self._hashes.get(command_id)
        if known is None:
            self._hashes[command_id] = request_hash
            if len(self._hashes) > REMEMBERED_KEYS:
                self._hashes.popitem(last=False)
        elif known != request_hash:
            raise Problem(
                "idempotency_key_reused", "Repeat the same request, or take a new key.", commandId=str(command_id)
            )


def request_hash(method: str, path: str, body: bytes) -> str:
    """What a repeated Idempotency-Key is compared by; `body` in a canonical form."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()
