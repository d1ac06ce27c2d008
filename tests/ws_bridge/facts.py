"""Facts for tests that need the feed's shape and nothing of its meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from contracts.envelope import Fact

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def fact(position: int, *, type_name: str = "queue.PatientCalled", padding: int = 0) -> Fact:
    """A fact at this position; `padding` bytes make it large."""
    return Fact(
        position=position,
        type=type_name,
        version=1,
        stream="queue-north-intake-2026-03-02",
        stream_version=position,
        command_id=UUID(int=position),
        occurred_at=NOON,
        recorded_at=NOON,
        payload={"padding": "x" * padding} if padding else {},
    )
