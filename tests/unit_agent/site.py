"""A site's own system behind a webhook: it remembers every request and answers as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.envelope import Json
from infra.http_server import serving


@dataclass
class Site:
    """What it was asked, and what it says."""

    url: str = ""
    done: list[str] = field(default_factory=list)
    """Ids of commands in the order they came, repeats included."""
    keys: list[str] = field(default_factory=list)
    answers: list[tuple[int, Json]] = field(default_factory=list)
    """Said one after the other; then 200."""
    knows: Json | None = None
    """What it says when asked about a command; None: 404."""
    valid: bool = True
    asked: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Commands are answered once this is set."""

    def __post_init__(self) -> None:
        self.hold.set()

    def app(self) -> Starlette:
        """The system."""
        return Starlette(
            routes=[
                Route("/commands", self._run, methods=["POST"]),
                Route("/commands/{id}", self._ask),
                Route("/commands/{id}/revalidate", self._revalidate, methods=["POST"]),
            ]
        )

    async def _run(self, request: Request) -> Response:
        body = await request.json()
        self.done.append(body["id"])
        self.keys.append(request.headers["idempotency-key"])
        await self.hold.wait()
        status, answer = self.answers.pop(0) if self.answers else (200, {"room": "4"})
        body = json.dumps(answer)  # in ASCII, so that a test can have it say any character there is
        return Response(body, status_code=status, media_type="application/json")

    async def _ask(self, request: Request) -> Response:
        self.asked += 1
        return Response(status_code=404) if self.knows is None else JSONResponse(self.knows)

    async def _revalidate(self, request: Request) -> Response:
        return JSONResponse({"valid": self.valid})


@asynccontextmanager
async def site_system() -> AsyncIterator[Site]:
    """A site's system that runs while the block does."""
    site = Site()
    async with serving(site.app(), host="127.0.0.1", port=0, grace=1) as url:
        site.url = f"{url}/commands"
        yield site
        site.hold.set()
