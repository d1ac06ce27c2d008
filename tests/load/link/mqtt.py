"""As much of MQTT 3.1.1 as the comparison needs: persistent sessions, subscribe, publish and acknowledge with QoS 1."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from typing import Protocol, cast

from tests.load.link.samples import Samples

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 0x10, 0x20, 0x30, 0x40, 0x80, 0x90, 0xC0
KEEP_ALIVE = 600


def _packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes((kind,)) + bytes(length) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def connect(client_id: str) -> bytes:
    """Come back to the session of this id, or begin it."""
    return _packet(CONNECT, _text("MQTT") + b"\x04\x00" + struct.pack(">H", KEEP_ALIVE) + _text(client_id))


def subscribe(packet_id: int, topic: str) -> bytes:
    """With QoS 1."""
    return _packet(SUBSCRIBE | 2, struct.pack(">H", packet_id) + _text(topic) + b"\x01")


def publish(packet_id: int, topic: str, payload: bytes) -> bytes:
    """With QoS 1."""
    return _packet(PUBLISH | 2, _text(topic) + struct.pack(">H", packet_id) + payload)


def puback(packet_id: int) -> bytes:
    """It is safe here."""
    return bytes((PUBACK, 2)) + struct.pack(">H", packet_id)


class Packets:
    """Cuts what arrives into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of each packet that is whole now."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= 2:
            size, shift, start = 0, 0, at + 1
            while start < end:
                digit = data[start]
                size |= (digit & 0x7F) << shift
                start, shift = start + 1, shift + 7
                if not digit & 0x80:
                    break
            else:
                break
            if end - start < size:
                break
            kind, at = data[at], start + size
            yield kind, data[start:at]
        self._rest = data[at:]


class Owner(Protocol):
    """Who is told what becomes of a link."""

    samples: Samples

    def up(self, link: MqttLink) -> None: ...
    def down(self, link: MqttLink, retry_after: float | None) -> None: ...


class MqttLink(asyncio.Protocol):
    """One unit as an MQTT client with a persistent session, subscribed to what is its own."""

    def __init__(self, owner: Owner, number: int, unit_id: str) -> None:
        self._owner = owner
        self.number = number
        self.unit_id = unit_id
        self.epoch = 0
        """0 while it is not subscribed."""
        self.attempts = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._packets = Packets()
        transport.write(connect(self.unit_id))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.epoch = 0
        self._owner.down(self, None)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for kind, body in self._packets.feed(data):
            match kind & 0xF0:
                case 0x30:
                    topic = struct.unpack_from(">H", body)[0]
                    self._owner.samples.take(body, time.monotonic())
                    self._transport.write(puback(struct.unpack_from(">H", body, 2 + topic)[0]))
                case 0x20:
                    self._transport.write(subscribe(1, f"unit/{self.unit_id}/#"))
                case 0x90:
                    self.epoch = 1
                    self._owner.up(self)
                case _:
                    pass
