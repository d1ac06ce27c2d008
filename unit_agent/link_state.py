"""What an agent's parts share about its link: where it stands, and who is to be woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from contracts.envelope import Json
from unit_agent.room import Room
from unit_agent.store import Store

if TYPE_CHECKING:
    from infra.telemetry.metrics import Metrics  # only an agent with a local API loads it

SNAPSHOT_BEYOND: Final = 50_000
"""Events an agent rather catches up with one by one than being told what they came to."""


def elapsed() -> float:
    """Seconds since some moment, those asleep among them where the system counts them."""
    clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass
class LinkState:
    """What `/status` and the metrics tell of the link."""

    state: str = "starting"
    """starting · connecting · catching_up · live · away (comes back by itself) · stopped (somebody has to act)"""
    epoch: int = 0
    head: int = 0
    why: str | None = None
    """Why the link is away; None while it is up."""
    remedy: str | None = None
    """What somebody has to do about it; None: nothing."""
    retry_at: datetime | None = None
    connected_at: datetime | None = None
    last_contact: datetime | None = None
    last_ack: datetime | None = None
    sessions: int = 0
    clock_skew: timedelta = field(default_factory=timedelta)
    """How far the centre's clock was ahead of ours when it was last heard of."""
    _told: tuple[datetime, float] | None = None
    """The centre's time and ours, by a clock that nobody sets, when it was last heard of in this life."""

    @property
    def connected(self) -> bool:
        """There is a session right now."""
        return self.state in ("catching_up", "live")

    def heard_time(self, centre: datetime) -> None:
        """The centre has said what time it is."""
        self._told = centre, elapsed()

    def now(self) -> datetime:
        """The time as the centre has it, as far as we know; somebody setting this machine's clock does not move it."""
        if self._told is None:
            return datetime.now(UTC) + self.clock_skew
        centre, then = self._told
        return centre + timedelta(seconds=elapsed() - then)


@dataclass
class Shared:
    """What outlives a connection and is used by it."""

    unit_id: str
    version: str
    store: Store
    state: LinkState
    runnable: Callable[[], None]
    """Told that unit commands may run that could not before."""
    snapshot_beyond: int | None = SNAPSHOT_BEYOND
    """Further behind than this many events, the unit's state is taken instead of them; None: never."""
    room: Room = field(default_factory=Room)
    """Whether the disk has room for anything new."""
    reports: dict[str, Callable[[], Json]] = field(default_factory=dict)
    """What further parts of this agent have to tell in `/status`, by name; asked in the store's turn."""
    measures: list[Callable[[Metrics], object]] = field(default_factory=list)
    """What sets further parts' metrics, in the store's turn."""
    outbox_changed: asyncio.Event = field(default_factory=asyncio.Event)
    unanswered: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be commands whose outcome is to be asked for."""
