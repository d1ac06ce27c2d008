"""Portals' connections, each from the upgrade to its end: hello, the unit's events, whatever the portal says.

Writes without waiting, so one slow portal holds up nobody: what its socket has no room for waits in its session.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode as Rfc6455

from contracts.frames import CloseCode
from contracts.portal import CLOSINGS, Bye, Hello, Renew
from infra.database import DatabaseUnavailable
from infra.portals.hub import Hub, Revoked, UnitNotKnown
from infra.telemetry.metrics import Metrics
from infra.tokens import InvalidToken, Verifier
from ws_bridge.admission import Visitor
from ws_bridge.pacing import jittered
from ws_bridge.portals.commands import AT_ONCE, PortalCommands, Update
from ws_bridge.portals.session import PortalSession, Violation, hello_from

HELLO_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1
"""How often sockets that had no room are tried again."""
TICKS: Final = 10
"""Of these looks, one also looks at expiry and silence."""
TROUBLE_AWAY: Final = 5.0
"""When to come back, at most; each portal is told a random share of it."""
LEAVING_SECONDS: Final = 3.0
PORTALS_A_SECOND: Final = 500
"""What the other bridges can welcome: portals are told to come back spread over that much time."""

log = structlog.get_logger()


class PortalHost:
    """Looks after portals' connections."""

    def __init__(self, hub: Hub, commands: PortalCommands, verifier: Verifier, metrics: Metrics) -> None:
        self.hub = hub
        self.commands = commands
        self.verifier = verifier
        self.metrics = metrics
        self._portals: set[Portal] = set()
        self._leaving = False

    async def host(self, visitor: Visitor) -> None:
        """One connection, from the upgrade to its end."""
        opened = await self._greeted(visitor)
        if opened is not None:
            portal, position = opened
            self._portals.add(portal)
            self.metrics.portals.labels("socket").set(len(self._portals))
            try:
                await portal.run(position)
            finally:
                self._portals.discard(portal)
                self.metrics.portals.labels("socket").set(len(self._portals))
        await visitor.wait_closed()

    async def look_after(self) -> None:
        """Write to those that had no room, end those whose time is over, until cancelled."""
        look = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            look += 1
            now, wall = asyncio.get_running_loop().time(), time.time()
            for portal in list(self._portals):
                if look % TICKS == 0:
                    portal.session.tick(now, wall)
                if portal.session.is_pressed:
                    portal.flush()

    def end_revoked(self) -> None:
        """End those whose login has ended, or whose account may less than its token says."""
        for portal in list(self._portals):
            claims = portal.session.claims
            if claims.sid is not None and self.verifier.ended(claims) == "revoked":
                portal.session.end(CloseCode.CREDENTIAL_REVOKED, "the login has ended, or the account's roles changed")

    async def leave(self) -> None:
        """End every portal, each told when to come back."""
        self._leaving = True
        leaving = list(self._portals)
        spread = max(1.0, len(leaving) / PORTALS_A_SECOND)
        for portal in leaving:
            portal.session.end(CloseCode.GOING_AWAY, "the bridge is leaving", jittered(spread))
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await asyncio.gather(*(portal.socket.wait_closed() for portal in leaving))
        except TimeoutError:
            log.warning("portals_not_closed", count=len(self._portals))

    async def _greeted(self, visitor: Visitor) -> tuple[Portal, int | None] | None:
        """The hello; None when there is nothing to look after."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                data = await visitor.recv()
            hello, unit_id = hello_from(data, visitor.claims)
        except TimeoutError:
            await self._turn_away(visitor, CloseCode.HELLO_TIMEOUT, "no hello came in time")
        except Violation as broken:
            await self._turn_away(visitor, broken.code, broken.reason)
        except ConnectionClosed:
            self.metrics.portal_closes.labels("other").inc()
        else:
            if not self._leaving:
                return Portal(self, visitor, hello, unit_id), hello.position
            await self._turn_away(visitor, CloseCode.GOING_AWAY, "the bridge is leaving", jittered(1.0))
        return None

    async def _turn_away(self, visitor: Visitor, code: CloseCode, reason: str, away: float | None = None) -> None:
        bye = Bye(code=code, reason=reason, may_reconnect=CLOSINGS[code].may_reconnect, retry_after_seconds=away)
        broadcast([visitor], bye.to_json(), text=True)
        self.metrics.portal_closes.labels(str(int(code))).inc()
        await visitor.close(code, reason)


class Portal:
    """One portal: its session on its socket."""

    __slots__ = ("_closing", "_host", "_tasks", "session", "socket")

    def __init__(self, host: PortalHost, socket: Visitor, hello: Hello, unit_id: str) -> None:
        self._host = host
        self.socket: Final[ServerConnection] = socket
        now = asyncio.get_running_loop().time()
        self.session: Final = PortalSession(socket.claims, unit_id, hello, wake=self.flush, now=now)
        self._tasks: set[asyncio.Task[None]] | None = None
        """Commands under way; None until there was one."""
        self._closing: asyncio.Task[None] | None = None

    async def run(self, position: int | None) -> None:
        """Follow and listen, to the end; never raises."""
        session = self.session
        try:
            await self._host.hub.attach(session, position)
            while True:
                frame = session.hear(await self.socket.recv(), asyncio.get_running_loop().time())
                if session.ended is not None:
                    continue  # what it says now is said to nobody; recv tells when it is closed
                if isinstance(frame, Renew):
                    self._renew(frame.token)
                elif frame is not None:
                    self._take(frame)
        except ConnectionClosed as closed:
            self._count(closed)
        except Violation as broken:
            log.warning("portal_violated", unit_id=session.unit_id, code=broken.code.name, reason=broken.reason)
            session.end(broken.code, broken.reason)
        except UnitNotKnown:
            session.end(CloseCode.UNIT_NOT_FOUND, "no such unit, or it was retired")
        except Revoked:
            session.end(CloseCode.CREDENTIAL_REVOKED, "portals of this role or account were revoked")
        except DatabaseUnavailable:
            session.end(CloseCode.TROUBLE, "the database is away", jittered(TROUBLE_AWAY))
        finally:
            self._host.hub.detach(session)
            if session.outbox.conflated:
                self._host.metrics.portal_conflated.inc(session.outbox.conflated)
            if session.ended is None:
                session.ended = CloseCode.GOING_AWAY

    def flush(self) -> None:
        """Write what may be written now."""
        session = self.session
        for frame in session.due(self.socket.transport.get_write_buffer_size(), asyncio.get_running_loop().time()):
            broadcast([self.socket], frame, text=True)
        if session.ended is not None and self._closing is None:
            self._host.metrics.portal_closes.labels(str(int(session.ended))).inc()
            # The close waits for the other end's answer; the handler of this connection waits for the close.
            self._closing = asyncio.create_task(self.socket.close(session.ended, "see bye"))

    def _renew(self, token: str) -> None:
        session = self.session
        try:
            claims = self._host.verifier.verify(token)
        except InvalidToken as why:
            self._host.metrics.auth_failures.labels(why.code).inc()
            session.decline(f"token_{why.code}", "The session goes on until its token runs out.")
            return
        if not session.renew(claims):
            return
        if self._host.hub.may_go_on(session):
            session.renewed()
        else:
            session.end(CloseCode.CREDENTIAL_REVOKED, "portals of this role or account were revoked")

    def _take(self, update: Update) -> None:
        tasks = self._tasks = self._tasks or set()
        if len(tasks) >= AT_ONCE:
            self.session.decline("busy", "Wait for answers first.", request_id=update.request_id, retry_after=1.0)
            return
        task = asyncio.create_task(self._host.commands.take(self.session, update), name="portal.command")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _count(self, closed: ConnectionClosed) -> None:
        if self.session.ended is not None:
            return
        code = closed.rcvd.code if closed.rcvd is not None else Rfc6455.ABNORMAL_CLOSURE
        known = code in (Rfc6455.NORMAL_CLOSURE, Rfc6455.ABNORMAL_CLOSURE)
        self._host.metrics.portal_closes.labels(str(int(code)) if known else "other").inc()
