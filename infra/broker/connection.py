"""One connection to the broker, shared by aiormq and our own hot path.

aiormq connects, authenticates, keeps the heartbeat, opens and closes channels, declares, binds, consumes and cancels.
The frames that every message costs (publish, confirm, return, deliver, ack) never reach it: a tap on the socket
(`infra.broker.tap`) hands them to their channel's listener at once, and what is written in one turn of the loop leaves
in one piece. CPU per message against aiormq's own way: publish and confirm 6.5 µs for 44, consume and acknowledge 4 for
30 (64 in flight, 600 bytes). A connection lives once: when it is lost, its owner opens another
(`infra.broker.reconnect`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import aiormq
from aiormq.connection import Connection as LibraryConnection
from yarl import URL

from infra.broker import wire
from infra.broker.errors import BrokerUnavailable
from infra.broker.tap import Tap, TappedTransport

HEARTBEAT_SECONDS: Final = 10
OPEN_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 3.0
BROKER_TROUBLE: Final = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""What the library raises when the broker is the reason, not our code (RuntimeError: a call on a closed connection;
StopAsyncIteration: the connection was cut while it was being opened).
"""

CLOSED_ALREADY: Final = (aiormq.exceptions.AMQPError, ConnectionError, RuntimeError)
"""What closing something closed may raise."""
REFUSED: Final = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ConnectionNotAllowed,
)
"""Wrong user or password, or no right to this virtual host."""


class Listener:
    """What a channel's owner is told, in the order the broker said it. Called from the socket: must be quick, must
    not raise.
    """

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker took (or refused) message `tag`, or every message through it."""

    def returned(self, method: bytes, header: bytes) -> None:
        """A mandatory message found no queue."""

    def delivered(self, method: bytes, header: bytes, body: bytes) -> None:
        """A message for this channel's consumer."""

    def ended(self, reason: str) -> None:
        """Called once: cancelled · channel_closed · connection_lost · given_back."""


class Channel:
    """One AMQP channel: hot frames to its listener, everything else through `rpc`, aiormq's channel of the same
    number.
    """

    def __init__(self, connection: BrokerConnection, rpc: aiormq.abc.AbstractChannel, listener: Listener) -> None:
        self.number: Final[int] = rpc.number
        self.rpc = rpc
        self.ended: str | None = None
        """Why this channel is over; None while it is open."""
        self._connection = connection
        self._listener = listener
        self._method: bytes | None = None
        """Deliver or return whose content is still arriving; None between messages."""
        self._header = b""
        self._missing = 0
        self._pieces: list[bytes] = []
        self.send = connection.send
        self._gone = asyncio.Event()
        """Set when the broker itself has no such channel any more."""
        rpc.closing.add_done_callback(lambda closing: self.end("channel_closed"))

    def end(self, reason: str) -> None:
        """Stop listening. What still arrives is dropped: the broker gives it to somebody else."""
        if reason == "connection_lost":
            self._gone.set()
        if self.ended is None:
            self.ended = reason
            listener, self._listener = self._listener, Listener()
            listener.ended(reason)

    async def close(self, reason: str = "given_back") -> None:
        """Close the channel; everything unacknowledged goes back to its queue, in order.

        Returns when the broker has closed it. If that takes too long the whole connection is cut, which has the same
        effect.
        """
        self._connection.flush()
        self.end(reason)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                with suppress(*CLOSED_ALREADY):
                    await self.rpc.close()
                # After a cancelled request the library is done with the channel before the broker is.
                await self._gone.wait()
        except TimeoutError:
            self._connection.abort()

    def _broker_closed(self) -> None:
        self._gone.set()
        self.end("channel_closed")
        self._connection.forget(self)

    def received(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take one frame's payload `data[start:stop]`; False if it is the library's business."""
        if kind == wire.FRAME_METHOD:
            method: int = wire.METHOD.unpack_from(data, start)[0]
            if method in (wire.BASIC_ACK, wire.BASIC_NACK):
                tag, bits = wire.TAG_AND_BITS.unpack_from(data, start + 4)
                self._listener.confirmed(tag, multiple=bool(bits & 1), taken=method == wire.BASIC_ACK)
                return True
            if method in (wire.BASIC_DELIVER, wire.BASIC_RETURN):
                self._method = data[start:stop]
                return True
            if method in (wire.CHANNEL_CLOSE, wire.CHANNEL_CLOSE_OK):
                self._broker_closed()
            elif method == wire.BASIC_CANCEL:
                self.end("cancelled")
            return False
        if self._method is None:
            return False
        if kind == wire.FRAME_HEADER:
            self._header = data[start:stop]
            self._missing = wire.CONTENT.unpack_from(data, start)[2]
            if not self._missing:
                self._arrived(b"")
            return True
        piece = data[start:stop]
        self._missing -= len(piece)
        if self._missing > 0:
            self._pieces.append(piece)
        elif self._pieces:
            self._pieces.append(piece)
            self._arrived(b"".join(self._pieces))
        else:
            self._arrived(piece)
        return True

    def _arrived(self, body: bytes) -> None:
        method, self._method = self._method, None
        self._pieces = []
        if self.ended is not None or method is None:
            return
        if wire.METHOD.unpack_from(method)[0] == wire.BASIC_DELIVER:
            self._listener.delivered(method, self._header, body)
        else:
            self._listener.returned(method, self._header)


class BrokerConnection:
    """A live connection. `lost` is set once, when it is over for whatever reason."""

    def __init__(self, library: LibraryConnection, tap: Tap) -> None:
        self.lost: Final = asyncio.Event()
        self.frame_max: Final[int] = library.connection_tune.frame_max or 131_072
        self.broker_version: Final[str] = _text((library.server_properties or {}).get("version", "unknown"))
        self._library = library
        self._tap = tap
        self._channels: dict[int, Channel] = {}
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        tap.on_lost = self._end
        library.closing.add_done_callback(lambda closing: self._end())
        if tap.is_over:
            self._end()

    @classmethod
    async def open(cls, url: str, *, name: str, timeout: float = OPEN_TIMEOUT) -> BrokerConnection:
        """Connect; `name` is what operators see in the broker's list of connections. Raises BrokerUnavailable."""
        factory = TappedTransport()
        target = URL(url).update_query(heartbeat=str(HEARTBEAT_SECONDS), name=name)
        library = LibraryConnection(target, transport_factory=factory)
        try:
            async with asyncio.timeout(timeout):
                await library.connect()
        except REFUSED as refusal:
            raise BrokerUnavailable("access_refused") from refusal
        except BROKER_TROUBLE as trouble:
            raise BrokerUnavailable("not_connected") from trouble
        if factory.tap is None:
            raise BrokerUnavailable("not_connected")
        return cls(library, factory.tap)

    @property
    def blocked(self) -> bool:
        """The broker takes no publishes for now (memory or disk alarm)."""
        return self._tap.blocked

    @property
    def congested(self) -> bool:
        """The socket's buffer is above its high-water mark."""
        return self._tap.congested

    async def channel(self, listener: Listener | None = None, *, confirms: bool = False) -> Channel:
        """Open a channel. Raises BrokerUnavailable."""
        if self.lost.is_set():
            raise BrokerUnavailable("lost")
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                rpc = await self._library.channel(publisher_confirms=confirms)
        except BROKER_TROUBLE as trouble:
            raise BrokerUnavailable("lost") from trouble
        channel = Channel(self, rpc, listener or Listener())
        self._channels[channel.number] = self._tap.takers[channel.number] = channel
        if self.lost.is_set():
            channel.end("connection_lost")
        return channel

    def forget(self, channel: Channel) -> None:
        """The broker has confirmed the close: nothing can come for this channel any more, its number may be used
        again.
        """
        # Not earlier: late deliveries must not reach the library, which knows no consumer and would log each of them.
        if self._channels.get(channel.number) is channel:
            del self._channels[channel.number], self._tap.takers[channel.number]

    def send(self, data: bytes) -> None:
        """Queue whole frames; everything queued in one turn of the loop is written at its end, in order."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)

    def flush(self) -> None:
        """Write what is queued now."""
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._tap.write(data)

    def abort(self) -> None:
        """Cut the socket. Everything unacknowledged on this connection goes back to its queues."""
        self._tap.abort()

    async def close(self) -> None:
        """Close politely within a deadline, else cut."""
        self.flush()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._library.close()
        except TimeoutError:
            self.abort()
        except BROKER_TROUBLE:
            pass  # lost already
        self._end()

    def _end(self) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        for channel in list(self._channels.values()):
            channel.end("connection_lost")
        self._channels.clear()
        self._tap.takers.clear()


def _text(value: object) -> str:
    with suppress(UnicodeDecodeError):
        return value.decode() if isinstance(value, bytes) else str(value)
    return "unknown"
