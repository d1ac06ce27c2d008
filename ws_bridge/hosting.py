"""Units' connections, each from the upgrade to its end: hello, epoch, welcome, then whatever the unit says.

Nothing that one connection does wrong reaches another. The order of the opening leaves no gap: the unit is bound and
listened to first, then the head of its feed is read, so what becomes visible in between is noted and sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode as Rfc6455

from contracts import routing
from contracts.frames import (
    MAX_FRAME_BYTES,
    Ack,
    Answer,
    Ask,
    CloseCode,
    Ping,
    Pong,
    Renew,
    Submit,
    Welcome,
    closing,
)
from contracts.model import Model
from infra.broker.errors import BrokerUnavailable
from infra.broker.inbox import Inbox
from infra.broker.publisher import Publisher
from infra.database import DatabaseUnavailable
from infra.telemetry.metrics import Metrics
from ws_bridge.admission import Visitor
from ws_bridge.catch_up import CatchUp
from ws_bridge.credentials import Renewals
from ws_bridge.deliveries import SessionTaken
from ws_bridge.line import Line
from ws_bridge.link import SUSPENDED_AWAY, Link
from ws_bridge.links import Links
from ws_bridge.live_calls import LiveCalls
from ws_bridge.pacing import jittered
from ws_bridge.receipts import Receipts
from ws_bridge.server import HEARTBEAT_SECONDS
from ws_bridge.session import Violation
from ws_bridge.submissions import Submissions
from ws_bridge.unit_sessions import Asked, Opened, UnitSessions

HELLO_SECONDS: Final = 10.0
FLOODED_AWAY: Final = 30.0
CONTESTED_AWAY: Final = 240.0
TROUBLE_AWAY: Final = 5.0
"""When to come back, at most; each unit is told a random share of it."""

Turned = tuple[str, CloseCode, str, float | None]
"""(word for metrics and logs, close code, reason, when to come back at most)."""

TURNED_AWAY: Final[dict[str, Turned]] = {
    "suspended": ("suspended", CloseCode.UNIT_SUSPENDED, "the unit is suspended", SUSPENDED_AWAY),
    "retired": ("not_found", CloseCode.UNIT_NOT_FOUND, "the unit is retired", None),
    "unknown": ("not_found", CloseCode.UNIT_NOT_FOUND, "the unit is unknown", None),
    "contested": (
        "contested",
        CloseCode.CONTESTED,
        "another agent with this identity holds the unit's link and keeps it",
        CONTESTED_AWAY,
    ),
}
"""By what the database said to the hello (`Opened.status`)."""
AHEAD: Final[Turned] = ("ahead", CloseCode.POSITION_AHEAD, "the position lies beyond the log", None)
DATABASE_AWAY: Final[Turned] = ("trouble", CloseCode.TROUBLE, "the database is away", TROUBLE_AWAY)

PONG: Final = Pong().to_json()

log = structlog.get_logger()


@dataclass(frozen=True)
class Bridge:
    """What a connection needs of the rest of the process."""

    instance: str
    links: Links
    sessions: UnitSessions
    inbox: Inbox
    publisher: Publisher
    catch_up: CatchUp
    submissions: Submissions
    calls: LiveCalls
    credentials: Renewals
    receipts: Receipts
    metrics: Metrics


Hearer = Callable[[Link, Any], Awaitable[None] | None]  # Any: the frame of the type it is listed for
"""Does what a frame asks for. One that waits holds up its own link and no other."""


class UnitHost:
    """Looks after units' connections."""

    def __init__(
        self,
        bridge: Bridge,
        more: Mapping[type[Model], Hearer] | None = None,
        *,
        frames_a_second: float,
        bytes_a_second: float,
    ) -> None:
        """`more`: frames besides the usual ones, and who does what they ask for. The rates are each link's."""
        self._bridge = bridge
        self._rates = frames_a_second, bytes_a_second
        self._hearers: dict[type[Model], Hearer] = {
            Ack: self._ack,
            Submit: bridge.submissions.take,
            Answer: bridge.calls.answered,
            Ask: bridge.submissions.tell,
            Ping: lambda link, _: link.say(PONG),
            Pong: lambda link, _: None,
            Renew: bridge.credentials.hear,
            **(more or {}),
        }

    def host(self, visitor: Visitor) -> Awaitable[None]:
        """One connection, from the upgrade to its end."""
        frames, size = self._rates
        clock = asyncio.get_running_loop().time
        line = Line(frames, size, clock, self._bridge.metrics)
        return _Visit(self._bridge, self._hearers, visitor, line).run()

    def _ack(self, link: Link, ack: Ack) -> None:
        at = datetime.now(UTC)
        link.acknowledged(at)
        self._bridge.receipts.note(link.unit_id, link.epoch, link.orders.arrived(link.session.feed.acked), at)
        self._bridge.sessions.acked(link.unit_id, link.epoch, link.session.feed.acked)
        self._bridge.catch_up.push(link)


class _Visit:
    """Looks after one connection."""

    __slots__ = ("_bridge", "_hearers", "_line", "_link", "_socket")

    def __init__(self, bridge: Bridge, hearers: Mapping[type[Model], Hearer], socket: Visitor, line: Line) -> None:
        self._bridge = bridge
        self._hearers = hearers
        self._socket = socket
        self._line = line
        self._link = Link(socket, socket.claims, bridge.metrics, asyncio.get_running_loop().time)

    async def run(self) -> None:
        """From the upgrade to the end, whatever that is; the handler must not raise."""
        link, bridge = self._link, self._bridge
        try:
            if await self._opened():
                await self._listen()
        except ConnectionClosed as closed:
            self._count(closed)
        except Violation as broken:
            log.warning("link_violated", unit_id=link.unit_id, code=broken.code.name, reason=broken.reason)
            link.end(broken.code, broken.reason, FLOODED_AWAY if broken.code is CloseCode.TRY_LATER else None)
        finally:
            if bridge.links.release(link):
                bridge.inbox.unbind(link.unit_id)
            bridge.metrics.unit_connections.set(len(bridge.links))
            bridge.calls.gone(link)
            if link.epoch:
                bridge.sessions.closed(link.unit_id, link.epoch, link.session.feed.acked)
                log.info("link_down", unit_id=link.unit_id, epoch=link.epoch, code=link.ended)
        await self._socket.wait_closed()

    async def _opened(self) -> bool:
        """Hello, epoch, welcome; False when the link was not given."""
        link, bridge = self._link, self._bridge
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = link.session.hello(await self._socket.recv())
        except TimeoutError:
            link.end(CloseCode.HELLO_TIMEOUT, "no hello came in time")
            return False
        bridge.links.expect(link)
        revoked = bridge.credentials.shut_out(link)
        if revoked is not None:
            return self._turned_away("revoked", revoked, "the credential was revoked", None)
        with suppress(BrokerUnavailable):  # it is bound when the broker is back; until then sweeps bring the facts
            await bridge.inbox.bind(link.unit_id)
        try:
            opened = await bridge.sessions.open(
                Asked(link.unit_id, hello.agent_version, hello.position, hello.instance)
            )
        except DatabaseUnavailable:
            return self._turned_away(*DATABASE_AWAY)
        if not opened.epoch:
            return self._not_given(opened)
        link.open(epoch=opened.epoch, partition=opened.partition, head=opened.head, speaks_until=opened.speaks_until)
        bridge.links.hold(link)
        self._announce(opened.epoch)
        if not link.is_open:
            return False
        bridge.metrics.unit_hello.labels("welcome").inc()
        bridge.metrics.unit_connections.set(len(bridge.links))
        log.info("link_up", unit_id=link.unit_id, epoch=link.epoch, position=hello.position)
        welcome = Welcome(
            epoch=opened.epoch,
            head=opened.head,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            max_frame_bytes=MAX_FRAME_BYTES,
            server_time=datetime.now(UTC),
            credential_expires_at=datetime.fromtimestamp(link.credential.expires_at, UTC),
        )
        link.say(welcome.to_json())
        bridge.catch_up.push(link)
        return True

    def _not_given(self, opened: Opened) -> bool:
        return self._turned_away(*TURNED_AWAY.get(opened.status, AHEAD))

    def _turned_away(self, result: str, code: CloseCode, reason: str, away: float | None) -> bool:
        self._bridge.metrics.unit_hello.labels(result).inc()
        log.warning("hello_turned_away", unit_id=self._link.unit_id, reason=result)
        self._link.end(code, reason, None if away is None else jittered(away))
        return False

    def _announce(self, epoch: int) -> None:
        """Tell whichever bridge holds an older session of this unit. Lost, that one finds out at its next ack."""
        taken = SessionTaken(unit_id=self._link.unit_id, epoch=epoch, bridge=self._bridge.instance)
        with suppress(BrokerUnavailable):
            self._bridge.publisher.publish_nowait(routing.EVENTS, routing.session_key(taken.unit_id), taken.to_json())

    async def _listen(self) -> None:
        link, hearers, line = self._link, self._hearers, self._line
        while True:
            data = await self._socket.recv()
            wait = line.arrived(len(data))
            if wait:  # nothing is read from it meanwhile: what it sends waits in its own line
                await asyncio.sleep(wait)
            frame = link.session.hear(data)
            line.asked(frame)
            if link.ended is not None:
                continue  # what it says now is said to nobody; recv tells when it is closed
            waiting = hearers[type(frame)](link, frame)
            if waiting is not None:
                await waiting

    def _count(self, closed: ConnectionClosed) -> None:
        """Closed by the unit, the network, or the library on our behalf: the link has not counted that."""
        if self._link.ended is not None:
            return
        code = closed.rcvd.code if closed.rcvd is not None else Rfc6455.ABNORMAL_CLOSURE
        if closed.sent is not None and closed.sent.code == Rfc6455.MESSAGE_TOO_BIG:  # said by the library
            code = CloseCode.FRAME_TOO_LARGE
            log.warning("link_violated", unit_id=self._link.unit_id, code=CloseCode.FRAME_TOO_LARGE.name)
        known = closing(code) is not None or code in (Rfc6455.NORMAL_CLOSURE, Rfc6455.ABNORMAL_CLOSURE)
        self._bridge.metrics.unit_closes.labels(str(int(code)) if known else "other").inc()
