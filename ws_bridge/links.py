"""Which unit's link this bridge holds: one a unit, the newest epoch."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.frames import CloseCode
from infra.unit_credentials import Revocation
from ws_bridge.link import Link
from ws_bridge.pacing import jittered


class Links:
    """Links by unit: those that are open, and those whose session is being opened."""

    def __init__(self) -> None:
        self._open: dict[str, Link] = {}
        self._opening: dict[str, list[Link]] = {}
        self.away: float | None = None
        """While the bridge leaves: for how long, at most, whoever is opened only now is to stay away."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Link]:
        """The open ones, as they are now."""
        return iter(list(self._open.values()))

    def of(self, unit_id: str) -> Link | None:
        """The unit's open link."""
        return self._open.get(unit_id)

    def listening(self, unit_id: str) -> list[Link]:
        """Whoever is to be told what happens in the unit."""
        held = self._open.get(unit_id)
        opening = self._opening.get(unit_id, [])
        return [*opening, held] if held is not None else opening

    def expect(self, link: Link) -> None:
        """Its session is about to be opened: from here on it hears how far the feed reaches."""
        self._opening.setdefault(link.unit_id, []).append(link)

    def hold(self, link: Link) -> None:
        """Its session is open. An older one of the same unit ends; if a newer one is here already, this one does."""
        self._forget(link)
        held = self._open.get(link.unit_id)
        if held is not None and held.epoch > link.epoch:
            link.end(CloseCode.SUPERSEDED, "a newer session holds the unit")
            return
        self._open[link.unit_id] = link
        if held is not None:
            held.end(CloseCode.SUPERSEDED, "a newer session holds the unit")
        if self.away is not None:
            link.end(CloseCode.GOING_AWAY, "the bridge is leaving", jittered(self.away))

    def superseded(self, unit_id: str, epoch: int) -> None:
        """Somewhere a session with this epoch was opened."""
        held = self._open.get(unit_id)
        if held is not None and held.epoch < epoch:
            held.end(CloseCode.SUPERSEDED, "a newer session holds the unit")

    def revoked(self, revocation: Revocation) -> None:
        """The unit's credential, or one of them, is void: whoever is held by it is shut out."""
        for link in self.listening(revocation.unit_id):
            code = link.credential.ended_by(revocation)
            if code is not None:
                link.end(code, "the unit's credential was revoked")

    def release(self, link: Link) -> bool:
        """The link is over; whether the unit has none left here."""
        self._forget(link)
        if self._open.get(link.unit_id) is link:
            del self._open[link.unit_id]
        return link.unit_id not in self._open and link.unit_id not in self._opening

    def _forget(self, link: Link) -> None:
        opening = self._opening.get(link.unit_id, [])
        if link in opening:
            opening.remove(link)
        if not opening:
            self._opening.pop(link.unit_id, None)
