"""MLLP framing without I/O: `<VT> message <FS><CR>`, however the bytes are cut up on their way.

Knows where a message begins and ends and how large it may be; what is in it is `unit_agent.hl7v2.message`'s. A message
cannot hold VT or FS, so a VT inside one means that its sender gave up and began again, and FS alone ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

START: Final = 0x0B
END: Final = 0x1C
HEAD_BYTES: Final = 2048
"""How much of an oversized message is kept, so that its header can be answered."""


@dataclass(frozen=True)
class Block:
    """One message as it came, or the beginning of one that is larger than the limit."""

    content: bytes
    oversized: bool = False


class Deframer:
    """The receiving side of one connection. `unframed` and `broken_off` count bytes and messages that were no use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = False
        self._content = bytearray()
        self._oversized = False
        self.unframed = 0
        """Bytes outside any message, but for line ends."""
        self.broken_off = 0
        """Messages begun and never ended."""

    @property
    def is_inside(self) -> bool:
        """A message has begun and not ended."""
        return self._inside

    def feed(self, data: bytes) -> Iterator[Block]:
        """The messages that end in these bytes, in order."""
        position = 0
        while position < len(data):
            if not self._inside:
                position = self._gap(data, position)
                continue
            end, again = data.find(END, position), data.find(START, position)
            if again >= 0 and (end < 0 or again < end):
                self.broken_off += 1
                self._begin()
                position = again + 1
                continue
            self._keep(data[position : len(data) if end < 0 else end])
            if end < 0:
                return
            self._inside = False
            yield Block(bytes(self._content), self._oversized)
            position = end + 1

    def _gap(self, data: bytes, position: int) -> int:
        """Pass over what lies before the next message; answers where that begins."""
        found = data.find(START, position)
        end = len(data) if found < 0 else found
        self.unframed += len(data[position:end].translate(None, b"\r\n"))
        if found >= 0:
            self._begin()
        return end + 1

    def _begin(self) -> None:
        self._inside, self._oversized = True, False
        self._content.clear()

    def _keep(self, more: bytes) -> None:
        if not self._oversized:
            self._content += more[: self._limit + 1 - len(self._content)]
            if len(self._content) > self._limit:
                self._oversized = True
                del self._content[min(HEAD_BYTES, self._limit) :]


def framed(message: bytes) -> bytes:
    """The message as it is sent. Raises ValueError when it holds what only framing may."""
    if START in message or END in message:
        raise ValueError("a message holds a byte that only framing may")
    return bytes([START]) + message + bytes([END, 0x0D])
