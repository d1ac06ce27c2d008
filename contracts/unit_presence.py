"""A unit that cannot be reached, and is back: what Carespine itself notes of a unit's link, and the facts it becomes.

Only what lasts is a fact; every coming and going of a link is in the table of sessions (`ws_bridge.unit_sessions`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.identity import Role
from contracts.ids import UnitId
from contracts.model import Command, Event, Instant


class _PresenceCommand(Command):
    context: ClassVar[str] = "unit"
    may: ClassVar[frozenset[Role]] = frozenset()


class NoteUnitUnreachable(_PresenceCommand):
    """The unit has had no link for longer than a line may be down."""

    since: Instant
    """When its link ended, or was last heard of."""


class NoteUnitBack(_PresenceCommand):
    """The unit has a link again."""

    away_seconds: int = Field(ge=0)


class _PresenceEvent(Event):
    context: ClassVar[str] = "unit"
    unit_id: UnitId


class UnitUnreachable(_PresenceEvent):
    """The unit has been without a link for too long; what is meant for it waits."""

    since: Instant


class UnitBack(_PresenceEvent):
    """The unit has a link again after it was told to be unreachable."""

    away_seconds: int


PresenceCommands = NoteUnitUnreachable | NoteUnitBack
PresenceEvents = UnitUnreachable | UnitBack
