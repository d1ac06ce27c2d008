"""How fast things may come, and when they had better come back, without I/O: clocks are passed in.

Everybody can be told a moment of their own to come back at, so that a crowd that was turned away returns as a queue.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Final

LONGEST_AWAY: Final = 30.0
"""Seconds: however long the queue before the door."""
MOMENT: Final = 0.0005
"""Seconds not worth waiting for."""
UNITS_REMEMBERED: Final = 20_000


def jittered(most: float) -> float:
    """When to come back: a random share, so that a thousand units do not come back as one."""
    return round(random.uniform(most / 4, most), 2)  # noqa: S311 - jitter, not a secret


class Allowance:
    """So much a second, and as much again at once as fits in `burst` seconds."""

    __slots__ = ("_burst", "_rate", "_spent_until")

    def __init__(self, rate: float, *, burst: float = 1.0) -> None:
        """`rate`: of whatever is counted, a second."""
        self._rate = rate
        self._burst = burst
        self._spent_until = 0.0
        """When what has been taken is earned again."""

    def take(self, amount: float, now: float) -> float:
        """Take it; returns for how many seconds nothing more should be taken (0: go on)."""
        self._spent_until = max(self._spent_until, now) + amount / self._rate
        wait = self._spent_until - now - self._burst
        return wait if wait > MOMENT else 0.0

    def has(self, amount: float, now: float) -> float:
        """Take it if that much is there, and return 0; else take nothing and return the seconds until it will be."""
        wait = max(self._spent_until, now) + amount / self._rate - now - self._burst
        if wait > MOMENT:
            return wait
        self._spent_until = max(self._spent_until, now) + amount / self._rate
        return 0.0


class Turnstile:
    """Lets in so many a second. Whoever has to wait is told when, each a moment of their own."""

    def __init__(self, rate: float) -> None:
        self._allowance = Allowance(rate)
        self._rate = rate
        self._given_until = 0.0
        """Through when moments to come back have been given out."""

    def enter(self, now: float) -> float:
        """0: come in. Else the seconds after which to come back."""
        wait = self._allowance.has(1, now)
        if wait <= 0:
            return 0.0
        self._given_until = max(self._given_until, now + wait) + 1 / self._rate
        if self._given_until - now > LONGEST_AWAY:  # the queue is longer than anybody should wait: begin another
            self._given_until = now + wait
        return self._given_until - now


class Visits:
    """How often each unit may connect: a unit in a loop does not use up what the others need."""

    def __init__(self, a_minute: int) -> None:
        self._rate = a_minute / 60
        self._burst = max(10.0, a_minute / 5) / self._rate
        self._units: OrderedDict[str, Allowance] = OrderedDict()
        """Those that came lately, the latest last."""

    def enter(self, unit_id: str, now: float) -> float:
        """0: come in. Else the seconds after which to come back."""
        allowance = self._units.get(unit_id)
        if allowance is None:
            allowance = self._units[unit_id] = Allowance(self._rate, burst=self._burst)
            if len(self._units) > UNITS_REMEMBERED:
                self._units.popitem(last=False)
        self._units.move_to_end(unit_id)
        return allowance.has(1, now)
