"""Live calls on their way through: the question down the link, the answer back to whoever asked.

Each pending call has a deadline and is forgotten by then, whatever happens; a link that ends answers for its unit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from contracts.frames import Answer, Call
from contracts.live_call import LiveAnswer, LiveCall
from infra.broker.errors import BrokerUnavailable
from infra.broker.publisher import Publisher
from infra.telemetry.metrics import Metrics
from ws_bridge.link import Link

PENDING_PER_LINK: Final = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Pending:
    link: Link
    reply_to: str
    asked_at: float
    forget: asyncio.TimerHandle


class LiveCalls:
    """Questions that wait for their unit's answer."""

    def __init__(self, publisher: Publisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._pending: dict[UUID, _Pending] = {}
        self._by_link: dict[Link, set[UUID]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def forward(self, link: Link, body: bytes, reply_to: str | None) -> None:
        """A question for the unit of `link`. One nobody can be answered for, or whose time is over, is dropped."""
        try:
            call = LiveCall.model_validate_json(body)
        except ValidationError:
            log.error("not_a_live_call", unit_id=link.unit_id)
            return
        remaining = (call.deadline - datetime.now(UTC)).total_seconds()
        if reply_to is None or remaining <= 0 or call.unit_id != link.unit_id or call.call_id in self._pending:
            return
        if not link.may_speak:
            self._reply(reply_to, LiveAnswer(call_id=call.call_id, ok=False, code="unit_not_connected"))
            return
        waiting = self._by_link.setdefault(link, set())
        if len(waiting) >= PENDING_PER_LINK:
            self._reply(reply_to, LiveAnswer(call_id=call.call_id, ok=False, code="busy"))
            return
        loop = asyncio.get_running_loop()
        forget = loop.call_later(remaining, self._forget, call.call_id, "timeout")
        self._pending[call.call_id] = _Pending(link, reply_to, loop.time(), forget)
        waiting.add(call.call_id)
        frame = Call(epoch=link.epoch, call_id=call.call_id, name=call.name, body=call.body, deadline=call.deadline)
        link.say(frame.to_json())

    def answered(self, link: Link, answer: Answer) -> None:
        """The unit's answer; too late, or to a question of another link, it is dropped."""
        pending = self._pending.get(answer.call_id)
        if pending is None or pending.link is not link:
            return
        self._forget(answer.call_id, "answered" if answer.ok else "failed")
        code = None if answer.ok else (answer.code or "failed")[:80]
        self._reply(pending.reply_to, LiveAnswer(call_id=answer.call_id, ok=answer.ok, body=answer.body, code=code))

    def call_off(self, call_id: UUID) -> None:
        """Whoever asked has left: the unit's answer is dropped, and its place is free for another question."""
        if call_id in self._pending:
            self._forget(call_id, "left")

    def gone(self, link: Link) -> None:
        """The link is over: whoever waits for its unit hears so at once."""
        for call_id in list(self._by_link.get(link, ())):
            pending = self._pending[call_id]
            self._forget(call_id, "gone")
            self._reply(pending.reply_to, LiveAnswer(call_id=call_id, ok=False, code="unit_not_connected"))
        self._by_link.pop(link, None)

    def _forget(self, call_id: UUID, result: str) -> None:
        pending = self._pending.pop(call_id)
        pending.forget.cancel()
        self._by_link[pending.link].discard(call_id)
        seconds = asyncio.get_running_loop().time() - pending.asked_at
        self._metrics.unit_calls.labels(result).inc()
        self._metrics.unit_call_duration_seconds.labels(result).observe(seconds)

    def _reply(self, reply_to: str, answer: LiveAnswer) -> None:
        try:
            self._publisher.publish_nowait("", reply_to, answer.to_json(), correlation_id=str(answer.call_id))
        except BrokerUnavailable as trouble:  # whoever asked runs into the deadline
            self._metrics.publish_failures.labels(trouble.reason).inc()
