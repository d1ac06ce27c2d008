"""Health over HTTP, the same in every process: live, ready, startup, a summary, metrics.

Live: the event loop turns (it answered). Ready: this process can do its own duty; what that means is the process's,
which registers named checks. The routes are mounted on a port of their own by `infra.process`, and by the gateway on
its own too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infra.telemetry.metrics import Metrics

Check = Callable[[], str | None]
"""None when all is well, else the reason in a few words: codes and counts, nothing of anybody's data."""


class Readiness:
    """Named checks; ready when every one of them says so."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.started = False
        """Set once start-up is over."""
        self.stopping = False
        """Set when the process has been told to stop: no new work, please."""

    def check(self, name: str, check: Check) -> None:
        """Add a check; asked on every readiness request, so it looks at what is known and does not go and ask."""
        self._checks[name] = check

    def reasons(self) -> dict[str, str | None]:
        """By name: None where all is well, else the reason."""
        reasons: dict[str, str | None] = {"process": None if self.started else "starting"}
        if self.stopping:
            reasons["process"] = "stopping"
        for name, check in self._checks.items():
            reasons[name] = check()
        return reasons


@dataclass(frozen=True)
class Health:
    """Answers for one process."""

    process: str
    instance: str
    version: str
    readiness: Readiness
    metrics: Metrics

    def routes(self) -> list[Route]:
        """`/health`, `/health/live`, `/health/ready`, `/health/startup`, `/metrics`."""
        return [
            Route("/health", self._summary),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/health/startup", self._startup),
            Route("/metrics", self._metrics),
        ]

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _startup(self, request: Request) -> Response:
        started = self.readiness.started
        return JSONResponse({"status": "started" if started else "starting"}, status_code=200 if started else 503)

    async def _ready(self, request: Request) -> Response:
        reasons = self.readiness.reasons()
        failing = sorted(name for name, reason in reasons.items() if reason is not None)
        answer: dict[str, object] = {"status": "not_ready" if failing else "ready", "failing": failing}
        if "verbose" in request.query_params:
            answer["checks"] = [
                {"name": name, "state": "ok" if reason is None else "failed", "reason": reason}
                for name, reason in reasons.items()
            ]
        return JSONResponse(answer, status_code=503 if failing else 200)

    async def _summary(self, request: Request) -> Response:
        ready = all(reason is None for reason in self.readiness.reasons().values())
        return JSONResponse(
            {
                "status": "ok" if ready else "degraded",
                "process": self.process,
                "instance": self.instance,
                "version": self.version,
            }
        )

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
