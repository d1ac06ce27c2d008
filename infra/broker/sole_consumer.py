"""Only one consumer of a queue at a time, and not before its predecessor's messages are back in their place.

A quorum queue does not enforce AMQP's exclusive consumers (RabbitMQ 3.10 accepts a second one), and it takes back
what a closed channel held a moment after it has confirmed the close: whoever consumes in that moment gets newer
messages first. So a consumer first takes `<queue>.owner`, an exclusive queue that serves as a lock and goes with the
connection, and then waits until the queue counts no consumer any more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
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


async def claim(rpc: aiormq.abc.AbstractChannel, queue: str) -> None:
    """Become the only one who may consume `queue`, once nobody does. Raises ConsumerRefused, and the library's errors.

    The lock belongs to the connection: a second claim on the same one succeeds, so its consumers are its owner's
    business.
    """
    try:
        await rpc.queue_declare(lock_of(queue), exclusive=True)
    except aiormq.exceptions.ChannelLockedResource:
        raise ConsumerRefused(queue, "exclusive") from None
    clock = asyncio.get_running_loop().time
    deadline = clock() + PREDECESSOR_TIMEOUT
    while clock() < deadline:
        asked = clock()
        found = await rpc.queue_declare(queue, passive=True)
        if not found.consumer_count and clock() - asked < LIKELY_GUESSED:
            return
        await asyncio.sleep(PAUSE)
    await rpc.queue_delete(lock_of(queue))
    raise ConsumerRefused(queue, "exclusive")


async def let_go(connection: BrokerConnection, queue: str) -> None:
    """Let others consume `queue`. Nothing to do where the connection is lost: the lock went with it."""
    if connection.lost.is_set():
        return
    with suppress(*BROKER_TROUBLE, BrokerUnavailable):
        async with asyncio.timeout(OPEN_TIMEOUT):
            channel = await connection.channel()
            await channel.rpc.queue_delete(lock_of(queue))
            await channel.close()
