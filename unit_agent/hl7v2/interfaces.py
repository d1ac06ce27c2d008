"""An agent's HL7 v2 interfaces, put together: listening, sending, and what `/status` and the metrics tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from contracts.envelope import Json
from unit_agent.connectors import Connector
from unit_agent.hl7v2 import inbox, outgoing
from unit_agent.hl7v2.listener import Listener
from unit_agent.hl7v2.options import Listen, Send
from unit_agent.hl7v2.sender import Sender
from unit_agent.link_state import Shared

if TYPE_CHECKING:
    from infra.telemetry.metrics import Metrics


@asynccontextmanager
async def interfaces(listen: Listen | None, send: Send | None, shared: Shared) -> AsyncIterator[dict[str, Connector]]:
    """Listen and send while the block runs; gives the connectors for unit commands, by type. Raises OSError."""
    shared.store.learners.append(inbox.learn)
    await shared.store.run(inbox.prepare, shared.store)
    sender = None if send is None else Sender(send, shared)
    if sender is not None:
        await sender.prepare()
    listener = None if listen is None else Listener(listen, shared)
    told = _Told(shared, listener, sender)
    shared.reports["hl7"] = told.report
    shared.measures.append(told.measure)
    async with AsyncExitStack() as closing:
        if listener is not None:
            await closing.enter_async_context(listener.serving())
        async with asyncio.TaskGroup() as group:
            task = None if sender is None else group.create_task(sender.serve())
            try:
                yield {} if sender is None or send is None else dict.fromkeys(send.commands, sender)
            finally:
                if task is not None:
                    task.cancel()


class _Told:
    """What the interfaces tell of themselves; called in the store's turn."""

    def __init__(self, shared: Shared, listener: Listener | None, sender: Sender | None) -> None:
        self._db = shared.store.db
        self._listener = listener
        self._sender = sender
        self._counted: dict[str, int] = {}

    def report(self) -> Json:
        """For `/status`."""
        told: Json = {}
        if self._listener is not None:
            kept = inbox.count(self._db)
            told["listen"] = asdict(self._listener.figures) | {"port": self._listener.port, "kept": kept}
        if self._sender is not None:
            told["send"] = self._sender.report() | outgoing.report(self._db)
        return told

    def measure(self, metrics: Metrics) -> None:
        """For `/metrics`."""
        if self._listener is not None:
            figures = asdict(self._listener.figures)
            for result in ("taken", "repeated", "refused"):
                metrics.agent_hl7_received.labels(result).inc(figures[result] - self._counted.get(result, 0))
                self._counted[result] = figures[result]
        if self._sender is not None:
            counts = outgoing.report(self._db)
            metrics.agent_hl7_waiting.labels("waiting").set(counts["waiting"])
            metrics.agent_hl7_waiting.labels("set_aside").set(counts["setAside"])
