"""Stored events into the read tables: opened, seen as facts of this release, applied - and what cannot be, left out.

Works in the caller's transaction. `together` is the ordinary way and applies all or raises one of `AT_FAULT`; then
`isolated`, in a new transaction or savepoint, applies what can be applied and tells what could not.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.catalogue import UnknownWord
from infra.database import Connection
from infra.event_log import StoredEvent
from infra.sealing import Opened, SealBroken, Sealer
from projections.batch import BAD_FACT, LeftOut, Reactions, Seen, Step, left_out_by, plan, run_isolated, run_steps, seen

AT_FAULT = (*BAD_FACT, SealBroken, UnknownWord)
"""What one event can be at fault for; one of a newer release counts too. Anything else is trouble: wait."""


class Applying:
    """Applies events to some read models."""

    def __init__(self, sealer: Sealer, reactions: Reactions) -> None:
        self._sealer = sealer
        self._reactions = reactions

    async def together(self, connection: Connection, events: Sequence[StoredEvent]) -> tuple[list[Opened], list[Step]]:
        """All events in as few statements as possible; in pipeline mode an error may show only when it ends."""
        opened = await self._sealer.open(connection, events)
        steps = plan(map(seen, opened), self._reactions.by_type)
        await run_steps(connection, steps)
        return opened, steps

    async def isolated(
        self, connection: Connection, events: Sequence[StoredEvent]
    ) -> tuple[list[Opened], list[LeftOut]]:
        """Each read model, and where it fails each fact, on its own; outside pipeline mode."""
        opened, broken = await self._opened_singly(connection, events)
        facts, unknown = self._seen_singly(opened)
        return opened, [*broken, *unknown, *await run_isolated(connection, facts, self._reactions)]

    async def _opened_singly(
        self, connection: Connection, events: Sequence[StoredEvent]
    ) -> tuple[list[Opened], list[LeftOut]]:
        """What does not open is shown without its sealed fields, and noted for whoever would have shown them."""
        opened: list[Opened] = []
        broken: list[LeftOut] = []
        for event in events:
            try:
                opened += await self._sealer.open(connection, [event])
            except AT_FAULT as why:
                opened.append(Opened(event, event.payload, True))
                reactions = self._reactions.by_type.get(event.type, ())
                broken += [left_out_by(reaction.read_model, event, why) for reaction in reactions]
        return opened, broken

    def _seen_singly(self, opened: Sequence[Opened]) -> tuple[list[Seen], list[LeftOut]]:
        """An event of a newer release may concern any read model: noted for all of them."""
        facts: list[Seen] = []
        unknown: list[LeftOut] = []
        for one in opened:
            try:
                facts.append(seen(one))
            except AT_FAULT as why:
                unknown += [left_out_by(model, one.event, why) for model in self._reactions.models]
        return facts, unknown
