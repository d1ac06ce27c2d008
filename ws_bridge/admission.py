"""Who gets past the door: path, token and subprotocol, looked at before the upgrade. A no is HTTP with problem JSON."""

from __future__ import annotations

import http
import json
from collections.abc import Callable
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from contracts.frames import SUBPROTOCOL
from contracts.identity import Role
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims, InvalidToken, Verifier

UNIT_PATH: Final = "/unit"
PORTAL_PATH: Final = "/portal"
CLOSE_MARGIN: Final = 0.2
"""Seconds after the time for closing at which a connection is cut that is still there."""


class Visitor(ServerConnection):
    """A connection that knows whose it is once it has been let in."""

    claims: Claims
    """Who the bearer is; set before the upgrade."""
    heard_at = 0.0
    """Loop time at which anything came from it, be it a pong."""

    def data_received(self, data: bytes) -> None:
        """Whatever has arrived."""
        self.heard_at = self.loop.time()
        super().data_received(data)

    async def close(self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """As ever, but in time: the library waits for what lies before the close to be read, however long."""
        overdue = self.loop.call_later((self.close_timeout or 0.0) + CLOSE_MARGIN, self.transport.abort)
        try:
            await super().close(code, reason)
        finally:
            overdue.cancel()

    def knock(self) -> None:
        """Ask whether the other end is there. One task for all links does this: the library's own way is a task for
        each, 2 KiB and, at ten thousand links, a twentieth of a core.
        """
        if self.state is State.OPEN:
            self.protocol.send_ping(b"")
            self.send_data()


class Door:
    """Looks at every opening handshake."""

    def __init__(
        self,
        verifier: Verifier,
        metrics: Metrics,
        *,
        forbid: Callable[[Claims], str | None] = lambda claims: None,
        certificate_header: str | None = None,
    ) -> None:
        """`forbid`: why a unit's token is not good any more. `certificate_header`: where a proxy names the unit whose
        client certificate it has verified; None: no certificate is asked for.
        """
        self._verifier = verifier
        self._metrics = metrics
        self._forbid = forbid
        self._certificate_header = certificate_header
        self.closed = False
        """The bridge is leaving: come back elsewhere, or later."""

    def look(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets the visitor in."""
        path = request.path.partition("?")[0]
        if path != UNIT_PATH:
            return problem(404, "not_found", f"Units connect to {UNIT_PATH}.")
        if self.closed:
            return problem(503, "leaving", "This bridge is leaving.", {"Retry-After": "2"})
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            claims = self._verifier.verify(token.strip() if scheme.lower() == "bearer" else None)
        except InvalidToken as why:
            self._metrics.auth_failures.labels(why.code).inc()
            code = why.code if why.code in ("missing", "expired") else "invalid"
            return problem(401, f"token_{code}", f"The token is {why.code}.", {"WWW-Authenticate": "Bearer"})
        if claims.role is not Role.UNIT or claims.unit is None:
            self._metrics.auth_failures.labels("not_a_unit").inc()
            return problem(403, "not_allowed", "Only a unit's own token (role unit, with its unit) is let in here.")
        refusal = self._revoked(claims) or self._certified(claims.unit, request)
        if refusal is not None:
            return refusal
        offered = {one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
        if SUBPROTOCOL not in offered:
            return problem(400, "subprotocol_missing", f"Offer the subprotocol {SUBPROTOCOL}.")
        if isinstance(connection, Visitor):
            connection.claims = claims
        return None

    def _revoked(self, claims: Claims) -> Response | None:
        match self._forbid(claims):
            case None:
                return None
            case "revocations_not_known":
                detail = "Whether the token was revoked is not known yet."
                return problem(503, "database_unavailable", detail, {"Retry-After": "2"})
            case why:
                self._metrics.auth_failures.labels("revoked").inc()
                detail = "Get a new token; a revoked key has to be enrolled anew."
                return problem(401, why, detail, {"WWW-Authenticate": "Bearer"})

    def _certified(self, unit_id: str, request: Request) -> Response | None:
        if self._certificate_header is None or request.headers.get_all(self._certificate_header) == [unit_id]:
            return None
        self._metrics.auth_failures.labels("certificate").inc()
        return problem(403, "certificate_not_this_unit", "Use the certificate that was issued for this unit.")


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An answer in the form of RFC 9457."""
    phrase = http.HTTPStatus(status).phrase
    body = {"type": f"urn:carespine:problem:{code}", "title": phrase, "status": status, "code": code, "detail": detail}
    data = json.dumps(body).encode()
    fields = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(data)),
        "Connection": "close",
        **(headers or {}),
    }
    return Response(status, phrase, Headers(fields), data)
