"""What the centre tells a unit, made by hand: facts with positions, and the frames they come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from contracts.envelope import Fact
from contracts.frames import Facts
from contracts.ids import UnitCommandId
from contracts.model import Event
from contracts.unit_command import OnReconnect, UnitCommandQueued
from tests.kit.commands import new_id
from tests.projections.logbook import stream_of

UNIT = "north"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def told(position: int, event: Event, *, command_id: UUID | None = None, erased: bool = False) -> Fact:
    """The event as the feed brings it."""
    return Fact(
        position=position,
        type=event.type_name(),
        version=event.version,
        stream=stream_of(UNIT, event),
        stream_version=position,
        command_id=command_id or new_id(),
        occurred_at=NOON,
        recorded_at=NOON,
        payload=event.to_dict(),
        erased=erased,
    )


def frame(*facts: Fact, after: int = 0) -> Facts:
    """One frame of facts."""
    return Facts(epoch=1, after=after, through=facts[-1].position, facts=list(facts))


def queued(
    unit_command_id: UUID | None = None,
    *,
    seconds: float = 3600,
    on_reconnect: OnReconnect = OnReconnect.RUN,
    now: datetime = NOON,
) -> UnitCommandQueued:
    """A durable command whose deadline is so far away."""
    return UnitCommandQueued(
        unit_command_id=UnitCommandId(unit_command_id or new_id()),
        unit_id=UNIT,
        type="orders.place",
        payload={"item": "blood count"},
        deadline=now + timedelta(seconds=seconds),
        on_reconnect=on_reconnect,
    )
