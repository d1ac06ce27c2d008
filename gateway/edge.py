"""The outermost layer, plain ASGI: trace, limits, security headers, metrics, and the last word on anything unexpected.

It is paid by every request, so it does little: one pass over the headers, one wrapped `send`. No query string, body or
header value is ever logged; a query may hold a name.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final, Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.passage import KEY, Passage, passage_of
from gateway.problems import Problem, bug
from infra.telemetry.logs import describe

log = structlog.get_logger(__name__)

SECURITY_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


DRAINED: Final = 8 * 1024 * 1024
DRAIN_SECONDS: Final = 2.0


class Served(Protocol):
    """Told of every answered request: route template, method, status, seconds."""

    def __call__(self, route: str, method: str, status: int, seconds: float) -> None: ...


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, body_limit: int, served: Served) -> None:
        self._app = app
        self._body_limit = body_limit
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        asked = scope[KEY] = passage_of(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, (b"trace-id", asked.trace_id.encode())]
            await send(message)

        try:
            problem = self._problem(asked)
            if problem is None and b"transfer-encoding" in asked.headers:
                receive, problem = await self._whole(receive)
            if problem is None:
                await self._app(scope, receive, answer)
            else:
                await _drain(receive, asked)
                await self._refuse(problem, asked, scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the last word: a bug becomes a 500 and a log line, never a dead server
            log.error("request_failed", template=asked.route, trace_id=asked.trace_id, **describe(error))
            if not status:
                await self._refuse(bug(), asked, scope, receive, answer)
        finally:
            self._served(asked.route, scope["method"], status, time.perf_counter() - started)

    def _problem(self, asked: Passage) -> Problem | None:
        length = asked.headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._body_limit):
            return self._too_large()
        if (length is None or length == b"0") and b"transfer-encoding" not in asked.headers:
            return None
        kind = asked.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            return Problem("unsupported_media_type", "Send Content-Type: application/json.")
        return None

    def _too_large(self) -> Problem:
        # The rest of the body may not have been read, so this connection is not used again.
        detail = f"At most {self._body_limit} bytes are taken."
        return Problem("body_too_large", detail, headers={"Connection": "close"}, limit=self._body_limit)

    async def _whole(self, receive: Receive) -> tuple[Receive, Problem | None]:
        """A body whose length was not announced, read as far as it is allowed to go, to be received in one piece.

        Where a length was announced the server holds the body to it.
        """
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            more = message.get("more_body", False)
            if size > self._body_limit:
                return receive, self._too_large()
        waiting = [{"type": "http.request", "body": b"".join(pieces), "more_body": False}]

        async def at_once() -> Message:
            return waiting.pop() if waiting else await receive()

        return at_once, None

    async def _refuse(self, problem: Problem, asked: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        await problem.response(instance=scope["path"], trace_id=asked.trace_id)(scope, receive, send)


async def _drain(receive: Receive, asked: Passage) -> None:
    """Throw away what is still being sent, a bounded amount: many callers only listen when they have said all.

    Who asks first whether to go on (`Expect: 100-continue`) is not told to.
    """
    if b"expect" in asked.headers:
        return
    left = DRAINED
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body"):
                    return
                left -= len(message["body"])
