"""The demo's own ledger: every command before it is sent, and what was answered. The account is checked against it.

Nothing here asks the system what it thinks it did: ids are worked out on this side, so a command whose answer was lost
stands here like any other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from contracts.envelope import Json
from contracts.ids import keyed_command_id
from infra.api import Api, Ended


@dataclass(slots=True)
class Entry:
    """One command that was sent."""

    command_id: UUID
    unit_id: str
    type: str
    body: Json
    """What was asked."""
    via: str
    """`http`, or `unit` for one made at a unit through its agent."""
    answer: Ended | None = None
    """None: sent, and no answer yet."""
    taken: bool = False
    """Somebody has said that it is safe: an outcome, or the agent's word."""


@dataclass
class Ledger:
    """All of them, by command id."""

    entries: dict[UUID, Entry] = field(default_factory=dict)
    unlike: list[UUID] = field(default_factory=list)
    """Commands whose answer named another command: never, unless something is badly wrong."""

    def sent(self, command_id: UUID, unit_id: str, type_name: str, body: Json, *, via: str = "http") -> Entry:
        """Write down a command that is about to be sent; the same id again is the same command."""
        return self.entries.setdefault(command_id, Entry(command_id, unit_id, type_name, body, via))

    def answered(self, entry: Entry, ended: Ended) -> None:
        """Write down its answer."""
        if ended.command_id not in (None, entry.command_id):
            self.unlike.append(entry.command_id)
        entry.answer = ended
        entry.taken = ended.command_id is not None

    def accepted(self, type_name: str) -> list[Entry]:
        """Those of one type that were accepted."""
        return [
            entry for entry in self.entries.values() if entry.type == type_name and entry.answer and entry.answer.done
        ]

    def by_status(self) -> Counter[str]:
        """How many ended how, as callers were told."""
        return Counter(entry.answer.status if entry.answer else "open" for entry in self.entries.values())


class WritingApi(Api):
    """A caller that writes every command down before it is sent and its answer when it is there."""

    def __init__(self, url: str, token: str, *, subject: str, ledger: Ledger, connections: int = 64) -> None:
        super().__init__(url, token, connections=connections, deadline=90.0)
        self._subject = subject
        self._ledger = ledger
        self._keys = count(1)

    async def command(self, type_name: str, unit_id: str, payload: Json, *, key: str) -> Ended:
        """As every caller's, and written down."""
        entry = self._ledger.sent(keyed_command_id(self._subject, unit_id, key), unit_id, type_name, payload)
        ended = await super().command(type_name, unit_id, payload, key=key)
        self._ledger.answered(entry, ended)
        return ended

    async def ask(self, type_name: str, unit_id: str, path: str, body: Json, *, method: str = "POST") -> Ended:
        """Give a command by its own path, under a key of ours."""
        key = f"demo-{next(self._keys)}"
        entry = self._ledger.sent(keyed_command_id(self._subject, unit_id, key), unit_id, type_name, body)
        ended = await self.give(path, body, key=key, unit_id=unit_id, method=method)
        self._ledger.answered(entry, ended)
        return ended
