"""A message on its way through the handlers: what came from the queue, and what has become known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from contracts.dead_letter import Reason
from contracts.envelope import CommandEnvelope
from contracts.model import Command


class Message(Protocol):
    """What is needed of a delivery."""

    @property
    def body(self) -> bytes:
        """As published."""

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before to somebody who did not acknowledge it."""

    @property
    def tag(self) -> int:
        """What it is acknowledged by."""


@dataclass(slots=True)
class Item:
    """One message on its way."""

    partition: int
    message: Message
    attempted: bool = False
    """Counted in `command_attempts` for this delivery."""
    envelope: CommandEnvelope | None = None
    command: Command | None = None
    dead: Reason | None = None
    """Why it cannot even be decided; None: it can."""
    bug: BaseException | None = None
    unanswerable: bool = False
    """Not even its receipt can be written: the desk gets it as it is."""
