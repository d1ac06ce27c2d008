"""Handing a unit command to the site: what a connector can say, and the one that is built in (`webhook` is the other).

A connector says what it knows and no more: done, not done, or unsure. What follows from that (again, ask, give up) is
`unit_agent.execution`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from contracts.envelope import Json
from unit_agent.mailbox import Order


@dataclass(frozen=True)
class Done:
    """The site did it."""

    result: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Declined:
    """The site will not do it; asking again would not change that."""

    code: str
    result: Json | None = None


@dataclass(frozen=True)
class NotDone:
    """The site has certainly not done it."""


@dataclass(frozen=True)
class Unsure:
    """Nobody answered, or not usably: it may have been done."""

    why: str


class Connector(Protocol):
    """What a site's system offers for durable commands."""

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """Do it. May be called again for the same order after `Unsure`; the order's id tells that it is the same."""
        ...

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """Whether it was done; None: the site cannot tell, now or ever."""
        ...

    async def still_wanted(self, order: Order) -> bool | Unsure:
        """Whether a command that comes late still makes sense."""
        ...


class BuiltIn:
    """Without a system at the site: a command of any type is taken note of in the journal, and that is all."""

    async def run(self, order: Order) -> Done:
        """Noted; the journal entry is the work, so it is done in the moment its outcome is written."""
        return Done({"handledBy": "agent"})

    async def ask(self, order: Order) -> NotDone:
        """An outcome that was not written was not reached."""
        return NotDone()

    async def still_wanted(self, order: Order) -> bool:
        """Taking note of something late is harmless."""
        return True
