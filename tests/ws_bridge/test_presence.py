"""Each absence is told of once, and so is each return, however often a link's lease lapses and is renewed."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from contracts.envelope import CommandEnvelope
from contracts.ids import partition_of
from infra.broker.publisher import Publisher
from infra.database import pool
from infra.telemetry.metrics import Metrics
from tests.projections.logbook import PARTITIONS
from tests.ws_bridge.centre import Centre
from ws_bridge.presence import Presence

UNIT = "north"


class Sent:
    """A broker that takes everything."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, UUID]] = []

    async def publish(self, exchange: str, key: str, body: bytes, **others: object) -> None:
        envelope = CommandEnvelope.model_validate_json(body)
        assert partition_of(envelope.unit_id, PARTITIONS) == partition_of(UNIT, PARTITIONS)
        self.notes.append((envelope.type, envelope.command_id))


async def test_a_link_whose_lease_lapses_twice_is_told_of_twice(centre: Centre, postgres: str) -> None:
    await centre.unit(UNIT)
    await centre.database.execute(
        "INSERT INTO unit_sessions (unit_id, epoch, bridge, connected, seen_at, lease_until) "
        "VALUES (%s, 7, 'bridge', true, now() - interval '1 hour', now() - interval '1 hour')",
        (UNIT,),
    )
    sent = Sent()
    async with pool(postgres, role="bridge") as database:
        presence = Presence(
            database, cast(Publisher, sent), Metrics(), partitions=PARTITIONS, unreachable_seconds=60,
            well_for=lambda: 1000.0,
        )  # fmt: skip
        for lapsed in range(2):
            await centre.database.execute(
                "UPDATE unit_sessions SET seen_at = now() - make_interval(mins => 30 - %s), lease_until = now() - "
                "interval '10 minutes'",
                (lapsed,),
            )
            assert await presence.look() == 1
            assert await presence.look() == 0
            # The database is back for its bridge: same link, same session.
            await centre.database.execute(
                "UPDATE unit_sessions SET seen_at = now(), lease_until = now() + interval '1 minute'"
            )
            assert await presence.look() == 1
            assert await presence.look() == 0
    assert [note for note, _ in sent.notes] == ["unit.NoteUnitUnreachable", "unit.NoteUnitBack"] * 2
    assert len({command_id for _, command_id in sent.notes}) == 4, "one that has the id of another is not taken"
