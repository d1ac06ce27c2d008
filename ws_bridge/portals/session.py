"""One portal's session, without I/O: who may say what when, and which frames are to be written now.

Frames in, frames out; the socket is `ws_bridge.portals.host`'s. Control frames are written whatever waits; events only
while the socket has room, and while it has none they wait in the outbox, the newest of each thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from contracts.frames import CloseCode
from contracts.identity import Actor
from contracts.model import Model
from contracts.portal import (
    CLOSINGS,
    MAX_FRAME_BYTES,
    READERS,
    UP,
    AnyUp,
    Bye,
    Declined,
    Hello,
    PatientStatusUpdate,
    Ping,
    Pong,
    QueueUpdate,
    Renew,
    Renewed,
    Reset,
    Subscribe,
    Subscribed,
    Topic,
    Unsubscribe,
    Welcome,
    granted,
)
from infra.portals.following import BUDGET_BYTES, Follower, Outbox, ResetReason
from infra.portals.views import Shown
from infra.tokens import Claims
from ws_bridge.session import fault

HEARTBEAT_SECONDS: Final = 20.0
SILENT_SECONDS: Final = 60.0
"""A portal that says nothing at all for this long, not even `pong`, is cut."""
STUCK_SECONDS: Final = 30.0
"""A socket without room for this long is cut."""
CONGESTED_BYTES: Final = 64 * 1024
"""Waiting in the socket: no more events for now."""
FRAMES_A_SECOND: Final = 20.0
FRAMES_AT_ONCE: Final = 100.0
"""What a portal may say: so many frames a second, and so many more after a silence."""

PONG: Final = Pong().to_json()


class Violation(Exception):
    """The portal broke the protocol; the session ends with this code. `reason` never repeats what was sent."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def hello_from(data: str | bytes, claims: Claims) -> tuple[Hello, str]:
    """The first frame, which must be a hello, and the unit it is about. Raises Violation."""
    frame = _decoded(data)
    if not isinstance(frame, Hello):
        raise Violation(CloseCode.NOT_THE_PROTOCOL, "the first frame was not a hello")
    if claims.unit is not None and frame.unit_id not in (None, claims.unit):
        raise Violation(CloseCode.NOT_ALLOWED, "the token is for another unit")
    unit_id = frame.unit_id or claims.unit
    if unit_id is None:
        raise Violation(CloseCode.NOT_THE_PROTOCOL, "the token is for the whole network: hello names the unit")
    if not granted(claims.role, frame.topics):
        raise Violation(CloseCode.NOT_ALLOWED, "the role may follow none of these topics")
    return frame, unit_id


class PortalSession(Follower):
    """From a hello that is in order to the end."""

    __slots__ = (
        "_allowance",
        "_asked",
        "_heard_at",
        "_out",
        "_pinged_at",
        "_pressed_since",
        "_through",
        "_token_unit",
        "_told",
        "_wake",
        "_wanted",
        "claims",
        "ended",
        "expires_at",
        "outbox",
    )

    def __init__(self, claims: Claims, unit_id: str, hello: Hello, *, wake: Callable[[], None], now: float) -> None:
        """`wake` is called when there is something to write; `now`: any steady clock."""
        super().__init__(unit_id, subject=claims.sub, role=claims.role, since=claims.iat, topics=hello.topics)
        self.claims = claims
        """What the token last shown says."""
        self.departments = hello.departments
        self.expires_at = claims.exp
        self.outbox = Outbox()
        self.ended: CloseCode | None = None
        """Why this end closes the session; None while it does not."""
        self._token_unit = claims.unit
        self._wanted = hello.topics
        self._wake = wake
        self._out: list[bytes] = []
        """To be written now, in this order."""
        self._asked = hello.position or 0
        self._told = self._through = 0
        self._pressed_since: float | None = None
        """Since when the socket has no room; None while it has."""
        self._heard_at = self._pinged_at = now
        self._allowance = FRAMES_AT_ONCE

    @property
    def actor(self) -> Actor:
        """Who asks, for commands."""
        return Actor(subject=self.subject, role=self.role, unit=self._token_unit)

    @property
    def position(self) -> int:
        """Through where the portal was told: from where it resumes without a gap."""
        return self._told if len(self.outbox) else self._through

    @property
    def is_pressed(self) -> bool:
        """Events wait because the socket has no room."""
        return len(self.outbox) > 0 or self._pressed_since is not None

    # What the hub says

    def begin(self, partition: int, position: int, missed: Sequence[Shown], reset: ResetReason | None) -> None:
        followed, reset = self.resumed(missed, reset)
        for shown in followed:
            self.outbox.put(shown, exactly=True)
        self._through = position
        self._told = self._asked if followed else position
        self.say(
            Welcome(
                unit_id=self.unit_id,
                partition=partition,
                position=self._told,
                topics=_listed(self.topics),
                denied=_listed(self._wanted - self.topics),
                subject=self.subject,
                role=self.role,
                expires_at=datetime.fromtimestamp(self.expires_at, UTC),
                heartbeat_seconds=HEARTBEAT_SECONDS,
                server_time=datetime.now(UTC),
            )
        )
        if reset is not None:
            self.say(Reset(position=position, reason=reset))

    def take(self, shown: Sequence[Shown], through: int) -> None:
        if self.ended is not None:
            return
        waits = self.is_pressed
        for one in shown:
            if self.follows(one):
                if waits:  # behind what was missed, while the socket has room, each is told as well
                    roomy = self._pressed_since is None and self.outbox.size < CONGESTED_BYTES
                    self.outbox.put(one, exactly=roomy)
                else:
                    self._out.append(one.frame)
        self._through = through
        if self._out or waits:
            self._wake()

    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        if self.ended is None:
            self._end(code, reason, retry_after)
            self._wake()

    # What the portal says

    def hear(self, data: str | bytes, now: float) -> Renew | PatientStatusUpdate | QueueUpdate | None:
        """A further frame; what is not answered here is given back. Raises Violation."""
        self._allowance = min(FRAMES_AT_ONCE, self._allowance + (now - self._heard_at) * FRAMES_A_SECOND) - 1
        self._heard_at = now
        if self._allowance < 0:
            raise Violation(CloseCode.TRY_LATER, "too many frames")
        frame = _decoded(data)
        match frame:
            case Renew() | PatientStatusUpdate() | QueueUpdate():
                return frame
            case Ping():
                self._put(PONG)
            case Pong():
                pass
            case Subscribe():
                self._wanted |= frame.topics
                if "departments" in frame.model_fields_set:
                    self.departments = frame.departments
                self._subscribed(denied=frame.topics)
            case Unsubscribe():
                self._wanted -= frame.topics
                self._subscribed(denied=frozenset())
            case Hello():
                raise Violation(CloseCode.NOT_THE_PROTOCOL, "hello was said twice")
        return None

    def renew(self, claims: Claims) -> bool:
        """A newer token; False where it is another account's or unit's, which changes nothing."""
        if claims.sub != self.subject or claims.unit != self._token_unit:
            self.decline("other_account", "Renew with a token of the same account and unit.")
            return False
        if claims.role not in READERS:
            self.end(CloseCode.NOT_ALLOWED, "the account's role may not follow a unit")
            return False
        self.claims = claims
        self.role = claims.role
        self.since = claims.iat
        self.expires_at = claims.exp
        self.topics = granted(self.role, self._wanted)
        return True

    def renewed(self) -> None:
        """Say that the renewal holds."""
        self.say(
            Renewed(
                expires_at=datetime.fromtimestamp(self.expires_at, UTC), role=self.role, topics=_listed(self.topics)
            )
        )

    def decline(
        self, code: str, detail: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        """A request was not taken."""
        self.say(Declined(request_id=request_id, code=code, detail=detail, retry_after_seconds=retry_after))

    def say(self, frame: Model) -> None:
        """A control frame, never dropped."""
        self._put(frame.to_json())

    # What is to be written

    def due(self, waiting: int, now: float) -> list[bytes]:
        """Everything to be written now, while so many bytes still wait in the socket."""
        frames, self._out = self._out, []
        if self.ended is not None:
            return frames
        waiting += sum(map(len, frames))
        while waiting < CONGESTED_BYTES and (shown := self.outbox.take()) is not None:
            frames.append(shown.frame)
            self._told = shown.position
            waiting += len(shown.frame)
        if waiting < CONGESTED_BYTES:
            self._pressed_since = None
        elif self._pressed_since is None:
            self._pressed_since = now
        if waiting + self.outbox.size > BUDGET_BYTES:
            self._end(CloseCode.TOO_SLOW, "the portal does not read", None)
            frames, self._out = [*frames, *self._out], []
        return frames

    def tick(self, now: float, wall: float) -> None:
        """Now and then: expiry by the wall's clock, silence and signs of life by the steady one."""
        if wall >= self.expires_at:
            self.end(CloseCode.TOKEN_NOT_VALID, "the token has expired")
        elif now - self._heard_at > SILENT_SECONDS:
            self.end(CloseCode.HELLO_TIMEOUT, "no sign of life")
        elif self._pressed_since is not None and now - self._pressed_since > STUCK_SECONDS:
            self.end(CloseCode.TOO_SLOW, "the portal does not read")
        elif now - self._pinged_at >= HEARTBEAT_SECONDS:
            self._pinged_at = now
            self.say(Ping(position=self.position, server_time=datetime.fromtimestamp(wall, UTC)))

    def _end(self, code: CloseCode, reason: str, retry_after: float | None) -> None:
        self.outbox.clear()
        bye = Bye(code=code, reason=reason, may_reconnect=CLOSINGS[code].may_reconnect, retry_after_seconds=retry_after)
        self._out.append(bye.to_json())
        self.ended = code

    def _subscribed(self, *, denied: frozenset[Topic]) -> None:
        self.topics = granted(self.role, self._wanted)
        self.say(
            Subscribed(
                topics=_listed(self.topics),
                denied=_listed(denied - self.topics),
                departments=None if self.departments is None else sorted(self.departments),
                position=self.position,
            )
        )

    def _put(self, frame: bytes) -> None:
        if self.ended is None:
            self._out.append(frame)
            self._wake()


def _decoded(data: str | bytes) -> AnyUp:
    if isinstance(data, bytes):
        raise Violation(CloseCode.NOT_THE_PROTOCOL, "a binary frame")
    if len(data) > MAX_FRAME_BYTES:
        raise Violation(CloseCode.FRAME_TOO_LARGE, "a frame was too large")
    try:
        return UP.validate_json(data)
    except ValidationError as wrong:
        raise Violation(CloseCode.NOT_THE_PROTOCOL, f"a frame was not the protocol's: {fault(wrong)}") from None


def _listed(topics: frozenset[Topic]) -> list[Topic]:
    return sorted(topics)
