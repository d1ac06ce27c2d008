"""Server-Sent Events: a unit's events for those who cannot hold a WebSocket, from the same hub by the same rules.

The connection is the back-pressure: while it takes nothing, the newest event of each thing waits, up to a budget.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.frames import CloseCode
from contracts.model import Model
from contracts.portal import CLOSINGS, Bye, Reset, Topic, Welcome
from infra.portals.following import BUDGET_BYTES, Follower, Outbox, ResetReason
from infra.portals.hub import Hub
from infra.portals.views import Shown
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims

HEARTBEAT_SECONDS: Final = 15.0
STUCK_SECONDS: Final = 30.0
"""A connection that takes nothing for this long is cut."""
AT_ONCE_BYTES: Final = 64 * 1024
"""Written in one piece; only what waits beyond it is conflated."""
MOST_STREAMS: Final = 2_000
RETRY: Final = b"retry: 2000\n\n"
HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # proxies hand every event on at once
]


class Streams:
    """All streams of this process."""

    def __init__(self, hub: Hub, metrics: Metrics) -> None:
        self.hub = hub
        self.metrics = metrics
        self._open: set[Stream] = set()
        self._leaving = False

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, stream: Stream) -> None:
        """One more."""
        self._open.add(stream)
        self.metrics.portals.labels("stream").set(len(self._open))
        if self._leaving:
            _send_away(stream)

    def closed(self, stream: Stream) -> None:
        """One fewer."""
        self.hub.detach(stream)
        self._open.discard(stream)
        self.metrics.portals.labels("stream").set(len(self._open))
        self.metrics.portal_closes.labels(str(int(stream.ended)) if stream.ended is not None else "other").inc()
        self.metrics.portal_conflated.inc(stream.outbox.conflated)

    def end_revoked(self, ended: Callable[[Claims], str | None]) -> None:
        """End those whose login has ended, or whose account may less than its token says."""
        for stream in list(self._open):
            if stream.claims.sid is not None and ended(stream.claims) == "revoked":
                stream.end(CloseCode.CREDENTIAL_REVOKED, "the login has ended, or the account's roles changed")

    async def leave_when(self, stopping: asyncio.Event) -> None:
        """Once the process stops, end every stream, so that it can: they come back elsewhere, a moment apart."""
        await stopping.wait()
        self._leaving = True
        for stream in list(self._open):
            _send_away(stream)


class Stream(Follower):
    """One stream: what waits to be written."""

    __slots__ = ("_asked", "_out", "_through", "_told", "_wanted", "claims", "ended", "expires_at", "outbox", "woken")

    def __init__(self, claims: Claims, unit_id: str, topics: frozenset[Topic], after: int | None) -> None:
        super().__init__(unit_id, subject=claims.sub, role=claims.role, since=claims.iat, topics=topics)
        self.claims: Final = claims
        self.expires_at = claims.exp
        self.outbox = Outbox()
        self.ended: CloseCode | None = None
        """Why it ends; None while it does not."""
        self.woken = asyncio.Event()
        """There may be something to write."""
        self._wanted = topics
        self._asked = after
        self._out: list[bytes] = []
        self._told = self._through = 0

    def begin(self, partition: int, position: int, missed: Sequence[Shown], reset: ResetReason | None) -> None:
        followed, reset = self.resumed(missed, reset)
        for shown in followed:
            self.outbox.put(shown, exactly=True)
        self._through = position
        self._told = (self._asked or 0) if followed else position
        welcome = Welcome(
            unit_id=self.unit_id,
            partition=partition,
            position=self._told,
            topics=sorted(self.topics),
            denied=sorted(self._wanted - self.topics),
            subject=self.subject,
            role=self.role,
            expires_at=datetime.fromtimestamp(self.expires_at, UTC),
            heartbeat_seconds=HEARTBEAT_SECONDS,
            server_time=datetime.now(UTC),
        )
        self._say("welcome", welcome, self._told)
        if reset is not None:
            self._say("reset", Reset(position=position, reason=reset), position)

    def take(self, shown: Sequence[Shown], through: int) -> None:
        if self.ended is not None:
            return
        for one in shown:
            if self.follows(one):
                self.outbox.put(one, exactly=self.outbox.size < AT_ONCE_BYTES)
        self._through = through
        if len(self.outbox):
            self.woken.set()
        if self.outbox.size > BUDGET_BYTES:
            self.end(CloseCode.TOO_SLOW, "the stream is not read")

    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        if self.ended is not None:
            return
        self.ended = code
        self.outbox.clear()
        may = CLOSINGS[code].may_reconnect
        self._say("bye", Bye(code=code, reason=reason, may_reconnect=may, retry_after_seconds=retry_after), None)

    def ping(self) -> None:
        """Say that the stream is alive, and from where it could be resumed."""
        position = self._told if len(self.outbox) else self._through
        self._out.append(b"id: %d\nevent: ping\ndata: {}\n\n" % position)

    def due(self) -> bytes:
        """What is to be written next."""
        parts, self._out = self._out, []
        size = 0
        while size < AT_ONCE_BYTES and (shown := self.outbox.take()) is not None:
            parts.append(shown.sse)
            size += len(parts[-1])
            self._told = shown.position
        return b"".join(parts)

    def _say(self, name: str, frame: Model, position: int | None) -> None:
        at = b"" if position is None else b"id: %d\n" % position
        self._out.append(at + b"event: %b\ndata: %b\n\n" % (name.encode(), frame.to_json()))
        self.woken.set()


class EventStream(Response):
    """The answer of a stream that was attached: written until either end has enough."""

    def __init__(self, stream: Stream, streams: Streams) -> None:
        super().__init__()
        self._stream = stream
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, until the end."""
        self._streams.opened(self._stream)
        gone = asyncio.create_task(self._gone(receive), name="stream.gone")
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await self._write(send, RETRY)
            while not gone.done():
                self._stream.woken.clear()
                if piece := self._stream.due():
                    await self._write(send, piece)
                elif self._stream.ended is not None:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    break
                else:
                    await self._wait(gone)
        except TimeoutError:
            self._stream.ended = self._stream.ended or CloseCode.TOO_SLOW
        finally:
            gone.cancel()
            self._streams.closed(self._stream)

    async def _write(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(STUCK_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _wait(self, gone: asyncio.Task[None]) -> None:
        """Until there is something to write; a sign of life where there is nothing, the end where time is over."""
        stream = self._stream
        left = stream.expires_at - time.time()
        woken = asyncio.create_task(stream.woken.wait())
        try:
            await asyncio.wait(
                (woken, gone), timeout=max(0.0, min(HEARTBEAT_SECONDS, left)), return_when=asyncio.FIRST_COMPLETED
            )
            if time.time() >= stream.expires_at:
                stream.end(CloseCode.TOKEN_NOT_VALID, "the token has expired")
            elif not woken.done():
                stream.ping()
        finally:
            woken.cancel()

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.woken.set()


def _send_away(stream: Stream) -> None:
    away = round(random.uniform(0.2, 2.0), 2)  # noqa: S311 - jitter, not a secret
    stream.end(CloseCode.GOING_AWAY, "the gateway is leaving", away)
