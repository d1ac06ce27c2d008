"""How much of the unit link is measured, for how long, and the numbers to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["goal met", "floor met", "not met"]


@dataclass(frozen=True)
class Plan:
    """The amounts and durations of one run."""

    units: int = 10_000
    rate: float = 2_000
    """Commands per second, over all units together."""
    seconds: float = 10
    calls_rate: float = 200
    calls_seconds: float = 10
    noise_rate: float = 1_000
    noise_rounds: int = 3
    """Each with and without the noise."""
    catch_up_events: int = 100_000
    portal_units: int = 500
    portals: int = 1_000
    portal_rate: float = 50
    """Check-ins per second."""
    at_once: int = 256
    """Connections that are being opened at the same time."""
    quick: bool = False

    @classmethod
    def of(cls, *, quick: bool, units: int | None) -> Plan:
        """A full run, or one that only shows that everything works."""
        if quick:
            return cls(
                units=units or 300, rate=200, seconds=2, calls_rate=50, calls_seconds=2, noise_rate=100,
                noise_rounds=1, catch_up_events=2_000, portal_units=20, portals=40, portal_rate=20, quick=True,
            )  # fmt: skip
        return cls(units=units or 10_000)


@dataclass(frozen=True)
class Target:
    """A number to reach, or to stay below."""

    name: str
    unit: str
    floor: float
    goal: float
    more_is_better: bool = False

    def verdict(self, value: float) -> Verdict:
        """What the value comes to."""
        if self.more_is_better:
            return "goal met" if value >= self.goal else "floor met" if value >= self.floor else "not met"
        return "goal met" if value <= self.goal else "floor met" if value <= self.floor else "not met"


MEMORY = Target("memory per unit at one bridge", "KiB", floor=30, goal=20)
BRIDGE_P99 = Target("delivery through the bridge, p99", "ms", floor=100, goal=30)
WHOLE_P99 = Target("command to unit, the whole way, p99", "ms", floor=100, goal=30)
CALL_P99 = Target("live call over HTTP, p99", "ms", floor=50, goal=15)
STORM = Target("all units back after the bridge was killed", "s", floor=60, goal=30)
STORM_CONNECTIONS = Target("database connections more, during that", "", floor=5, goal=2)
NOISE = Target("others' p99 beside a noisy unit", "x", floor=1.1, goal=1.1)
CATCH_UP = Target("catch-up of an absent unit", "events/s", floor=5_000, goal=20_000, more_is_better=True)
NOTIFICATION = Target("notification at a portal, p99", "ms", floor=50, goal=30)
