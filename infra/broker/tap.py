"""The tap between the broker's socket and aiormq: splits what arrives into frames and gives each to whom it concerns.

Hot frames go to the taker of their channel, the rest to aiormq's reader, unchanged. aiormq is handed the reader and the
writer through its own transport factory, so nothing of it is patched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiormq.connection import TransportFactory
from yarl import URL

from infra.broker import wire

WRITE_BUFFER: Final = 1 << 20
LARGEST_FRAME: Final = 16 << 20
"""Bytes. Brokers agree on 128 KiB: what announces more is not a broker, and is not waited for."""


class FrameTaker(Protocol):
    """Who takes the hot frames of one channel."""

    def received(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take one frame's payload `data[start:stop]`; False if it is the library's business."""


class Tap(asyncio.StreamReaderProtocol):
    """Splits what the broker sends into frames: hot ones to their channel, the rest to the library's reader,
    unchanged.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.takers: dict[int, FrameTaker] = {}
        """By channel number; other channels are the library's alone."""
        self.blocked = False
        """The broker takes no publishes for now."""
        self.congested = False
        """More than WRITE_BUFFER bytes wait for the socket."""
        self.is_over = False
        self.on_lost: Callable[[], None] | None = None
        """Set by the connection that takes this tap over."""
        self._clock = loop.time
        self._rest = b""
        self._transport_here: asyncio.Transport | None = None
        self._is_amqp: bool | None = None
        """None before the first byte; False: the broker answered with another protocol, the library will say so."""
        self._library_heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # not an isinstance check: uvloop's transports are no subclasses
        stream.set_write_buffer_limits(high=WRITE_BUFFER)
        self._transport_here = stream
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_amqp is None:
            self._is_amqp = data[:1] != b"A"
        if not self._is_amqp:
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        forwarded = False
        while end - at >= 8:
            kind, number, size = wire.FRAME.unpack_from(data, at)
            stop = at + 8 + size
            if stop > end:
                if size > LARGEST_FRAME:
                    self.abort()
                    return
                break
            taker = self.takers.get(number)
            if taker is None or not taker.received(kind, data, at + 7, stop - 1):
                if number == 0 and kind == wire.FRAME_METHOD:
                    self._notice(wire.METHOD.unpack_from(data, at + 7)[0])
                super().data_received(data[at:stop])
                forwarded = True
            at = stop
        self._rest = data[at:]
        self._keep_library_awake(forwarded)

    def _notice(self, method: int) -> None:
        if method == wire.CONNECTION_BLOCKED:
            self.blocked = True
        elif method == wire.CONNECTION_UNBLOCKED:
            self.blocked = False

    def _keep_library_awake(self, forwarded: bool) -> None:
        # A busy broker sends no heartbeats, and the library, which no longer sees the traffic, would take the silence
        # for a dead connection: tell it once a second that the broker lives.
        now = self._clock()
        if forwarded:
            self._library_heard = now
        elif now - self._library_heard > 1.0:
            self._library_heard = now
            super().data_received(wire.HEARTBEAT)

    def write(self, data: bytes) -> None:
        if self._transport_here is not None and not self._transport_here.is_closing():
            self._transport_here.write(data)

    def abort(self) -> None:
        if self._transport_here is not None:
            self._transport_here.abort()

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()


class TappedTransport(TransportFactory):
    """Gives aiormq its reader and writer, with the tap between socket and reader."""

    def __init__(self) -> None:
        self.tap: Tap | None = None

    async def create(
        self,
        url: URL,
        **kwargs: Any,  # Any: the library's own definition
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        certificates = kwargs.pop("ssl_context_provider")
        context = await certificates.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        tap = self.tap = Tap(reader, loop)
        transport, _ = await loop.create_connection(
            lambda: tap, url.host or "localhost", url.port or 0, ssl=context, **kwargs
        )
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)
