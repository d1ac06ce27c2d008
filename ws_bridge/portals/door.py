"""Which staff get past the door of `/portal`: token and subprotocol, looked at before the upgrade.

Browsers cannot set headers on a WebSocket, so the token may come as a second subprotocol, `bearer.<token>`; it is never
taken from the URL, which ends up in logs.
"""

from __future__ import annotations

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from contracts.frames import PORTAL_SUBPROTOCOL
from contracts.portal import READERS, TOKEN_OFFER
from infra.telemetry.metrics import Metrics
from infra.tokens import InvalidToken, Verifier
from ws_bridge.admission import Visitor, problem


class PortalDoor:
    """Looks at every opening handshake of a portal."""

    def __init__(self, verifier: Verifier, metrics: Metrics) -> None:
        self._verifier = verifier
        self._metrics = metrics
        self.closed = False
        """The bridge is leaving: come back elsewhere, or later."""

    def look(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets the visitor in."""
        if self.closed:
            return problem(503, "leaving", "This bridge is leaving.", {"Retry-After": "2"})
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        try:
            claims = self._verifier.verify(_token(request, offered))
        except InvalidToken as why:
            if why.code == "revocations_not_known":
                detail = "Whether the login has ended is not known yet."
                return problem(503, "database_unavailable", detail, {"Retry-After": "2"})
            self._metrics.auth_failures.labels(why.code).inc()
            code = why.code if why.code in ("missing", "expired") else "invalid"
            return problem(401, f"token_{code}", f"The token is {why.code}.", {"WWW-Authenticate": "Bearer"})
        if claims.role not in READERS:
            self._metrics.auth_failures.labels("not_staff").inc()
            return problem(403, "not_allowed", f"The role {claims.role.value} has no portal; units connect to /unit.")
        if PORTAL_SUBPROTOCOL not in offered:
            return problem(400, "subprotocol_missing", f"Offer the subprotocol {PORTAL_SUBPROTOCOL}.")
        if isinstance(connection, Visitor):
            connection.claims = claims
        return None


def _token(request: Request, offered: list[str]) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return next((one.removeprefix(TOKEN_OFFER) for one in offered if one.startswith(TOKEN_OFFER)), None)
