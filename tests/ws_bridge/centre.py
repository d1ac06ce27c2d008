"""The centre as a bridge sees it: a log, checkpoints and pushes, each in the test's hand, so a push can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from contracts.ids import PatientId, UnitCommandId, partition_of
from contracts.live_call import LiveCall
from contracts.model import Event
from contracts.patient import PatientRegistered
from contracts.routing import COMMANDS, EVENTS, call_key, feed_key
from contracts.unit import UnitRegistered, UnitSettings
from contracts.unit_command import OnReconnect, UnitCommandQueued
from infra.broker import topology
from infra.broker.publisher import Publisher
from projections.feed import by_unit
from tests.kit.commands import new_id
from tests.kit.log import read_unit
from tests.projections.logbook import PARTITIONS, Logbook


class Centre:
    """Writes facts, lets them become visible, pushes them."""

    def __init__(self, database: AsyncConnection[tuple[object, ...]], publisher: Publisher) -> None:
        self.database = database
        self.publisher = publisher
        self.log = Logbook(database)
        self._told: dict[str, int] = {}

    async def unit(self, unit_id: str, *, status: str = "active") -> None:
        """A unit that is registered and visible."""
        await self.happens(
            unit_id, UnitRegistered(unit_id=unit_id, name="A clinic", kind="prov", settings=UnitSettings())
        )
        await self.database.execute(
            "INSERT INTO read_units (unit_id, partition, name, name_key, kind, settings, zone, ageing_minutes, status, "
            "version, registered_at, updated_at) "
            "VALUES (%s, %s, 'A clinic', 'a clinic', 'prov', '{}', 'UTC', 30, %s, 1, now(), now())",
            (unit_id, partition_of(unit_id, PARTITIONS), status),
        )

    async def standing(self, unit_id: str, status: str) -> None:
        """What the read model says of the unit."""
        await self.database.execute("UPDATE read_units SET status = %s WHERE unit_id = %s", (status, unit_id))

    async def happens(self, unit_id: str, *facts: Event, visible: bool = True, pushed: bool = True) -> int:
        """Facts are written and, as a projection would, made visible and pushed; the position of the last."""
        before = self._told.get(unit_id, 0)
        partition, position = await self.log.write(unit_id, *facts)
        if visible:
            await self.becomes_visible(partition, position)
            if pushed:
                await self.push(unit_id, after=before, through=position)
        self._told[unit_id] = position
        return position

    async def becomes_visible(self, partition: int, position: int) -> None:
        """The checkpoint moves."""
        await self.database.execute(
            "UPDATE projection_checkpoints SET position = greatest(position, %s) WHERE partition = %s",
            (position, partition),
        )

    async def push(self, unit_id: str, *, after: int, through: int) -> None:
        """One batch, as the projections publish it."""
        partition = partition_of(unit_id, PARTITIONS)
        events = await read_unit(self.database, partition, unit_id, after, through, 1000)
        for batch in by_unit(await self.log.sealer.open(self.database, events)):
            batch.after = after
            self.publisher.publish_nowait(EVENTS, feed_key(unit_id), batch.to_json())

    async def call(
        self,
        unit_id: str,
        name: str,
        body: dict[str, object],
        reply_to: str,
        *,
        seconds: float = 5,
        call_id: UUID | None = None,
    ) -> UUID:
        """A live call, as the gateway publishes it. Raises Unroutable when no bridge holds the unit."""
        deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        call = LiveCall(call_id=call_id or new_id(), unit_id=unit_id, name=name, body=body, deadline=deadline)
        await self.publisher.publish(
            COMMANDS, call_key(unit_id, name), call.to_json(), message_id=str(call.call_id), persistent=False,
            correlation_id=str(call.call_id), reply_to=reply_to,
        )  # fmt: skip
        return call.call_id


def patient(first_name: str = "Zoraida", patient_id: UUID | None = None) -> PatientRegistered:
    """Somebody is registered."""
    patient_id = patient_id or new_id()
    return PatientRegistered(
        patient_id=PatientId(patient_id),
        medical_record_number=f"MRN-{patient_id.hex[-8:]}",
        first_name=first_name,
        last_name="Quillfeather",
        date_of_birth=date(1984, 2, 29),
    )


def queued(
    unit_id: str,
    *,
    unit_command_id: UUID | None = None,
    seconds: float = 60,
    on_reconnect: OnReconnect = OnReconnect.RUN,
    type_name: str = "note",
    patient_id: UUID | None = None,
) -> UnitCommandQueued:
    """A durable command for the unit."""
    return UnitCommandQueued(
        unit_command_id=UnitCommandId(unit_command_id or new_id()),
        unit_id=unit_id,
        patient_id=None if patient_id is None else PatientId(patient_id),
        type=type_name,
        payload={"text": "bring the wheelchair"},
        deadline=datetime.now(UTC) + timedelta(seconds=seconds),
        on_reconnect=on_reconnect,
    )


@asynccontextmanager
async def centre_of(postgres_url: str, rabbitmq_url: str) -> AsyncIterator[Centre]:
    """A centre on these services, while the block runs."""
    await topology.declare(rabbitmq_url, partitions=PARTITIONS)
    async with (
        await AsyncConnection.connect(postgres_url, autocommit=True) as database,
        Publisher(rabbitmq_url, name="centre.publish") as publisher,
    ):
        await publisher.until_up()
        yield Centre(database, publisher)
