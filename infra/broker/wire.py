"""AMQP 0-9-1 on the hot path: the frames of publish, confirm, deliver, return and ack, to bytes and back. No I/O.

Only these frames are handled here, because they are what every command costs. Connecting, heartbeats, opening and
closing channels, declaring, consuming and cancelling are the library's (aiormq); see `infra.broker.connection` for
how the two share one socket. Layouts are those of the AMQP 0-9-1 specification, sections 2.3.5 (frames) and 4.2.6.1
(content properties).
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from pamqp import decode, encode

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_END: Final = b"\xce"
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CONNECTION_BLOCKED: Final = 10 << 16 | 60
CONNECTION_UNBLOCKED: Final = 10 << 16 | 61
CHANNEL_CLOSE: Final = 20 << 16 | 40
CHANNEL_CLOSE_OK: Final = 20 << 16 | 41
BASIC_CANCEL: Final = 60 << 16 | 30
BASIC_PUBLISH: Final = 60 << 16 | 40
BASIC_RETURN: Final = 60 << 16 | 50
BASIC_DELIVER: Final = 60 << 16 | 60
BASIC_ACK: Final = 60 << 16 | 80
BASIC_REJECT: Final = 60 << 16 | 90
BASIC_NACK: Final = 60 << 16 | 120

FRAME: Final = Struct(">BHI")
METHOD: Final = Struct(">I")
TAG_AND_BITS: Final = Struct(">QB")
CONTENT: Final = Struct(">HHQH")
_METHOD_FRAME: Final = Struct(">BHII")
_CONTENT_FRAME: Final = Struct(">BHIHHQH")
_TAG_FRAME: Final = Struct(">BHIIQBB")

_OVERHEAD: Final = FRAME.size + 1
_PERSISTENT, _TRANSIENT = b"\x02", b"\x01"


class TooLong(ValueError):
    """A short string (routing key, message id, …) is longer than the 255 bytes AMQP gives it."""


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise TooLong(f"{len(raw)} bytes where AMQP allows 255")
    return bytes((len(raw),)) + raw


def publish(
    channel: int,
    exchange: str,
    routing_key: str,
    body: bytes,
    *,
    message_id: str | None,
    frame_max: int,
    persistent: bool = True,
    mandatory: bool = True,
    headers: dict[str, Any] | None = None,  # Any: AMQP field values
    correlation_id: str | None = None,
    reply_to: str | None = None,
    expiration: int | None = None,
    type: str | None = None,  # noqa: A002 - AMQP's own name for the property
) -> bytes:
    """One message, ready for the socket. `expiration` in milliseconds."""
    method = b"\x00\x00" + _short(exchange) + _short(routing_key) + (b"\x01\xce" if mandatory else b"\x00\xce")
    flags = 0x1000  # the delivery mode is always there
    properties = _PERSISTENT if persistent else _TRANSIENT
    if headers:
        flags |= 0x2000
        properties = encode.field_table(headers) + properties
    if correlation_id is not None:
        flags |= 0x0400
        properties += _short(correlation_id)
    if reply_to is not None:
        flags |= 0x0200
        properties += _short(reply_to)
    if expiration is not None:
        flags |= 0x0100
        properties += _short(str(expiration))
    if message_id is not None:
        flags |= 0x0080
        properties += _short(message_id)
    if type is not None:
        flags |= 0x0020
        properties += _short(type)
    size = len(body)
    head = (
        _METHOD_FRAME.pack(FRAME_METHOD, channel, len(method) + 3, BASIC_PUBLISH)
        + method
        + _CONTENT_FRAME.pack(FRAME_HEADER, channel, 14 + len(properties), 60, 0, size, flags)
        + properties
    )
    if not size:
        return head + FRAME_END
    room = frame_max - _OVERHEAD
    if size <= room:
        return b"".join((head, FRAME_END, FRAME.pack(FRAME_BODY, channel, size), body, FRAME_END))
    parts = [head, FRAME_END]
    for start in range(0, size, room):
        piece = body[start : start + room]
        parts += (FRAME.pack(FRAME_BODY, channel, len(piece)), piece, FRAME_END)
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Acknowledge one delivery, or every delivery through `tag`."""
    return _TAG_FRAME.pack(FRAME_METHOD, channel, 13, BASIC_ACK, tag, multiple, 0xCE)


def reject(channel: int, tag: int, *, requeue: bool) -> bytes:
    """Refuse one delivery: back to the queue, or to its dead-letter exchange."""
    return _TAG_FRAME.pack(FRAME_METHOD, channel, 13, BASIC_REJECT, tag, requeue, 0xCE)


class Properties:
    """The properties of a received message that this system uses; absent ones are None."""

    __slots__ = (
        "content_type",
        "correlation_id",
        "expiration",
        "headers",
        "message_id",
        "persistent",
        "reply_to",
        "type",
    )

    def __init__(self, header: bytes) -> None:
        """Decode the payload of a content header frame.

        Raises ValueError or IndexError when the broker sent something that is not one.
        """
        flags = CONTENT.unpack_from(header)[3]
        self.content_type: str | None = None
        self.headers: dict[str, Any] = {}  # Any: AMQP field values
        self.persistent = False
        self.correlation_id: str | None = None
        self.reply_to: str | None = None
        self.expiration: str | None = None
        self.message_id: str | None = None
        self.type: str | None = None
        at = CONTENT.size
        if flags & 0x8000:
            self.content_type, at = short_string(header, at)
        if flags & 0x4000:
            at += 1 + header[at]  # content encoding: unused here
        if flags & 0x2000:
            taken, table = decode.field_table(header[at:])
            self.headers = dict(table)
            at += taken
        if flags & 0x1000:
            self.persistent = header[at] == 2
            at += 1
        if flags & 0x0800:
            at += 1  # priority: unused here
        if flags & 0x0400:
            self.correlation_id, at = short_string(header, at)
        if flags & 0x0200:
            self.reply_to, at = short_string(header, at)
        if flags & 0x0100:
            self.expiration, at = short_string(header, at)
        if flags & 0x0080:
            self.message_id, at = short_string(header, at)
        if flags & 0x0040:
            at += 8  # timestamp: the envelope carries the time
        if flags & 0x0020:
            self.type, at = short_string(header, at)


def short_string(data: bytes, at: int) -> tuple[str, int]:
    """A short string and where the next field starts."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end
