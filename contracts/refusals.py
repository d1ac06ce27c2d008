"""Refusals that belong to no aggregate: the command itself cannot be taken as it is."""

from __future__ import annotations

from contracts.model import Refusal


class CommandIdReused(Refusal):
    """This command id (or Idempotency-Key) was used before for another request; use a new one."""


class VersionConflict(Refusal):
    """What you decided on has changed since; read it again and decide anew."""


class NotOfThisUnit(Refusal):
    """This id belongs to another unit."""
