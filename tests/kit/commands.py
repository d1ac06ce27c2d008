"""Commands put on the broker as a gateway would, and their outcomes."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from contracts.envelope import CommandEnvelope, Origin, Outcome
from contracts.identity import Actor, Role
from contracts.ids import fresh_command_id, partition_of, uuid7
from contracts.model import Command
from contracts.routing import COMMANDS, command_key
from infra.broker import topology
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox

PARTITIONS = 16
CALLER = Actor(subject="test-caller", role=Role.STAFF)


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return uuid7(datetime.now(UTC), os.urandom(10))


class Caller:
    """Publishes commands, confirmed, and waits for outcomes. An async context manager."""

    def __init__(self, rabbitmq_url: str, *, instance: str = "caller") -> None:
        self._url = rabbitmq_url
        self._stack = AsyncExitStack()
        self.publisher = Publisher(rabbitmq_url, name=f"{instance}.publish")
        self.replies = ReplyBox(rabbitmq_url, instance=instance)

    async def __aenter__(self) -> Self:
        await topology.declare(self._url, partitions=PARTITIONS)
        await self._stack.enter_async_context(self.publisher)
        await self._stack.enter_async_context(self.replies)
        await self.publisher.until_up()
        await self.replies.until_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def envelope(self, unit_id: str, command: Command, **changes: Any) -> CommandEnvelope:  # Any: envelope fields
        """The command in an envelope of its own."""
        now = datetime.now(UTC)
        about: dict[str, Any] = {  # Any: envelope fields
            "command_id": fresh_command_id(now, os.urandom(10)),
            "type": command.type_name(),
            "unit_id": unit_id,
            "payload": command.to_dict(),
            "actor": CALLER,
            "issued_at": now,
            "request_hash": "of-" + command.type_name(),
            "origin": Origin.GATEWAY,
            "correlation_id": "test",
            "reply_to": self.replies.queue,
        }
        return CommandEnvelope(**{**about, **changes})

    async def publish(self, envelope: CommandEnvelope) -> None:
        """Have the broker keep it."""
        partition = partition_of(envelope.unit_id, PARTITIONS)
        await self.publisher.publish(
            COMMANDS,
            command_key(envelope.unit_id, partition, envelope.type),
            envelope.to_json(),
            message_id=str(envelope.command_id),
        )

    async def ask(self, envelope: CommandEnvelope, *, within: float = 20) -> Outcome:
        """Publish and wait for the outcome."""
        with self.replies.expect(str(envelope.command_id)) as answer:
            await self.publish(envelope)
            async with asyncio.timeout(within):
                return Outcome.model_validate_json(await answer)

    async def tell(self, unit_id: str, command: Command, **changes: Any) -> Outcome:  # Any: envelope fields
        """Give a command to a unit and wait for its outcome."""
        return await self.ask(self.envelope(unit_id, command, **changes))
