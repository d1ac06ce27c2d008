"""Whose portals are closed before their tokens run out: words of the Unit aggregate."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.identity import ADMINS, Role
from contracts.ids import UnitId
from contracts.model import Command, Event


class RevokePortals(Command):
    """Close the unit's portals of these roles and this account now; tokens issued until now open none any more."""

    context: ClassVar[str] = "unit"
    may: ClassVar[frozenset[Role]] = ADMINS | {Role.OPS}
    roles: list[Role] = Field(default_factory=list, max_length=len(Role))
    """None named: whatever the role."""
    account: str | None = Field(None, min_length=1, max_length=100)
    """One account's id; None: whoever has such a role."""
    reason: str = Field(min_length=1, max_length=200)


class PortalsRevoked(Event):
    """Tokens of these roles and this account, issued until this was recorded, open no portal of the unit any more."""

    context: ClassVar[str] = "unit"
    unit_id: UnitId
    roles: list[Role]
    account: str | None = None
    reason: str
