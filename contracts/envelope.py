"""What travels on the broker: the command's envelope, the answer to a waiting caller, and a unit's batch of facts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from contracts.identity import Actor
from contracts.ids import UnitId
from contracts.model import Instant, Model

Json = dict[str, Any]  # Any: a JSON object whose shape its type name decides


class Origin(StrEnum):
    """Where a command came into the system."""

    GATEWAY = "gateway"
    UNIT = "unit"
    IMPORT = "import"
    PROCESS = "process"
    TIMER = "timer"


class Replay(Model):
    """Marks a dead letter sent again: the same command id, allowed past the receipt that says it failed."""

    letter_id: UUID
    run_id: UUID


class CommandEnvelope(Model):
    """One command on its way to the handlers. `payload` is decoded by its `type` through the catalogue."""

    schema_version: Literal[1] = 1
    command_id: UUID
    type: str = Field(max_length=100)
    type_version: int = 1
    unit_id: UnitId
    payload: Json
    actor: Actor
    issued_at: Instant
    """The gateway's clock, or the claimed time at the unit for what was done there."""
    request_hash: str
    """SHA-256 of what the caller sent: the same id with another body is refused."""
    origin: Origin = Origin.GATEWAY
    correlation_id: str
    causation_id: UUID | None = None
    expected_version: int | None = None
    """Version of the stream the caller decided on (If-Match); None: whatever it is."""
    traceparent: str | None = None
    reply_to: str | None = None
    """Queue of the gateway whose caller waits; None: nobody waits."""
    replay: Replay | None = None


class Status(StrEnum):
    """How a command ended, in the whole vocabulary that a caller can see."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"
    """Dead-lettered: poison, or parked behind a dead letter of the same stream."""


class Outcome(Model):
    """The answer to one command. Carries ids, codes and tickets; never a name, date of birth or number of a person."""

    command_id: UUID
    type: str
    unit_id: UnitId
    status: Status
    code: str | None = None
    """Refusal code, or for failed `poison` / `parked`."""
    detail: str | None = None
    about: dict[str, str] | None = None
    result: Json | None = None
    partition: int
    position: int | None = None
    """Position of the last event written (read your own writes); None when nothing was written."""
    dead_letter_id: UUID | None = None
    repeated: Literal[True] | None = None
    """The command had been answered before and this is that answer again; absent for the first answer."""


class Fact(Model):
    """One event as units and portals see it: sealed fields opened, or absent with `erased` when the key is gone."""

    position: int
    type: str
    version: int
    stream: str
    stream_version: int
    command_id: UUID
    occurred_at: Instant
    recorded_at: Instant
    payload: Json
    erased: bool = False


class FeedBatch(Model):
    """What became visible for one unit in one projection batch: everything of the unit in (after, through]."""

    unit_id: UnitId
    partition: int
    after: int
    through: int
    facts: list[Fact]
