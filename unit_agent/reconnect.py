"""When to come back after a link has ended, without I/O: full jitter, capped, and what the centre says goes first.

The agent never gives up. Where coming back cannot help until somebody acts (`may_reconnect` is false), it says so
loudly and tries rarely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from contracts.frames import CloseCode, closing

FIRST: Final = 0.5
LONGEST: Final = 30.0
RARELY: Final = 300.0
LONGEST_TOLD: Final = 3600.0
"""However long the centre asks us to stay away."""
STEADY: Final = 10.0
"""A session that lasted this many seconds was a good one: the next trouble is a new one."""

TELLING: Final = frozenset({CloseCode.SUPERSEDED, CloseCode.CONTESTED, CloseCode.TOKEN_NOT_VALID})
"""It may mend itself, and yet somebody should know: another agent has our link, or our credential is old."""

Draw = Callable[[float, float], float]
"""`random.uniform`."""


@dataclass(frozen=True)
class Ended:
    """How an attempt or a session ended: refused over HTTP, closed with a code, or broken (neither)."""

    why: str
    """A short code for logs and `/status`."""
    lasted: float = 0.0
    """Seconds between welcome and end; 0 when there was no welcome."""
    http_status: int | None = None
    close_code: int | None = None
    retry_after: float | None = None
    """What the centre asked for."""
    remedy: str | None = None
    """What somebody has to do, where that is known better than the status or code tells."""


@dataclass(frozen=True)
class Pause:
    """How long to stay away, and what somebody has to do about it (None: nothing, it mends itself)."""

    seconds: float
    remedy: str | None = None


_REFUSED: Final = {
    401: "the centre does not take this credential: renew it",
    403: "the credential is not this unit's: use the unit's own",
    404: "there is no unit link at this address: correct --url",
}


class Reconnecting:
    """Counts attempts and decides the pauses between them."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._attempts = 0

    def after(self, ended: Ended) -> Pause:
        """How long to stay away now."""
        if ended.lasted >= STEADY:
            self._attempts = 0
        self._attempts += 1
        told = closing(ended.close_code) if ended.close_code is not None else None
        if (told is not None and not told.may_reconnect) or ended.http_status in (403, 404):
            act = ended.remedy or (told.remedy if told is not None else _REFUSED[ended.http_status or 403])
            return Pause(self._draw(RARELY / 2, RARELY), act)
        remedy = (ended.remedy or _REFUSED[401]) if ended.http_status == 401 else None
        if told is not None and told.code in TELLING:
            remedy = told.remedy
        if ended.retry_after is not None:
            wait = min(max(ended.retry_after, 0.0), LONGEST_TOLD)
            return Pause(wait + self._draw(0, 1 + wait / 10), remedy)
        ceiling = min(FIRST * 2 ** min(self._attempts - 1, 10), LONGEST)
        # Whoever has to act first is not helped by our hurry: another agent holds the link, or the credential is old.
        return Pause(self._draw(0, ceiling) if remedy is None else self._draw(LONGEST / 6, LONGEST), remedy)
