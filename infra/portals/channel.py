"""One unit's events as this process shows them: where they stand, what was shown lately, who follows. No I/O.

Every offer of facts - a live batch or a page of the log, early, late, twice or never - goes through one rule: what was
shown is skipped, what overlaps is cut, and what leaves a gap (or whose stream is not known that far) is read from the
log. So whoever follows sees every event once, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from contracts.envelope import Fact
from contracts.identity import Role
from infra.portals.following import Follower
from infra.portals.views import Shown, Views

KEPT: Final = 200
"""Events kept for those who come back after a moment, so that a thousand of them do not ask the database."""

REVOKED: Final = "unit.PortalsRevoked"
RETIRED: Final = "unit.UnitRetired"


class Revocations:
    """Since when tokens of which roles and accounts let nobody in."""

    def __init__(self) -> None:
        self._since: dict[tuple[str | None, str | None], datetime] = {}
        """(role or None for all, subject or None for all) -> instant"""

    def learn(self, fact: Fact) -> None:
        """A fact of the unit; only revocations matter."""
        if fact.type != REVOKED:
            return
        for role in fact.payload.get("roles") or [None]:
            self._since[role, fact.payload.get("account")] = fact.recorded_at

    def forbid(self, role: Role, subject: str, issued: int) -> bool:
        """Whether a token of that role and account, issued then, was revoked. Whole seconds: in doubt it was."""
        return any(
            of_role in (None, role) and of_subject in (None, subject) and issued <= at.timestamp()
            for (of_role, of_subject), at in self._since.items()
        )


class Channel:
    """A unit, for as long as somebody here follows it."""

    def __init__(self, unit_id: str, partition: int, position: int, views: Views) -> None:
        self.unit_id: Final = unit_id
        self.partition: Final = partition
        self.position = position
        """Through where everything was shown."""
        self.followers: set[Follower] = set()
        self.joining = 0
        """Those who are about to follow."""
        self.empty_since: float | None = None
        """When the last one left, by the loop's clock; None while there are any."""
        self.queued = False
        """It waits for its turn at the log."""
        self.revocations = Revocations()
        self.is_retired = False
        self._wanted = position
        self._views = views
        self._lately: deque[Shown] = deque()
        self._lately_after = position

    @property
    def is_behind(self) -> bool:
        """There is something in the log that was not shown."""
        return self._wanted > self.position

    @property
    def is_needed(self) -> bool:
        """Somebody follows, or is about to."""
        return bool(self.followers) or self.joining > 0

    def exists(self, position: int) -> None:
        """The unit's events are known to reach this far."""
        self._wanted = max(self._wanted, position)

    def nothing_until(self, position: int) -> None:
        """The log has nothing to show of the unit up to here."""
        self.position = max(self.position, position)

    def misses(self, facts: Iterable[Fact]) -> dict[str, int]:
        """Streams that must be read before these facts can be shown, and below which version."""
        fresh = [fact for fact in facts if fact.position > self.position]
        return needed(self._views, fresh)

    def learn(self, earlier: Iterable[Fact], before: dict[str, int]) -> None:
        """What `misses` asked for."""
        self._views.learn(earlier, before)

    def offer(self, after: int, through: int, facts: Sequence[Fact]) -> list[Shown] | None:
        """What of `facts`, all of the unit's in (after, through], is shown now; None: it must be read from the log."""
        if through <= self.position:
            return []
        fresh = [fact for fact in facts if fact.position > self.position]
        if after > self.position or self._views.misses(fresh):
            self.exists(through)
            return None
        shown = []
        for fact in fresh:
            self.notice(fact)
            one = self._views.show(self.unit_id, fact)
            if one is not None:
                shown.append(one)
        self.position = through
        self._keep(shown)
        return shown

    def notice(self, fact: Fact) -> None:
        """What a fact means for who may follow."""
        self.revocations.learn(fact)
        self.is_retired = self.is_retired or fact.type == RETIRED

    def recent(self, after: int) -> list[Shown] | None:
        """What was shown after a position, if that is still kept."""
        if after < self._lately_after:
            return None
        return [shown for shown in self._lately if shown.position > after]

    def _keep(self, shown: Sequence[Shown]) -> None:
        self._lately.extend(shown)
        while len(self._lately) > KEPT:
            self._lately_after = self._lately.popleft().position


def needed(views: Views, facts: Sequence[Fact]) -> dict[str, int]:
    """Streams that these views miss for the facts, with the version from which the facts go on."""
    missing = set(views.misses(facts))
    first: dict[str, int] = {}
    for fact in facts:
        if fact.stream in missing:
            first.setdefault(fact.stream, fact.stream_version)
    return first
