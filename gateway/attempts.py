"""How often somebody may be wrong: failures counted by whatever they are counted by, in this process. No I/O.

What succeeds costs nothing, so a whole network may enrol through one proxy; guessing does not get far.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

REMEMBERED: Final = 20_000


class Attempts:
    """At most `most` failures at once by each key; each is forgiven after `seconds / most`."""

    def __init__(self, most: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._each = seconds / most
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By key: when all its failures will be forgiven."""

    def wait(self, keys: Sequence[str]) -> float:
        """Seconds until the next attempt is looked at; 0: now."""
        now = self._clock()
        free_at = max((self._full_at.get(key, now) for key in keys), default=now) - (self._most - 1) * self._each
        return max(0.0, free_at - now)

    def failed(self, keys: Sequence[str]) -> None:
        """An attempt was wrong."""
        now = self._clock()
        for key in keys:
            self._full_at[key] = max(self._full_at.get(key, now), now) + self._each
            self._full_at.move_to_end(key)
        while len(self._full_at) > REMEMBERED:
            self._full_at.popitem(last=False)
