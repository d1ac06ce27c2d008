"""The benchmark's arithmetic: rates, percentiles, CPU per command, ratios and whether they reach their targets.

Pure: it knows numbers and the targets, nothing of processes or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

UNDER_WAY_SECONDS = 0.25
"""Load of so many seconds is simply under way; more is a queue that grew."""


@dataclass(frozen=True)
class Spread:
    """How long things took, in milliseconds."""

    count: int
    p50: float
    p99: float
    worst: float


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of all samples do not exceed; `samples` need not be sorted."""
    if not samples:
        raise ValueError("no samples")
    return sorted(samples)[max(0, ceil(share * len(samples)) - 1)]


def spread(seconds: Iterable[float]) -> Spread:
    """Durations in seconds as a spread in milliseconds."""
    ordered = sorted(seconds)
    return Spread(
        count=len(ordered),
        p50=percentile(ordered, 0.50) * 1000,
        p99=percentile(ordered, 0.99) * 1000,
        worst=ordered[-1] * 1000,
    )


@dataclass(frozen=True)
class Flow:
    """What one load of check-ins came to, from the first request to the last effect."""

    accepted: int
    """Answers that promise the check-in (202 after the broker's confirm, or 201 done)."""
    refused: int
    """Any other answer, and connections that broke."""
    accept_seconds: float
    """From the first request to the last answer."""
    drained_seconds: float
    """From the first request until the last accepted check-in had been stored, projected and published."""
    backlog: int
    """Accepted check-ins not yet published at the moment the load stopped."""
    cpu_seconds: Mapping[str, float]
    """By process, from the first request until drained; the generator's own among them."""

    @property
    def accepted_rate(self) -> float:
        """Accepted check-ins per second."""
        return self.accepted / self.accept_seconds

    @property
    def end_to_end_rate(self) -> float:
        """Check-ins per second that went all the way; a backlog counts with the time it took to work off."""
        return self.accepted / self.drained_seconds

    def cpu_microseconds(self) -> dict[str, float]:
        """CPU per check-in by process."""
        return {name: seconds * 1e6 / self.accepted for name, seconds in self.cpu_seconds.items()}

    def per_cpu_second(self, *, without: Iterable[str] = ("generator", "watcher")) -> float:
        """Check-ins per second of CPU, not counting the processes that only measure."""
        aside = set(without)
        return self.accepted / sum(seconds for name, seconds in self.cpu_seconds.items() if name not in aside)


def best(flows: Sequence[Flow]) -> Flow:
    """The round that counts: whatever else happens on a machine only ever slows a round down."""
    return max(flows, key=lambda flow: flow.end_to_end_rate)


def holds(paced: Flow) -> bool:
    """Whether a pace was kept up: what was left when the load stopped is no more than what is always under way."""
    return paced.backlog < UNDER_WAY_SECONDS * paced.accepted_rate


@dataclass(frozen=True)
class Target:
    """A number to reach: the floor of the first landing, and the goal."""

    name: str
    unit: Literal["x", "ms"]
    floor: float
    goal: float

    def verdict(self, value: float) -> Literal["goal met", "floor met", "not met"]:
        """Ratios must be at least the number, durations below it."""
        if self.unit == "x":
            return "goal met" if value >= self.goal else "floor met" if value >= self.floor else "not met"
        return "goal met" if value < self.goal else "floor met" if value < self.floor else "not met"


END_TO_END = Target("end to end, sustained, to the CRUD stack", "x", floor=1.2, goal=2.5)
ACCEPTED = Target("accepted and confirmed, to the CRUD stack", "x", floor=1.5, goal=3)
VISIBLE_P99 = Target("end to end at 200/s, p99", "ms", floor=50, goal=20)
OUTCOME_P99 = Target("HTTP to outcome at 200/s, p99", "ms", floor=100, goal=30)
