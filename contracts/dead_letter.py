"""A dead letter on its way to the desk: what could not be handled, why, and what it holds up."""

from __future__ import annotations

from enum import StrEnum
from uuid import NAMESPACE_OID, UUID, uuid5

from contracts.model import Instant, Model

MESSAGE_TYPE = "carespine.dead_letter"
"""AMQP `type` of a letter written by a handler; anything else in a fallback queue is the dead message itself."""


class Reason(StrEnum):
    """Why a message could not be handled."""

    UNDECODABLE = "undecodable"
    """Not a command envelope of this release."""
    UNKNOWN_COMMAND = "unknown_command"
    """An envelope whose command this release does not know."""
    WRONG_PARTITION = "wrong_partition"
    """Routed to a partition that does not hold its unit."""
    BUG = "bug"
    """The handler raised something that is no refusal."""
    CRASHED = "crashed"
    """Handlers died while it was handled alone, more than once."""
    PARKED = "parked"
    """Waits behind an unresolved letter of the same stream."""
    DELIVERY_LIMIT = "delivery_limit"
    """The broker gave up delivering it."""
    UNIT_EXPIRED = "unit_expired"
    """A unit command was final by its deadline without a word from the unit; blocks nothing."""
    UNIT_REJECTED = "unit_rejected"
    """A unit, or the system at its site, would not do what it was asked; blocks nothing."""
    UNIT_SETTLED = "unit_settled"
    """No letter of its own: what a letter about a unit command told of has been dealt with elsewhere."""


UNIT_REASONS = frozenset({Reason.UNIT_EXPIRED, Reason.UNIT_REJECTED, Reason.UNIT_SETTLED})
OF_A_UNIT = "unit"
"""`origin` of a letter about a unit command."""


class DeadLetter(Model):
    """One letter. `message` is the whole original message as text (base64 when it is no UTF-8)."""

    letter_id: UUID
    reason: Reason
    error_type: str | None = None
    """Of an exception; of a unit command what was asked and, after a `/`, the unit's code."""
    error_stack: str | None = None
    """File, line and function of each frame; never values."""
    fingerprint: str
    """Equal for equal causes: reason, error type, command type, place in the code."""
    origin: str
    """The queue it was consumed from, or `unit`."""
    code_version: str
    failed_at: Instant
    partition: int | None = None
    stream: str | None = None
    block_id: UUID | None = None
    """The letter that blocks the stream, itself for the first one."""
    seq: int = 0
    """Place in the order of the block."""
    message: str
    base64: bool = False
    resolution: str | None = None
    """With `unit_settled`: how."""


def letter_id_for(command_id: UUID) -> UUID:
    """The same command has one letter, however often it dies."""
    return uuid5(NAMESPACE_OID, f"carespine.dead_letter:{command_id}")
