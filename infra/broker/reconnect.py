"""Staying connected: open, serve, and when it is lost open again, with full jitter so that a fleet does not return at
once.

What a connection is used for is the subclasses': publishing, consuming, replies, a bridge's inbox. aio-pika's robust
reconnect is not used: it can come back with nobody consuming.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

import structlog

from infra.broker.connection import BROKER_TROUBLE, BrokerConnection
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 3.0

log = structlog.get_logger()


class Backoff:
    """Pauses between attempts: a random share of a ceiling that doubles, so many processes do not come back as one."""

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first, self._longest = first, longest
        self._ceiling = first

    def reset(self) -> None:
        """It worked: the next trouble is a new one."""
        self._ceiling = self._first

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = random.uniform(self._first / 2, self._ceiling)  # noqa: S311 - jitter, not a secret
        self._ceiling = min(self._ceiling * 2, self._longest)
        return pause


class Reconnecting(ABC):
    """Something that lives on a broker connection of its own. Use as an async context manager.

    Entering does not wait for the broker: a process starts, and says it is not ready, while the broker is away.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._up = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._keeper = self._group.create_task(self._stay_connected(), name=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if isinstance(error, Exception):  # the caller's own: a group would only wrap it
            kind = error = trace = None
        await self._group.__aexit__(kind, error, trace)

    def ready(self) -> str | None:
        """None when it works, else why not: fit for a readiness check."""
        return None if self._up.is_set() else "broker not connected"

    async def until_up(self, timeout: float = 10.0) -> None:
        """Wait until it works. Raises BrokerUnavailable when that takes longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise BrokerUnavailable("not_connected") from None

    @abstractmethod
    async def _serve(self, connection: BrokerConnection) -> None:
        """Set up on a fresh connection, say `self._up.set()`, return when the connection is of no more use."""

    async def _stay_connected(self) -> None:
        backoff = Backoff()
        while True:
            try:
                connection = await BrokerConnection.open(self._url, name=self._name)
                try:
                    await self._serve_until_lost(connection, backoff)
                finally:
                    self._up.clear()
                    await connection.close()
                reason = "lost"
            except (BrokerUnavailable, ConsumerLost, ConsumerRefused) as trouble:
                reason = trouble.reason
            except BROKER_TROUBLE as trouble:
                reason = type(trouble).__name__
            pause = backoff.next()
            log.warning("broker_reconnecting", connection=self._name, reason=reason, seconds=round(pause, 3))
            await asyncio.sleep(pause)

    async def _serve_until_lost(self, connection: BrokerConnection, backoff: Backoff) -> None:
        serving = asyncio.create_task(self._serve(connection))
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait((serving, up), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                backoff.reset()
                log.info("broker_connected", connection=self._name)
            await serving
        finally:
            serving.cancel()
            up.cancel()
            await asyncio.gather(serving, up, return_exceptions=True)
