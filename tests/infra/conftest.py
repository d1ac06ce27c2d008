"""What the tests of the broker share: a queue of their own, something to publish with, something to look with."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

import aiormq
import pytest

from infra.broker.consumer import ConsumingConnection
from infra.broker.publisher import Publisher
from tests.infra.cable import Cable

EXCHANGE = "amq.topic"


class Line:
    """One durable queue, bound to a topic exchange by its own name, on a real broker."""

    def __init__(self, rpc: aiormq.abc.AbstractChannel, name: str) -> None:
        self.rpc = rpc
        self.queue = name
        self.key = name

    async def count(self) -> int:
        """Messages ready to be delivered."""
        return (await self.rpc.queue_declare(self.queue, passive=True)).message_count or 0

    async def delete(self) -> None:
        """Take the queue away, whoever consumes it."""
        await self.rpc.queue_delete(self.queue)


@pytest.fixture
async def rpc(rabbitmq: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    """A plain channel to look at the broker with."""
    async with aiormq.connect(rabbitmq) as connection:
        yield await connection.channel()


@pytest.fixture
async def line(rpc: aiormq.abc.AbstractChannel) -> AsyncIterator[Line]:
    """A fresh quorum queue."""
    name = f"test.{secrets.token_hex(6)}"
    arguments: dict[str, object] = {"x-queue-type": "quorum", "x-delivery-limit": 10_000}
    await rpc.queue_declare(name, durable=True, arguments=arguments)  # type: ignore[arg-type]  # field values
    await rpc.queue_bind(name, EXCHANGE, name)
    yield Line(rpc, name)
    with contextlib.suppress(aiormq.exceptions.AMQPError):
        await rpc.queue_delete(name)


@pytest.fixture
async def cable(rabbitmq: str) -> AsyncIterator[Cable]:
    """A cable to the broker that the test may pull."""
    async with Cable(rabbitmq) as cable:
        yield cable


@pytest.fixture
async def publisher(rabbitmq: str) -> AsyncIterator[Publisher]:
    """A publisher that is connected."""
    async with Publisher(rabbitmq, name="test.publisher") as publisher:
        await publisher.until_up()
        yield publisher


@pytest.fixture
async def consuming(rabbitmq: str) -> AsyncIterator[ConsumingConnection]:
    """A consuming connection that is up."""
    async with ConsumingConnection(rabbitmq, name="test.consuming") as consuming:
        await consuming.until_up()
        yield consuming


async def publish_numbers(publisher: Publisher, line: Line, numbers: range) -> None:
    """Publish numbers as bodies, in order."""
    for number in numbers:
        await publisher.publish(EXCHANGE, line.key, b"%d" % number, message_id=str(number))
