"""Identifiers: their types, their patterns and how they follow from one another.

UUIDv7 layout where an id carries its time; everything is derived from what is passed in (pure): the clock and the
random bits come from the caller.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime
from typing import Annotated, Final, NewType
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, StringConstraints

UnitId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
"""Stands in routing keys and queue bindings, so its alphabet is narrow."""

UNIT_ID: Final = re.compile(r"[a-z0-9-]{1,40}")

PatientId = NewType("PatientId", UUID)
EncounterId = NewType("EncounterId", UUID)
QueueEntryId = NewType("QueueEntryId", UUID)
UnitCommandId = NewType("UnitCommandId", UUID)
CommandId = NewType("CommandId", UUID)
TaskId = NewType("TaskId", UUID)

_YEAR_9999: Final = 253_370_764_800_000


def is_timed(id_: UUID) -> bool:
    """Whether the id tells an instant that has a day in every zone's calendar."""
    return id_.version == 7 and id_.int >> 80 < _YEAR_9999


def _timed(value: QueueEntryId) -> QueueEntryId:
    if not is_timed(value):
        raise ValueError("not a UUIDv7 of this age: a queue entry's id tells its service day")
    return value


TimedEntryId = Annotated[QueueEntryId, AfterValidator(_timed)]
"""A queue entry's id as commands give it: a UUIDv7, whose instant decides the service day."""


_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_GAPS = re.compile(r"[ _]+")


def _slug(value: object) -> object:
    if not isinstance(value, str) or _SLUG.fullmatch(value):
        return value  # the case of every event and every command but the first: worth not being taken apart
    return _GAPS.sub("-", value.strip().lower())


Department = Annotated[str, BeforeValidator(_slug), StringConstraints(pattern=f"^{_SLUG.pattern}$")]
"""A department's code; `General Medicine` is read as `general-medicine`."""


def partition_of(unit_id: str, partitions: int) -> int:
    """The partition that holds all of a unit's commands and events: `crc32(unit_id) % partitions`."""
    return crc32(unit_id.encode()) % partitions


def uuid7(at: datetime, entropy: bytes) -> UUID:
    """A UUIDv7 (RFC 9562) of the instant `at` and 10 bytes of `entropy`."""
    milliseconds = int(at.timestamp() * 1000) & ((1 << 48) - 1)
    bits = int.from_bytes(entropy[:10], "big")
    return UUID(
        int=(milliseconds << 80) | (7 << 76) | ((bits >> 62 & 0xFFF) << 64) | (2 << 62) | (bits & (1 << 62) - 1)
    )


def derived(command_id: UUID, purpose: str, at: datetime) -> UUID:
    """The id of what `command_id` brings into being: the same for every retry of the same command."""
    return uuid7(at, hashlib.sha256(command_id.bytes + purpose.encode()).digest())


def instant_of(id_: UUID) -> datetime:
    """The instant a UUIDv7 carries (milliseconds, UTC)."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC)


def service_day(at: datetime, zone: str) -> date:
    """The unit's own calendar day at `at`."""
    return at.astimezone(ZoneInfo(zone)).date()


# A command id carries a 24-bit checksum of its other bits, so that a gateway can tell an id that some gateway or agent
# issued (and that is therefore pending when no receipt exists yet) from one that nobody ever issued (404), without a
# write on the intake path. It is no secret and protects nothing.
_CHECKED: Final = 24


def _checked(id_: int) -> UUID:
    body = id_ >> _CHECKED << _CHECKED
    return UUID(int=body | _checksum(body))


def _checksum(body: int) -> int:
    return int.from_bytes(hashlib.sha256(b"carespine.command" + body.to_bytes(16, "big")).digest()[:3], "big")


def fresh_command_id(at: datetime, entropy: bytes) -> CommandId:
    """A new command's id (UUIDv7 with checksum)."""
    return CommandId(_checked(uuid7(at, entropy).int))


def keyed_command_id(subject: str, unit_id: str, key: str) -> CommandId:
    """The id of the command a caller names by `Idempotency-Key` (UUIDv8 with checksum): the same key, the same id."""
    digest = hashlib.sha256("\x1f".join((subject, unit_id, key)).encode()).digest()
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | (8 << 76)
    return CommandId(_checked(bits & ~(3 << 62) | (2 << 62)))


def is_command_id(id_: UUID) -> bool:
    """Whether `id_` was made by `fresh_command_id` or `keyed_command_id`."""
    body = id_.int >> _CHECKED << _CHECKED
    return id_.int == body | _checksum(body)
