"""Units as a load generator plays them: hello, acknowledge, answer calls; nothing is kept, and little is looked at."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

import orjson

from contracts.frames import SUBPROTOCOL
from tests.load.link.samples import Samples
from tests.load.link.websocket import CLOSE, PING, PONG, TEXT, Frames, framed, upgrade
from unit_agent.connection import WELCOME_TIMEOUT
from unit_agent.uplink import OPEN_TIMEOUT

_FACTS = b'{"type":"facts"'
_PINGS = framed(b'{"type":"ping"}') * 3000


class Owner(Protocol):
    """Who is told what becomes of a link."""

    samples: Samples

    def up(self, link: UnitLink) -> None: ...
    def down(self, link: UnitLink, retry_after: float | None) -> None: ...


class UnitLink(asyncio.Protocol):
    """One unit's connection, and what outlives it."""

    __slots__ = (
        "_buffer", "_frames", "_owner", "_patience", "_retry_after", "_transport", "_upgraded", "attempts", "counts",
        "epoch", "number", "position", "token", "unit_id",
    )  # fmt: skip

    def __init__(self, owner: Owner, number: int, unit_id: str, token: str) -> None:
        self._owner = owner
        self.number = number
        self.unit_id = unit_id
        self.token = token
        self.position = 0
        self.epoch = 0
        """0 while there is no session."""
        self.attempts = 0
        self.counts = True
        """What it receives is measured."""
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._upgraded = False
        self._buffer = b""
        self._frames = Frames()
        self._retry_after: float | None = None
        # Nothing is asked of the transport: the other end may be dead by now, and what it would answer is None.
        transport.write(upgrade("127.0.0.1", "/unit", self.token, SUBPROTOCOL))
        self._wait(OPEN_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.epoch = 0
        self._wait_no_longer()
        self._owner.down(self, self._retry_after)

    def data_received(self, data: bytes) -> None:
        if not self._upgraded:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._refused(data[:end])
                return
            self._upgraded = True
            self._hello()
            self._wait(WELCOME_TIMEOUT)
            data = data[end + 4 :]
        for kind, payload in self._frames.feed(data):
            if kind == TEXT:
                self._hear(payload)
            elif kind == PING:
                self._write(framed(payload, PONG))
            elif kind == CLOSE:
                self._write(framed(payload[:2], CLOSE))

    def abort(self) -> None:
        """As if the power were cut."""
        if self._transport is not None:
            self._transport.abort()

    def flood(self) -> None:
        """Three thousand pings at once, unless the last ones have not left yet."""
        if self._transport is not None and self.epoch and not self._transport.get_write_buffer_size():
            self._transport.write(_PINGS)

    def stop_reading(self) -> None:
        """Whatever comes stays in the socket."""
        if self._transport is not None and self.epoch and self._transport.is_reading():
            self._transport.pause_reading()

    def shout(self) -> None:
        """A frame larger than any may be."""
        if self.epoch:
            self._write(framed(b'{"type":"ping","padding":"%s"}' % (b"x" * 300_000)))

    def _wait(self, seconds: float) -> None:
        """As an agent does: no longer than that for the next step."""
        self._wait_no_longer()
        self._patience = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _wait_no_longer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refused(self, head: bytes) -> None:
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"retry-after":
                self._retry_after = float(value)
        self.abort()

    def _hello(self) -> None:
        hello = {
            "type": "hello",
            "unitId": self.unit_id,
            "position": self.position,
            "agentVersion": "load",
            "instance": f"00000000-0000-4000-8000-{self.number:012d}",
        }
        self._write(framed(orjson.dumps(hello)))

    def _hear(self, frame: bytes) -> None:
        if frame.startswith(_FACTS):
            if self.counts:
                self._owner.samples.take(frame, time.monotonic())
            through = _number(frame, b'"through":')
            if through <= self.position:
                self._owner.samples.duplicates += 1
                return
            self.position = through
            self._write(framed(b'{"type":"ack","epoch":%d,"position":%d}' % (self.epoch, through)))
            return
        told = orjson.loads(frame)
        match told["type"]:
            case "welcome":
                self.epoch = told["epoch"]
                self._wait_no_longer()
                self._owner.up(self)
            case "call":
                answer = {
                    "type": "answer",
                    "epoch": self.epoch,
                    "callId": told["callId"],
                    "ok": True,
                    "body": {"unit": self.unit_id, "position": self.position},
                }
                self._write(framed(orjson.dumps(answer)))
            case "ping":
                self._write(framed(b'{"type":"pong"}'))
            case "bye":
                self._retry_after = told.get("retryAfterSeconds")
            case _:
                pass

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _number(frame: bytes, name: bytes) -> int:
    start = frame.index(name) + len(name)
    return int(frame[start : frame.index(b",", start)])
