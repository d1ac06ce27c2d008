"""An HTTP server inside a process: uvicorn without its own signals and logs, on a socket bound beforehand.

Bound beforehand, so that port 0 gives a free port that is known at once, and two processes cannot believe they have
the same.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

START_TIMEOUT: Final = 10.0
GRACE_SECONDS: Final = 10


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes any free one.

    Made with IPPROTO_TCP: without it asyncio leaves TCP_NODELAY off on accepted connections, 48 ms a small answer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def serving(
    app: Any,  # Any: an ASGI application
    *,
    host: str,
    port: int,
    grace: int = GRACE_SECONDS,
    **options: Any,  # Any: uvicorn's own settings
) -> AsyncIterator[str]:
    """Serve `app` while the block runs; gives its URL. Leaving waits `grace` seconds for requests under way, then
    cuts.
    """
    listener = listening_socket(host, port)
    bound = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        **{
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "http": _OneWrite,
            "timeout_graceful_shutdown": grace,
            **options,
        },
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.serve(sockets=[listener]), name=f"http:{bound}")
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await server.up.wait()
            yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        finally:
            server.should_exit = True
            await asyncio.wait((running,), timeout=grace + 1)
            running.cancel()
            listener.close()


class _Gathered:
    """A transport whose writes of one turn of the loop leave together."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else a transport has
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)


class _OneWrite(HttpToolsProtocol):
    """uvicorn's protocol, an answer's head and body in one system call (and one packet) instead of two."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Gathered(transport, self.loop))  # type: ignore[arg-type]  # all it uses of a transport


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up: Final = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the process's, see infra.process

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()
