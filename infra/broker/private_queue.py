"""A queue of one process: exclusive to its connection, gone with it. Not durable, because what it holds is not the
truth.

Exclusive rather than merely transient: brokers from 4.3 on refuse transient queues that are not.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiormq

from infra.broker.connection import BROKER_TROUBLE, OPEN_TIMEOUT, BrokerConnection
from infra.broker.errors import BrokerUnavailable

ATTEMPTS: Final = 20


async def declare_private(connection: BrokerConnection, base: str) -> str:
    """Declare `base`, or `base.2`, `base.3`, … while a lost connection of ours still holds the earlier name. Returns
    the name.

    Raises BrokerUnavailable.
    """
    for attempt in range(1, ATTEMPTS + 1):
        name = base if attempt == 1 else f"{base}.{attempt}"
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                channel = await connection.channel()
                await channel.rpc.queue_declare(name, exclusive=True, auto_delete=False)
                await channel.close()
        except aiormq.exceptions.ChannelLockedResource:
            continue
        except BROKER_TROUBLE as trouble:
            raise BrokerUnavailable("timeout" if isinstance(trouble, TimeoutError) else "lost") from trouble
        return name
    raise BrokerUnavailable("locked")
