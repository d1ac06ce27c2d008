"""Only one consumer of a queue at a time, and not before its predecessor's messages are back in their place.

A quorum queue does not enforce AMQP's exclusive consumers (RabbitMQ 3.10 accepts a second one), and it takes back
what a closed channel held a moment after it has confirmed the close: whoever consumes in that moment gets newer
messages first. So a consumer first takes `<queue>.owner`, an exclusive queue that serves as a lock and goes with the
connection, and then waits until the queue counts no consumer any more.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiormq

from infra.broker.connection import BROKER_TROUBLE, OPEN_TIMEOUT, BrokerConnection
from infra.broker.errors import BrokerUnavailable, ConsumerRefused

PREDECESSOR_TIMEOUT: Final = 2.0
PAUSE: Final = 0.01
LIKELY_GUESSED: Final = 0.2
"""Seconds. A quorum queue whose leader does not answer in 250 ms is reported as empty and not consumed."""


def lock_of(queue: str) -> str:
    """The queue that stands for being the one to consume `queue`."""
    return f"{queue}.owner"


async def take_lock(rpc: aiormq.abc.AbstractChannel, queue: str) -> None:
    """Become the only one who may consume `queue`. Raises ConsumerRefused, and the library's errors.

    The lock belongs to the connection: asked for twice on the same one it is granted twice.
    """
    try:
        await rpc.queue_declare(lock_of(queue), exclusive=True)
    except aiormq.exceptions.ChannelLockedResource:
        raise ConsumerRefused(queue, "exclusive") from None


async def predecessor_gone(rpc: aiormq.abc.AbstractChannel, queue: str) -> None:
    """Wait until nobody consumes `queue`: then everything is back in its place. Raises ConsumerRefused in the end."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + PREDECESSOR_TIMEOUT
    while clock() < deadline:
        asked = clock()
        found = await rpc.queue_declare(queue, passive=True)
        if not found.consumer_count and clock() - asked < LIKELY_GUESSED:
            return
        await asyncio.sleep(PAUSE)
    raise ConsumerRefused(queue, "exclusive")


async def release_lock(connection: BrokerConnection, queue: str) -> None:
    """Let others consume `queue`. Where the connection is lost, or has to be cut, the lock goes with it."""
    if connection.lost.is_set():
        return
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            channel = await connection.channel()
            await channel.rpc.queue_delete(lock_of(queue))
            await channel.close()
    except (*BROKER_TROUBLE, BrokerUnavailable):
        connection.abort()
