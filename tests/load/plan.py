"""How much is measured and for how long."""

from __future__ import annotations

from dataclasses import dataclass

LATENCY_RATE = 200
PACES = (0.9, 0.75, 0.67)
"""Shares of the end-to-end rate at which a queue must not grow: the first that holds is what can be sustained."""
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
    """Saturating loads, of which the best counts; the peer runs before and after, the pipeline between."""
    quickest: float
    """Check-ins per second that requests are rendered for; a faster contestant runs out of them and is told so."""

    quick: bool = False

    @property
    def check_ins(self) -> int:
        """How many check-ins one contestant may come to."""
        awaited_and_paced = self.quickest * self.seconds * (0.5 + 0.7 * len(PACES))
        saturated = self.quickest * (self.warm_up_seconds + self.seconds * self.rounds)
        return round(saturated + awaited_and_paced + LATENCY_RATE * self.latency_seconds)

    @classmethod
    def of(cls, *, seconds: float, quick: bool) -> Plan:
        """A full run, or one that only shows that everything works."""
        if quick:
            return cls(
                seconds=1,
                latency_seconds=2,
                warm_up_seconds=0.5,
                limit_seconds=0.5,
                rounds=1,
                quickest=5000,
                quick=True,
            )
        return cls(seconds=seconds, latency_seconds=10, warm_up_seconds=3, limit_seconds=3, rounds=3, quickest=4500)
