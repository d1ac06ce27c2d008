"""Who gets past the door: path, token and subprotocol, looked at before the upgrade. A no is HTTP with problem JSON."""

from __future__ import annotations

import http
import json
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from contracts.frames import SUBPROTOCOL
from contracts.identity import Role
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims, InvalidToken, Verifier

UNIT_PATH: Final = "/unit"
PORTAL_PATH: Final = "/portal"


class Visitor(ServerConnection):
    """A connection that knows whose it is once it has been let in."""

    claims: Claims
    """Who the bearer is; set before the upgrade."""


class Door:
    """Looks at every opening handshake."""

    def __init__(self, verifier: Verifier, metrics: Metrics) -> None:
        self._verifier = verifier
        self._metrics = metrics
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
        offered = {one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
        if SUBPROTOCOL not in offered:
            return problem(400, "subprotocol_missing", f"Offer the subprotocol {SUBPROTOCOL}.")
        if isinstance(connection, Visitor):
            connection.claims = claims
        return None


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
