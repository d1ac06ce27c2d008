"""A network cable between a process and the broker that a test can pull, or squeeze so that no answer comes through."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit, urlunsplit


class Cable:
    """Forwards bytes between whoever connects to `url` and the real broker."""

    url: str

    def __init__(self, broker_url: str) -> None:
        parts = urlsplit(broker_url)
        self._host, self._port = parts.hostname or "localhost", parts.port or 5672
        self._parts = parts
        self._answers = asyncio.Event()
        self._answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._plugged = True
        self.connections = 0
        """How many connections have been made through this cable."""

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = f"{self._parts.username}:{self._parts.password}@" if self._parts.username else ""
        self.url = urlunsplit(self._parts._replace(netloc=f"{login}127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *error: object) -> None:
        self.pull()
        self._server.close()
        await self._server.wait_closed()

    def pull(self) -> None:
        """Cut every connection at once, and let none through until `plug`."""
        self._plugged = False
        for writer in self._writers:
            writer.transport.abort()

    def plug(self) -> None:
        """Let connections through again."""
        self._plugged = True

    def cut(self) -> None:
        """Cut every connection at once; new ones may come."""
        self.pull()
        self.plug()

    def hold_answers(self) -> None:
        """From now on nothing the broker says arrives."""
        self._answers.clear()

    def let_answers_through(self) -> None:
        """What was held arrives now."""
        self._answers.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._plugged:
            writer.transport.abort()
            return
        try:
            from_broker, to_broker = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers |= {writer, to_broker}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, to_broker, None))
                tasks.create_task(self._forward(from_broker, writer, self._answers))
        finally:
            self._writers -= {writer, to_broker}

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if gate is not None:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
