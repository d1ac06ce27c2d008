"""What one link may send up: so many frames and bytes a second. A link over it is read from more slowly.

So a unit that floods waits in its own line, and the others' frames between its own. Slowness is all that honest agents
with much to say ever notice; one that pours out frames nobody waits for is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from contracts.frames import Ask, CloseCode, Renew, Submit
from contracts.model import Model
from infra.telemetry.metrics import Metrics
from ws_bridge.pacing import Allowance
from ws_bridge.session import Violation

FLOOD_SECONDS: Final = 10.0
"""Held back for this long, and mostly not for commands: cut."""
PAUSE_SECONDS: Final = 2.0
"""Within its rate for this long, a link is no longer held back."""
COSTS: Final[dict[type[Model], int]] = {Ask: 10, Renew: 20}
"""Frames that make work for others count as so many."""


class Line:
    """One link's."""

    __slots__ = ("_bytes", "_clock", "_commands", "_frames", "_held_at", "_held_since", "_metrics", "_others")

    def __init__(
        self, frames_a_second: float, bytes_a_second: float, clock: Callable[[], float], metrics: Metrics
    ) -> None:
        self._frames = Allowance(frames_a_second)
        self._bytes = Allowance(bytes_a_second)
        self._clock = clock
        self._metrics = metrics
        self._held_since: float | None = None
        """Since when it has been held back without a pause; None while it is not."""
        self._held_at = 0.0
        """Until when it was held back the last time."""
        self._commands = 0
        """Commands since then."""
        self._others = 0

    def arrived(self, size: int) -> float:
        """A frame of so many bytes; returns for how long nothing is to be read now. Raises Violation on a flood."""
        now = self._clock()
        wait = max(self._frames.take(1, now), self._bytes.take(size, now))
        if not wait:
            if self._held_since is not None and now - self._held_at > PAUSE_SECONDS:
                self._held_since = None
            return 0.0
        self._held_at = now + wait
        if self._held_since is None:
            self._held_since, self._commands, self._others = now, 0, 0
            self._metrics.unit_throttled.inc()
        elif now - self._held_since > FLOOD_SECONDS and self._others > self._commands:
            raise Violation(CloseCode.TRY_LATER, "more frames than a link may send")
        return wait

    def asked(self, frame: Model) -> None:
        """What the frame was."""
        kind = type(frame)
        if kind in COSTS:
            self._frames.take(COSTS[kind] - 1, self._clock())
        if self._held_since is not None:
            if kind is Submit:
                self._commands += 1
            else:
                self._others += 1
