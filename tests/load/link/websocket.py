"""The client's half of RFC 6455 as bytes, no more than a load generator needs: it must cost less than who it measures.

Frames up carry a mask of zeros, which is a mask, and leaves the bytes as they are.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_NO_MASK = b"\0\0\0\0"


def upgrade(host: str, path: str, token: str, subprotocol: str) -> bytes:
    """The opening handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {subprotocol}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


def framed(data: bytes, kind: int = TEXT) -> bytes:
    """One whole frame up."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | kind, 0x80 | size)) + _NO_MASK + data
    if size < 1 << 16:
        return bytes((0x80 | kind, 0xFE)) + size.to_bytes(2, "big") + _NO_MASK + data
    return bytes((0x80 | kind, 0xFF)) + size.to_bytes(8, "big") + _NO_MASK + data


class Frames:
    """Cuts what arrives into frames down; a message in several pieces is not expected, and an error."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(kind, payload) of each frame that is whole now."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            kind, size, start = data[at], data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if end - start < size:
                break
            if not kind & 0x80 or not kind & 0x0F:
                raise ValueError("a message in several frames")
            at = start + size
            yield kind & 0x0F, data[start:at]
        self._rest = data[at:]
