"""What became visible, told to the bridges: one message per unit and batch, after the commit, into `carespine.events`.

Each message says what it covers: everything of the unit in (after, through]. A message lost, late or doubled does no
harm: whoever sees a gap reads the log. So nothing here waits, retries or confirms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import AsyncConnection

from contracts.routing import EVENTS, feed_key
from infra.broker.errors import BrokerUnavailable
from infra.broker.publisher import Publisher
from infra.sealing import Opened
from infra.telemetry.metrics import Metrics

_BEFORE = b"""
SELECT w.unit_id, coalesce(e.position, 0)
FROM unnest(%s::int[], %s::text[], %s::bigint[]) AS w (partition, unit_id, first)
LEFT JOIN LATERAL (
    SELECT position FROM events
    WHERE partition = w.partition AND unit_id = w.unit_id AND position < w.first
    ORDER BY position DESC LIMIT 1
) AS e ON true
"""


@dataclass(slots=True)
class Batch:
    """What became visible for one unit."""

    unit_id: str
    partition: int
    facts: list[Opened] = field(default_factory=list)
    after: int = 0
    """Where the unit's batch before this one ended; `Feed.prepare` finds out."""

    @property
    def first(self) -> int:
        """Position of the first fact."""
        return self.facts[0].event.position

    @property
    def through(self) -> int:
        """Position of the last fact."""
        return self.facts[-1].event.position

    def to_json(self) -> bytes:
        """As `contracts.envelope.FeedBatch` would say it, without making one."""
        return orjson.dumps(
            {
                "unitId": self.unit_id,
                "partition": self.partition,
                "after": self.after,
                "through": self.through,
                "facts": [_fact(opened) for opened in self.facts],
            },
            option=orjson.OPT_UTC_Z,
        )


class Feed:
    """Publishes batches and remembers, per unit, where the one before ended."""

    def __init__(self, publisher: Publisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._through: dict[str, tuple[int, int]] = {}
        """By unit: its partition and the position its last batch ended at; absent until the first batch."""

    async def prepare(self, connection: AsyncConnection[Any], batches: Sequence[Batch]) -> None:  # Any: see the query
        """Find out what each unit's batch follows on: the log says it of units met for the first time."""
        before = {batch.unit_id: self._through[batch.unit_id][1] for batch in batches if batch.unit_id in self._through}
        unknown = [batch for batch in batches if batch.unit_id not in before]
        if unknown:
            cursor = await connection.execute(
                _BEFORE,
                (
                    [batch.partition for batch in unknown],
                    [batch.unit_id for batch in unknown],
                    [batch.first for batch in unknown],
                ),
            )
            for unit_id, position in await cursor.fetchall():
                before[unit_id] = position
        for batch in batches:
            batch.after = before[batch.unit_id]
            self._through[batch.unit_id] = batch.partition, batch.after

    def publish(self, batches: Iterable[Batch]) -> None:
        """Tell; only after the commit that made them visible."""
        for batch in batches:
            if batch.unit_id in self._through:  # else its partition was given away meanwhile: the next owner tells on
                self._through[batch.unit_id] = batch.partition, batch.through
            try:
                self._publisher.publish_nowait(EVENTS, feed_key(batch.unit_id), batch.to_json())
            except BrokerUnavailable as why:
                self._metrics.publish_failures.labels(why.reason).inc()

    def forget(self, partition: int | None = None) -> None:
        """What we remember of a partition's units (None: of all) may be out of date: ask the log again."""
        self._through = {
            unit: place for unit, place in self._through.items() if partition is not None and place[0] != partition
        }


def by_unit(facts: Iterable[Opened]) -> list[Batch]:
    """The facts, grouped by unit, each unit's in their order."""
    batches: dict[str, Batch] = {}
    for opened in facts:
        event = opened.event
        batch = batches.get(event.unit_id)
        if batch is None:
            batch = batches[event.unit_id] = Batch(event.unit_id, event.partition)
        batch.facts.append(opened)
    return list(batches.values())


def _fact(opened: Opened) -> dict[str, Any]:  # Any: JSON
    event = opened.event
    return {
        "position": event.position,
        "type": event.type,
        "version": event.type_version,
        "stream": event.stream,
        "streamVersion": event.stream_version,
        "commandId": event.command_id,
        "occurredAt": event.occurred_at,
        "recordedAt": event.recorded_at,
        "payload": opened.payload,
        "erased": opened.erased,
    }
