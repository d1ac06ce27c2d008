"""One reader of a unit's events: what it follows, and what waits while it does not keep up. No I/O.

What waits is conflated: of each thing only the newest event, in the order of positions, so a reader that comes back to
speed is never sent what is out of date, and its position always means that everything up to it was told or replaced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

from contracts.frames import CloseCode
from contracts.identity import Role
from contracts.portal import Topic, granted
from infra.portals.views import Shown

BUDGET_BYTES: Final = 1024 * 1024
"""Waiting for one reader, in the socket and here: whoever lets this pile up is cut."""
EACH_COSTS: Final = 200
"""Bytes a waiting event costs besides its text."""

ResetReason = Literal["too_far_back", "unknown_position"]


class Outbox:
    """Events that wait, the newest of each thing."""

    __slots__ = ("_waiting", "conflated", "size")

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Shown] | None = None
        """None until something has to wait, which for most readers is never."""
        self.size = 0
        """Bytes."""
        self.conflated = 0
        """Events that a newer one made needless."""

    def __len__(self) -> int:
        return 0 if self._waiting is None else len(self._waiting)

    def put(self, shown: Shown, *, exactly: bool = False) -> None:
        """One more that waits; an older one with its key no longer does. `exactly`: this one is not replaced."""
        if self._waiting is None:
            self._waiting = OrderedDict()
        key = f"@{shown.position}" if exactly else shown.key
        older = self._waiting.pop(key, None)
        if older is not None:
            self.size -= len(older.frame) + EACH_COSTS
            self.conflated += 1
        self._waiting[key] = shown
        self.size += len(shown.frame) + EACH_COSTS

    def take(self) -> Shown | None:
        """The one that waits longest, or None."""
        if not self._waiting:
            return None
        _, shown = self._waiting.popitem(last=False)
        self.size -= len(shown.frame) + EACH_COSTS
        return shown

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting = None
        self.size = 0


class Follower(ABC):
    """Who follows a unit: the hub calls it on the event loop, it returns at once and never raises."""

    __slots__ = ("departments", "role", "since", "subject", "topics", "unit_id")

    def __init__(self, unit_id: str, *, subject: str, role: Role, since: int, topics: frozenset[Topic]) -> None:
        self.unit_id = unit_id
        self.subject = subject
        self.role = role
        self.since = since
        """When its token was issued, in seconds since the epoch: what was revoked later does not let in."""
        self.topics = granted(role, topics)
        self.departments: frozenset[str] | None = None
        """None: all."""

    def follows(self, shown: Shown) -> bool:
        """Whether it is to be told of this."""
        return shown.topic in self.topics and (
            self.departments is None or shown.department is None or shown.department in self.departments
        )

    def resumed(self, missed: Sequence[Shown], reset: ResetReason | None) -> tuple[list[Shown], ResetReason | None]:
        """What of that it is told before what comes; too much of it is a reset."""
        followed = [shown for shown in missed if self.follows(shown)]
        if sum(len(shown.frame) for shown in followed) > BUDGET_BYTES / 2:
            return [], "too_far_back"
        return followed, reset

    @abstractmethod
    def begin(self, partition: int, position: int, missed: Sequence[Shown], reset: ResetReason | None) -> None:
        """It follows from `position` on; `missed` came before, or too much did (`reset`)."""

    @abstractmethod
    def take(self, shown: Sequence[Shown], through: int) -> None:
        """This became visible, everything through that position."""

    @abstractmethod
    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """It may not, or cannot, follow any more."""
