"""How much is measured and for how long."""

from __future__ import annotations

from dataclasses import dataclass

LATENCY_RATE = 200
UNITS = 500


@dataclass(frozen=True)
class Plan:
    """The durations and amounts of one run."""

    seconds: float
    """Of each saturating load."""
    latency_seconds: float
    warm_up_seconds: float
    limit_seconds: float
    rounds: int
    """Saturating loads; the peer runs before and after, the pipeline between."""
    quickest: float
    """Check-ins per second that requests are rendered for; a faster contestant runs out of them and is told so."""

    @classmethod
    def of(cls, *, seconds: float, quick: bool) -> Plan:
        """A full run, or one that only shows that everything works."""
        if quick:
            return cls(seconds=1, latency_seconds=2, warm_up_seconds=0.5, limit_seconds=0.5, rounds=1, quickest=5000)
        return cls(seconds=seconds, latency_seconds=10, warm_up_seconds=3, limit_seconds=3, rounds=2, quickest=5000)
