"""Where a message goes: names of exchanges and queues, and routing keys made of unit ids and type names only."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = "carespine.commands"
EVENTS: Final = "carespine.events"
DEAD: Final = "carespine.dead"
DEAD_COMMANDS: Final = "dead.commands"
DEAD_UNITS: Final = "dead.units"
UNIT_LETTER_KEYS: Final = {
    "unit_expired": "units.expired",
    "unit_rejected": "units.rejected",
    "unit_settled": "units.settled",
}
"""By a letter's reason: where in the fallback exchange a unit command goes that was not done, or was after all."""


def command_key(unit_id: str, partition: int, type_name: str) -> str:
    """`unit.<unit_id>.handle.pNN.<context>.<command>`: to the handlers."""
    return f"unit.{unit_id}.handle.p{partition:02d}.{type_name}"


def partition_binding(partition: int) -> str:
    """What a partition's queue is bound by."""
    return f"unit.*.handle.p{partition:02d}.#"


def commands_queue(partition: int) -> str:
    """`commands.pNN`: one quorum queue per partition."""
    return f"commands.p{partition:02d}"


def call_key(unit_id: str, name: str) -> str:
    """`unit.<unit_id>.call.<name>`: a live call to the unit."""
    return f"unit.{unit_id}.call.{name}"


def call_off_key(unit_id: str) -> str:
    """`unit.<unit_id>.call-off.live`: nobody waits for the answer to a live call any more."""
    return f"unit.{unit_id}.call-off.live"


def feed_key(unit_id: str) -> str:
    """`unit.<unit_id>.feed.batch`: what became visible for a unit in one batch, as one message."""
    return f"unit.{unit_id}.feed.batch"


def session_key(unit_id: str) -> str:
    """`unit.<unit_id>.session.taken`: a newer session holds the unit's link."""
    return f"unit.{unit_id}.session.taken"


def unit_binding(unit_id: str) -> str:
    """Everything of one unit."""
    return f"unit.{unit_id}.#"
