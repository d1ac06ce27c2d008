"""Writes facts into the log as the handlers do, so that read models can be tried without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson

from contracts.ids import partition_of
from contracts.model import Event
from infra.database import Connection
from infra.event_log import NewEvent, append, notify, reserve
from infra.master_keys import MasterKey
from infra.sealing import Sealer, place, split

MASTER_KEY = bytes(range(32))
PARTITIONS = 16


class Logbook:
    """The log, for a writer that owns every partition."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.sealer = Sealer(MasterKey(MASTER_KEY))
        self._versions: Counter[str] = Counter()

    async def write(self, unit_id: str, *facts: Event, at: datetime | None = None) -> tuple[int, int]:
        """Append the facts, as of `at`; the partition and the position of the last one."""
        return (await self.write_many([(unit_id, fact) for fact in facts], at=at))[unit_id]

    async def write_many(
        self, facts: Sequence[tuple[str, Event]], *, at: datetime | None = None
    ) -> dict[str, tuple[int, int]]:
        """Append facts of several units in one transaction; by unit the partition and the position of its last one."""
        counts = Counter(partition_of(unit_id, PARTITIONS) for unit_id, _ in facts)
        subjects = {subject: unit_id for unit_id, fact in facts if (subject := fact.subject())}
        last: dict[str, tuple[int, int]] = {}
        async with self._connection.transaction():
            await self.sealer.create(self._connection, subjects)
            first = await reserve(self._connection, {partition: (0, count) for partition, count in counts.items()})
            placed = []
            for unit_id, fact in facts:
                partition = partition_of(unit_id, PARTITIONS)
                placed.append((partition, first[partition], self._new(unit_id, fact, at or datetime.now(UTC))))
                last[unit_id] = partition, first[partition]
                first[partition] += 1
            await append(self._connection, placed)
            await notify(self._connection)
        return last

    async def erase(self, patient_id: UUID) -> None:
        """Destroy a person's key."""
        await self._connection.execute("DELETE FROM subject_keys WHERE subject = %s", (str(patient_id),))
        self.sealer.forget([str(patient_id)])

    async def spoil(self, partition: int, position: int, **columns: object) -> None:
        """Make an event of the log into one that no release of ours would have written."""
        for name, value in columns.items():
            await self._connection.execute(
                f"UPDATE events SET {name} = %s WHERE partition = %s AND position = %s".encode(),  # noqa: S608
                (value, partition, position),
            )

    def _new(self, unit_id: str, fact: Event, at: datetime) -> NewEvent:
        stream = stream_of(unit_id, fact)
        self._versions[stream] += 1
        clear, hidden = split(fact, fact.to_dict())
        subject = fact.subject() if hidden else None
        sealed = None
        if hidden and subject:
            sealed = self.sealer.seal(subject, place(stream, self._versions[stream]), hidden)
        return NewEvent(
            unit_id=unit_id,
            stream=stream,
            stream_version=self._versions[stream],
            type=fact.type_name(),
            type_version=fact.version,
            payload=orjson.dumps(clear).decode(),
            sealed=sealed,
            subject=subject,
            command_id=uuid4(),
            causation_id=None,
            correlation_id="test",
            actor='{"subject": "test", "role": "staff"}',
            occurred_at=at,
        )


def stream_of(unit_id: str, fact: Event) -> str:
    """The stream a fact belongs in."""
    about: Mapping[str, Any] = fact.to_dict()  # Any: ids as text
    match fact.context:
        case "unit":
            return f"unit-{unit_id}"
        case "queue":
            return f"queue-{unit_id}.{about['department']}.{about['serviceDay']}"
        case "patient" | "encounter" | "task":
            return f"{fact.context}-{about[fact.context + 'Id']}"
        case "staff":
            return f"staff-{about['accountId']}"
        case _:
            return f"unit_command-{about['unitCommandId']}"
