"""The sites' own system in the test's hand: it writes down every command it is asked to execute, repeats included.

That record is the test's proof of what was really done, and how often.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.envelope import Json
from infra.http_server import serving


@dataclass(frozen=True)
class Run:
    """One request to execute a command."""

    unit_id: str
    command_id: str
    number: int
    """The caller's own count at that unit."""


@dataclass
class Site:
    """Executes the commands of every unit."""

    url: str = ""
    runs: list[Run] = field(default_factory=list)
    """In the order they came."""
    remembers: bool = True
    """It can tell whether it has executed a command."""
    before_answer: Callable[[Run], None] = lambda run: None
    """Called when a command has been executed and nobody has been told yet."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers are given once this is set."""

    def __post_init__(self) -> None:
        self.hold.set()

    def times(self) -> Counter[str]:
        """How often each command was executed."""
        return Counter(run.command_id for run in self.runs)

    def app(self) -> Starlette:
        """The system, with an address for each unit."""
        return Starlette(
            routes=[
                Route("/{unit_id}", self._run, methods=["POST"]),
                Route("/{unit_id}/{id}", self._ask),
            ]
        )

    async def _run(self, request: Request) -> Response:
        body: Json = await request.json()
        run = Run(request.path_params["unit_id"], body["id"], body["payload"]["number"])
        self.runs.append(run)
        self.before_answer(run)
        await self.hold.wait()
        return JSONResponse({"number": run.number})

    async def _ask(self, request: Request) -> Response:
        if not self.remembers:
            return Response(status_code=404)
        done = any(run.command_id == request.path_params["id"] for run in self.runs)
        return JSONResponse({"applied": done})


@asynccontextmanager
async def site_system() -> AsyncIterator[Site]:
    """A site's system that runs while the block does."""
    site = Site()
    async with serving(site.app(), host="127.0.0.1", port=0, grace=1) as url:
        site.url = url
        try:
            yield site
        finally:
            site.hold.set()
