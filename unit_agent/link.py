"""The agent's end of one session, without I/O: what was received, what is on disk, which commands are on their way up.

One `Link` per connection; the socket and the reconnecting are `unit_agent.connection`'s, the disk `unit_agent.store`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from contracts.envelope import Json
from contracts.frames import (
    ASK_AT_MOST,
    DOWN,
    Accepted,
    Ack,
    Answer,
    AnyDown,
    Ask,
    Check,
    Facts,
    Hello,
    Ping,
    Pong,
    Refused,
    Renew,
    Renewed,
    Retry,
    Snapshot,
    Submit,
    Welcome,
)

WINDOW: Final = 5_000
"""Facts this agent takes unacknowledged."""
SUBMITS_IN_FLIGHT: Final = 32


class LinkBroken(Exception):
    """The bridge said something that does not fit: leave and come back with the position on disk."""


class Link:
    """From hello to the end of one connection. `position` is what is safely on disk now."""

    def __init__(
        self,
        unit_id: str,
        position: int,
        *,
        agent_version: str,
        window: int = WINDOW,
        instance: UUID | None = None,
        snapshot_beyond: int | None = None,
    ) -> None:
        self.epoch = 0
        """0 before the bridge's welcome."""
        self.head = 0
        """How far the feed reached at the welcome: before that is caught up, nothing in it is news."""
        self.received = position
        """Through where facts have arrived, on disk or on their way there."""
        self.duplicates = 0
        self.clock_skew = timedelta()
        """Centre's clock minus ours, at the welcome."""
        self.heartbeat_seconds = 20.0
        self.credential_expires_at: datetime | None = None
        """When this session's credential runs out; None: the bridge has not said."""
        self._hello: Final = Hello(
            unit_id=unit_id,
            position=position,
            agent_version=agent_version,
            window=window,
            instance=instance,
            snapshot_beyond=snapshot_beyond,
        )
        self._parts: tuple[int, int] | None = None
        """Of a snapshot that is arriving: its position and how many parts are here; None when none is."""
        self._submitted: dict[UUID, None] = {}
        """Commands on their way up without an answer yet, oldest first."""
        self._put_off: set[UUID] = set()

    @property
    def is_open(self) -> bool:
        """The bridge has welcomed us."""
        return self.epoch > 0

    @property
    def room(self) -> int:
        """How many more commands may be on their way up."""
        return SUBMITS_IN_FLIGHT - len(self._submitted) if self.is_open else 0

    @property
    def submitted(self) -> int:
        """Commands on their way up."""
        return len(self._submitted)

    @property
    def put_off(self) -> frozenset[UUID]:
        """Commands the bridge could not take: it takes no other before they come again, whatever became of them."""
        return frozenset(self._put_off)

    def hello(self) -> bytes:
        """The first frame up."""
        return self._hello.to_json()

    def hear(self, data: str | bytes, now: datetime) -> AnyDown | None:
        """A frame from the bridge, with facts already here cut away; None when nothing is to be done about it.

        Raises LinkBroken when it does not fit: not the protocol, or facts that leave a gap.
        """
        try:
            frame = DOWN.validate_json(data)
        except ValidationError:
            raise LinkBroken("not_the_protocol") from None
        match frame:
            case Welcome():
                if self.is_open:
                    raise LinkBroken("welcomed_twice")
                self.epoch, self.head = frame.epoch, frame.head
                self.clock_skew = frame.server_time - now
                self.heartbeat_seconds = frame.heartbeat_seconds
                self.credential_expires_at = frame.credential_expires_at
                return frame
            case Ping() | Pong():
                return frame
            case _ if frame.type != "bye" and (not self.is_open or frame.epoch != self.epoch):
                raise LinkBroken("frame_of_another_session")
            case Facts():
                return self._fresh(frame)
            case Snapshot():
                return self._next_part(frame)
            case Check():
                # Frames keep their order, so everything through there has arrived, or something is wrong.
                if self._parts is not None or frame.position != self.received:
                    raise LinkBroken("not_where_the_centre_is")
                return frame
            case Renewed():
                self.credential_expires_at = frame.expires_at
                return frame
            case Accepted() | Refused():
                self._put_off.discard(frame.command_id)
                self._submitted.pop(frame.command_id, None)  # absent: it was to be sent again, which is now needless
                return frame
            case Retry():
                return self._held_back(frame)
            case _:
                return frame

    def stored(self, position: int) -> bytes:
        """The ack for everything through `position`, which is on disk."""
        return Ack(epoch=self.epoch, position=position).to_json()

    def submit(self, command_id: UUID, command: str, payload: Json, issued_at: datetime, subject: str) -> bytes:
        """A command on its way up; take no more than `room` of them, in the order they were made."""
        self._submitted[command_id] = None
        return Submit(
            epoch=self.epoch,
            command_id=command_id,
            command=command,
            payload=payload,
            issued_at=issued_at,
            subject=subject,
        ).to_json()

    def renew(self, *, assertion: str | None = None, token: str | None = None) -> bytes:
        """A newer credential for this session: signed with the unit's key, or a token from elsewhere."""
        return Renew(epoch=self.epoch, assertion=assertion, token=token).to_json()

    def ask(self, command_ids: Sequence[UUID]) -> bytes:
        """Ask what became of commands that the centre has taken."""
        return Ask(epoch=self.epoch, command_ids=list(command_ids[:ASK_AT_MOST])).to_json()

    def answer(self, call_id: UUID, *, ok: bool, body: Json | None = None, code: str | None = None) -> bytes:
        """The answer to a live call."""
        return Answer(epoch=self.epoch, call_id=call_id, ok=ok, body=body or {}, code=code).to_json()

    def pong(self) -> bytes:
        """Yes, still here."""
        return Pong().to_json()

    def _fresh(self, frame: Facts) -> Facts | None:
        if self._parts is not None:
            raise LinkBroken("facts_within_a_snapshot")
        if frame.after > self.received:
            raise LinkBroken("gap_in_facts")
        if frame.through <= self.received:
            self.duplicates += len(frame.facts)
            return None
        after, self.received = self.received, frame.through
        if frame.after == after:
            return frame
        fresh = [fact for fact in frame.facts if fact.position > after]
        self.duplicates += len(frame.facts) - len(fresh)
        return Facts(epoch=frame.epoch, after=after, through=frame.through, facts=fresh)

    def _next_part(self, frame: Snapshot) -> Snapshot:
        position, here = self._parts or (frame.position, 0)
        if self._hello.snapshot_beyond is None or frame.position < self.received:
            raise LinkBroken("snapshot_not_wanted")
        if (frame.position, frame.part) != (position, here):
            raise LinkBroken("gap_in_snapshot")
        self._parts = None if frame.last else (position, here + 1)
        if frame.last:
            self.received = position
        return frame

    def _held_back(self, frame: Retry) -> Retry | None:
        # The order in which commands were made is kept: whatever was sent after this one starts over too. The bridge
        # takes none of them before it has seen this one again.
        if frame.command_id not in self._submitted:
            return None
        self._submitted.clear()
        self._put_off.add(frame.command_id)
        return frame
