"""What the gateway counts: requests, commands taken, live calls, callers turned away."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from infra.telemetry.metrics import Metrics

LONG_LIVED: Final = frozenset({"/api/stream"})
"""Routes that answer for as long as somebody listens: how long says nothing of how fast we are."""


class Measures:
    """The gateway's share of the system's metrics, as functions to be called."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._accepted: dict[str, Counter] = {}
        self.confirmed = metrics.publish_confirm_duration_seconds.observe
        """Seconds from publish to the broker's confirm."""

    def served(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; status 0: its caller had gone."""
        known = self._requests.get((route, method, status))
        if known is None:
            if method not in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
                method = "other"  # a label's values are ours, never a caller's
            known = self._requests[route, method, status] = (
                self._metrics.http_requests.labels(route, method, str(status)),
                self._metrics.http_request_duration_seconds.labels(route, method),
            )
        known[0].inc()
        if route not in LONG_LIVED:
            known[1].observe(seconds)

    def accepted(self, type_name: str) -> None:
        """A command is safe with the broker."""
        counter = self._accepted.get(type_name)
        if counter is None:
            context, _, name = type_name.partition(".")
            counter = self._accepted[type_name] = self._metrics.commands_accepted.labels(context, name)
        counter.inc()

    def not_accepted(self, reason: str) -> None:
        """The broker did not confirm a command."""
        self._metrics.publish_failures.labels(reason).inc()

    def called(self, result: str, seconds: float) -> None:
        """A live call has ended."""
        self._metrics.unit_calls.labels(result).inc()
        self._metrics.unit_call_duration_seconds.labels(result).observe(seconds)

    def turned_away(self, reason: str) -> None:
        """Somebody was not let in."""
        self._metrics.auth_failures.labels(reason).inc()
