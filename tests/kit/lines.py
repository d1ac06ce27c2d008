"""A network line to a server that a test can cut in the middle of a frame, hold, silence without a word, or re-route.

Knows bytes and connections, nothing of what they say. A cut is a reset on both sides; a silence is what a dead router
leaves: no byte, no end, and nobody is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

PIECE = 1 << 16


@dataclass
class Limits:
    """How many bytes of a new connection pass each way before the line acts; None: all."""

    up: int | None = None
    down: int | None = None
    hold: bool = False
    """At the limit the rest is held until `release`; otherwise the connection is cut."""


def unlimited() -> Limits:
    """Everything passes."""
    return Limits()


@dataclass(eq=False)
class _Pair:
    """One connection through the line."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    silent: bool = False
    orphaned: bool = False
    """The client's end is gone; the server has not been told."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def abort(self) -> None:
        self.released.set()
        self.over.set()
        for writer in self.writers:
            writer.transport.abort()


class Line:
    """Forwards bytes between whoever connects to `url` and the server it leads to. An async context manager."""

    url: str
    """The server's URL, by way of this line."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._host, self._port = self._parts.hostname or "127.0.0.1", self._parts.port or 0
        self._pairs: set[_Pair] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._plugged = True
        self._silent = False
        self.limits: Callable[[], Limits] = unlimited
        """Asked for every new connection."""
        self.connections = 0
        """How many connections have been made through this line."""
        self.held = 0
        """How many are being held at their limit, or have been."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login, at, _ = self._parts.netloc.rpartition("@")
        self.url = urlunsplit(self._parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pull()
        self._server.close()
        if self._forwarding:  # they end by themselves, now that both sides of each are cut
            await asyncio.wait(self._forwarding, timeout=5)

    def reroute(self, url: str) -> None:
        """New connections lead to another server."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 0

    def pull(self) -> None:
        """Cut every connection at once, and let none through until `plug`."""
        self._plugged = False
        for pair in self._pairs:
            pair.abort()

    def plug(self) -> None:
        """Let connections through again."""
        self._plugged = True

    def cut(self) -> None:
        """Cut every connection at once; new ones may come."""
        self.pull()
        self.plug()

    def abandon(self) -> None:
        """Cut the clients' ends only: the server goes on believing in them, and what is held can reach it."""
        for pair in self._pairs:
            pair.orphaned = True
            pair.writers[0].transport.abort()

    def silence(self) -> None:
        """From now on every byte is lost, both ways, and no end of a connection is passed on."""
        self._silent = True
        for pair in self._pairs:
            pair.silent = True

    def restore(self) -> None:
        """New connections work again; those that fell silent never will."""
        self._silent = False

    def release(self) -> None:
        """What is held at a limit goes on, without a limit."""
        for pair in self._pairs:
            pair.released.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._plugged:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        pair = _Pair((writer, to_server), self._silent)
        limits = self.limits()
        self._pairs.add(pair)
        if task := asyncio.current_task():
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(pair, reader, to_server, limits.up, hold=limits.hold))
                tasks.create_task(self._forward(pair, from_server, writer, limits.down, hold=limits.hold))
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def _forward(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None, *, hold: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE):
                if pair.silent or (pair.orphaned and writer is pair.writers[0]):
                    continue
                if left is not None and not pair.released.is_set():
                    data, rest = data[:left], data[left:]
                    left -= len(data)
                    writer.write(data)
                    await writer.drain()
                    if not left and not hold:
                        pair.abort()
                        return
                    if not rest:
                        continue
                    self.held += 1
                    await pair.released.wait()
                    data = rest
                writer.write(data)
                await writer.drain()
        if pair.silent or (pair.orphaned and writer is pair.writers[1]):
            await pair.over.wait()  # the end is not passed on either
        writer.transport.abort()
