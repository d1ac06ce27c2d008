"""One unit's link at this bridge: its session on its socket. Sends without waiting, so one slow unit holds up nobody.

Back-pressure is the feed's window and the bytes waiting in the socket: what does not go out now is read from the log
when the unit has caught up. A unit that neither reads nor acknowledges is cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from websockets.asyncio.server import broadcast

from contracts.frames import Bye, CloseCode
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims
from ws_bridge.admission import Visitor
from ws_bridge.credentials import LinkCredential
from ws_bridge.pacing import jittered
from ws_bridge.receipts import OnTheirWay
from ws_bridge.session import Session, Tellable

CONGESTED_BYTES: Final = 512 * 1024
"""Waiting in the socket: no more facts for now."""
BUDGET_BYTES: Final = 4 * 1024 * 1024
"""Waiting in the socket: whoever lets this pile up is cut."""
ACK_SECONDS: Final = 30.0
"""Facts unacknowledged for this long without any progress: cut."""
SWAP_SECONDS: Final = 180.0
"""A snapshot unacknowledged for this long: cut."""
SUSPENDED_AWAY: Final = 60.0
"""When a suspended unit is to come back, at most; each is told a random share of it."""
_ENDED_BY: Final = {
    CloseCode.UNIT_SUSPENDED: "the unit is suspended",
    CloseCode.UNIT_NOT_FOUND: "the unit is retired",
    CloseCode.CREDENTIAL_REVOKED: "the unit's credential was revoked",
    CloseCode.TOKEN_NOT_VALID: "the token was revoked with another key: get a new one",
}
"""What a unit is told when a fact of its own ends its link."""

Clock = Callable[[], float]


class Link:
    """From the upgrade to the close. Everything here runs on the event loop and returns at once."""

    __slots__ = (
        "_clock",
        "_metrics",
        "_moved_at",
        "_noted",
        "_sent",
        "credential",
        "ended",
        "orders",
        "partition",
        "queued",
        "session",
        "socket",
        "speaks_until",
        "unit_id",
    )

    def __init__(self, socket: Visitor, claims: Claims, metrics: Metrics, clock: Clock) -> None:
        if claims.unit is None:
            raise ValueError("a link is one unit's")
        self.unit_id: Final = claims.unit
        self.credential = LinkCredential.of(claims, time.time())
        """What it is held by; another one once it was renewed."""
        self.socket: Final = socket
        self.session: Final = Session(claims.unit)
        self.partition = 0
        self.ended: CloseCode | None = None
        """Why this end closes, or has closed, the link; None while it does not."""
        self.orders: Final = OnTheirWay()
        """Unit commands among what was sent and is not acknowledged."""
        self.queued = False
        """It waits for its turn at the log (`ws_bridge.catch_up`)."""
        self.speaks_until = 0.0
        """Clock time at which the session's lease ends: after it the unit is told nothing until it is renewed."""
        self._metrics = metrics
        self._clock = clock
        self._noted = 0
        """How far the feed was seen to reach before the session was open."""
        self._sent: list[tuple[int, float, datetime | None]] = []
        """(through, when sent, when its last fact was recorded) of each unacknowledged frame; None for a snapshot."""
        self._moved_at = 0.0
        """When the unit last made progress; counts while something is unacknowledged."""

    @property
    def epoch(self) -> int:
        """The session's; 0 before it is open."""
        return self.session.epoch

    @property
    def is_open(self) -> bool:
        """Welcomed and not closing."""
        return self.session.is_open and self.ended is None

    @property
    def may_speak(self) -> bool:
        """Its lease has not ended, so no other bridge can be thought to hold the unit."""
        return self._clock() < self.speaks_until

    def open(self, *, epoch: int, partition: int, head: int, speaks_until: float) -> None:
        """The session holds its unit."""
        self.partition = partition
        self.speaks_until = speaks_until
        self.session.open(epoch=epoch, head=head)
        self.session.feed.exists(self._noted)

    def wants_page(self) -> bool:
        """Something is to be read from the log for it, and there is room to send it."""
        has_room = self.session.feed.page() is not None and self._waiting() < CONGESTED_BYTES
        return has_room and self.is_open and self.may_speak

    def deliver(self, after: int, through: int, facts: Sequence[Tellable]) -> None:
        """A live batch or a page of the log: everything of the unit in (after, through]."""
        if not self.session.is_open:
            self._noted = max(self._noted, through)
            return
        if self.ended is not None:
            return
        standing = self.session.standing(facts) or self.credential.ended_by_any(facts)
        if standing is not None:
            away = jittered(SUSPENDED_AWAY) if standing is CloseCode.UNIT_SUSPENDED else None
            self.end(standing, _ENDED_BY[standing], away)
            return
        if self._waiting() >= CONGESTED_BYTES or not self.may_speak:
            self.session.feed.exists(through)
            return
        now, told = self._clock(), self.session.feed.told
        for frame in self.session.tell(after, through, facts):
            if not self._sent:
                self._moved_at = now
            self._sent.append((self.session.feed.told, now, facts[-1].recorded_at))
            self.say(frame)
        self.orders.sent(facts, after=told, through=self.session.feed.told, at=datetime.now(UTC))

    def was_told_all(self, position: int, facts: Sequence[Tellable]) -> None:
        """Every part of a snapshot is sent, with these facts in it: the others go on after its position."""
        now, told = self._clock(), self.session.feed.told
        self.session.feed.jump(position)
        self.orders.sent(facts, after=told, through=position, at=datetime.now(UTC))
        # The whole state is written before it is acknowledged, which takes a small machine its time.
        self._moved_at = now + SWAP_SECONDS - ACK_SECONDS
        self._sent.append((position, now, None))

    def acknowledged(self, at: datetime) -> None:
        """The feed's acked position has moved."""
        now = self._moved_at = self._clock()
        acked = self.session.feed.acked
        while self._sent and self._sent[0][0] <= acked:
            _, sent_at, recorded_at = self._sent.pop(0)
            if recorded_at is None:
                continue
            self._metrics.unit_delivery_duration_seconds.observe(now - sent_at)
            self._metrics.unit_feed_lag_seconds.observe(max(0.0, (at - recorded_at).total_seconds()))

    def is_stuck(self) -> bool:
        """The unit was sent facts and has acknowledged nothing for too long."""
        return bool(self._sent) and self._clock() - self._moved_at > ACK_SECONDS

    def say(self, frame: bytes) -> None:
        """Send a frame; over budget the link ends instead."""
        if self.ended is not None:
            return
        if self._waiting() > BUDGET_BYTES:
            self.end(CloseCode.TOO_SLOW, "the unit does not read")
            return
        broadcast([self.socket], frame, text=True)

    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """Say why and when to come back, then close. Only the first reason counts."""
        if self.ended is not None:
            return
        bye = Bye(code=code, reason=reason, retry_after_seconds=retry_after)
        broadcast([self.socket], bye.to_json(), text=True)
        self.ended = code
        self._metrics.unit_closes.labels(str(int(code))).inc()
        if code is CloseCode.SUPERSEDED:
            self._metrics.unit_fenced.inc()
        # The close waits for the other end's answer; the handler of this connection waits for the close.
        closing = asyncio.ensure_future(self.socket.close(code, reason))
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _waiting(self) -> int:
        return self.socket.transport.get_write_buffer_size()
