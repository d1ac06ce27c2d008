"""Handing a unit command to the site: what a connector can say, the one that is built in, and the choice by type.

The others are `webhook`, `program` and `hl7v2.sender`.

A connector says what it knows and no more: done, not done, or unsure. What follows from that (again, ask, give up) is
`unit_agent.execution`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    after: float = 0.0
    """Seconds the site wants to be left alone for."""


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


class ByType:
    """Each type's own connector, and one for all the others."""

    def __init__(self, by_type: Mapping[str, Connector], otherwise: Connector) -> None:
        self._by_type = by_type
        self._otherwise = otherwise

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """Do it, where it belongs."""
        return await self._of(order).run(order)

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """Ask where it was to be done."""
        return await self._of(order).ask(order)

    async def still_wanted(self, order: Order) -> bool | Unsure:
        """The opinion of where it is to be done."""
        return await self._of(order).still_wanted(order)

    def _of(self, order: Order) -> Connector:
        return self._by_type.get(order.type, self._otherwise)


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
