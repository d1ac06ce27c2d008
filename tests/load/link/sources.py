"""Where the benchmark's messages come from: `python -m tests.load.link.sources KIND JOB`, a process of its own.

Everything is rendered before; on a line of standard input it is sent on a schedule, each message stamped with the
instant it leaves. Kinds: `commands` onto the broker as a gateway would (the whole way), `pushes` of facts that are in
the log already as the projections would (the bridge alone), `mqtt` to another broker (the same bytes).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import structlog
import uvloop
from psycopg import AsyncConnection

from contracts.envelope import CommandEnvelope
from contracts.identity import Actor, Role
from contracts.ids import CommandId, UnitCommandId, fresh_command_id, partition_of
from contracts.routing import COMMANDS, EVENTS, command_key, feed_key
from contracts.unit_command import QueueUnitCommand, UnitCommandQueued
from infra.broker.publisher import Publisher
from infra.event_log import NewEvent, append, reserve
from tests.load.link import mqtt
from tests.load.link.fleet import unit_name
from tests.load.link.samples import STAMP

PARTITIONS = 16
TICK = 0.002
SAFE_DEADLINE = 60.0
AT_ONCE = 5000
_PLACE = STAMP + b"0"

Json = dict[str, Any]  # Any: JSON
Send = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Job:
    """What to send, how fast, for how long."""

    units: int
    rate: float
    seconds: float
    rabbitmq_url: str = ""
    postgres_url: str = ""
    port: int = 0
    favourite: int | None = None
    """Number of a unit that every fifth message is for; None: all get the same."""

    @property
    def count(self) -> int:
        """Messages in all."""
        return round(self.rate * self.seconds)

    def turns(self) -> Iterator[int]:
        """Which unit each message is for: all of them in turn, in an order that keeps neighbours apart."""
        step = 7919  # a prime that divides no number of units used here
        for turn in range(self.count):
            to_favourite = self.favourite is not None and turn % 5 == 0
            yield self.favourite if to_favourite and self.favourite is not None else turn * step % self.units


@dataclass(frozen=True)
class Sent:
    """What was sent."""

    count: int
    seconds: float
    cpu_seconds: float


class Message:
    """A rendered message with a place for the instant it leaves."""

    __slots__ = ("_head", "_tail", "unit_id")

    def __init__(self, unit_id: str, body: bytes) -> None:
        self.unit_id = unit_id
        self._head, place, self._tail = body.partition(_PLACE)
        if not place:
            raise ValueError("no place for the instant")

    def stamped(self) -> bytes:
        """As it leaves now."""
        return b"%b%b%.6f%b" % (self._head, STAMP, time.monotonic(), self._tail)


async def scheduled(messages: list[Message], rate: float, send: Callable[[Message], None]) -> None:
    """Send them at an even pace."""
    began = time.monotonic()
    at = 0
    while at < len(messages):
        due = min(len(messages), int((time.monotonic() - began) * rate) + 1)
        while at < due:
            send(messages[at])
            at += 1
        await asyncio.sleep(TICK)


def payload(number: int) -> Json:
    """What a unit is asked to do; the size of a small order."""
    return {"sentAt": 0, "number": number, "code": "24323-8", "text": "comprehensive metabolic panel", "room": "12A"}


def commands(job: Job) -> list[tuple[Message, int, CommandId]]:
    """Commands to units, as a gateway puts them on the broker."""
    actor = Actor(subject="bench", role=Role.OPS)
    deadline = datetime.now(UTC) + timedelta(hours=24)
    made = []
    for number, turn in enumerate(job.turns()):
        unit_id, now = unit_name(turn), datetime.now(UTC)
        command_id = fresh_command_id(now, os.urandom(10))
        command = QueueUnitCommand(
            unit_command_id=UnitCommandId(command_id), type="orders.place", payload=payload(number), deadline=deadline
        )
        envelope = CommandEnvelope(
            command_id=command_id,
            type=command.type_name(),
            unit_id=unit_id,
            payload=command.to_dict(),
            actor=actor,
            issued_at=now,
            request_hash=str(number),
            correlation_id=str(command_id),
        )
        made.append((Message(unit_id, envelope.to_json()), partition_of(unit_id, PARTITIONS), command_id))
    return made


async def publish_commands(job: Job) -> None:
    """Onto the broker, each confirmed."""
    made = commands(job)
    about = {message: (partition, command_id) for message, partition, command_id in made}
    type_name = QueueUnitCommand.type_name()
    async with Publisher(job.rabbitmq_url, name="bench.source") as publisher:
        await publisher.until_up()
        under_way: set[asyncio.Task[None]] = set()

        def confirmed(task: asyncio.Task[None]) -> None:
            under_way.discard(task)
            task.result()

        def send(message: Message) -> None:
            partition, command_id = about[message]
            task = asyncio.create_task(
                publisher.publish(
                    COMMANDS,
                    command_key(message.unit_id, partition, type_name),
                    message.stamped(),
                    message_id=str(command_id),
                    deadline=SAFE_DEADLINE,
                )
            )
            under_way.add(task)
            task.add_done_callback(confirmed)

        await _on_order([message for message, _, _ in made], job.rate, send, under_way)


async def push_facts(job: Job) -> None:
    """Facts are written to the log first; then each is pushed to its unit, and all become visible at the end."""
    async with await AsyncConnection.connect(job.postgres_url, autocommit=True) as database:
        messages, through = await _written(job, database)
        async with Publisher(job.rabbitmq_url, name="bench.source") as publisher:
            await publisher.until_up()

            def send(message: Message) -> None:
                publisher.publish_nowait(EVENTS, feed_key(message.unit_id), message.stamped())

            await _on_order(messages, job.rate, send, set())
        await database.execute(
            "UPDATE projection_checkpoints c SET position = greatest(c.position, w.position) "
            "FROM unnest(%s::int[], %s::bigint[]) AS w (partition, position) WHERE c.partition = w.partition",
            (list(through), list(through.values())),
        )


async def _written(job: Job, database: AsyncConnection[Any]) -> tuple[list[Message], dict[int, int]]:  # Any: rows
    cursor = await database.execute("SELECT partition, epoch FROM log_partitions")
    epochs = {int(partition): int(epoch) for partition, epoch in await cursor.fetchall()}
    cursor = await database.execute("SELECT unit_id, max(position) FROM events GROUP BY unit_id")
    last = {unit_id: int(position) for unit_id, position in await cursor.fetchall()}
    turns = list(job.turns())
    messages: list[Message] = []
    through: dict[int, int] = {}
    for start in range(0, len(turns), AT_ONCE):
        some = [unit_name(turn) for turn in turns[start : start + AT_ONCE]]
        counts: dict[int, int] = {}
        for unit_id in some:
            partition = partition_of(unit_id, PARTITIONS)
            counts[partition] = counts.get(partition, 0) + 1
        async with database.transaction():
            at = await reserve(database, {one: (epochs[one], count) for one, count in counts.items()})
            placed = []
            for number, unit_id in enumerate(some, start):
                partition = partition_of(unit_id, PARTITIONS)
                position = at[partition]
                at[partition] = position + 1
                placed.append((partition, position, event_of(unit_id, number)))
                messages.append(
                    Message(unit_id, batch_of(placed[-1][2], partition, last.get(unit_id, 0), position)),
                )
                last[unit_id] = through[partition] = position
            await append(database, placed)
    return messages, through


def event_of(unit_id: str, number: int) -> NewEvent:
    now = datetime.now(UTC)
    command_id = fresh_command_id(now, os.urandom(10))
    fact = UnitCommandQueued(
        unit_command_id=UnitCommandId(command_id),
        unit_id=unit_id,
        type="orders.place",
        payload=payload(number),
        deadline=now + timedelta(hours=24),
        on_reconnect="run",
    )
    return NewEvent(
        unit_id=unit_id,
        stream=f"unit_command-{command_id}",
        stream_version=1,
        type=fact.type_name(),
        type_version=fact.version,
        payload=fact.to_json().decode(),
        sealed=None,
        subject=None,
        command_id=command_id,
        causation_id=None,
        correlation_id="bench",
        actor='{"subject": "bench", "role": "ops"}',
        occurred_at=now,
    )


def batch_of(event: NewEvent, partition: int, after: int, position: int) -> bytes:
    fact = {
        "position": position,
        "type": event.type,
        "version": event.type_version,
        "stream": event.stream,
        "streamVersion": event.stream_version,
        "commandId": event.command_id,
        "occurredAt": event.occurred_at,
        "recordedAt": event.occurred_at,
        "payload": orjson.Fragment(event.payload),
        "erased": False,
    }
    batch = {
        "unitId": event.unit_id,
        "partition": partition,
        "after": after,
        "through": position,
        "facts": [fact],
    }
    return orjson.dumps(batch, option=orjson.OPT_UTC_Z)


async def publish_mqtt(job: Job) -> None:
    """The same facts, to a topic of each unit, each acknowledged by the broker."""
    loop = asyncio.get_running_loop()
    last: dict[str, int] = {}
    messages = []
    for number, turn in enumerate(job.turns()):
        unit_id = unit_name(turn)
        messages.append(Message(unit_id, batch_of(event_of(unit_id, number), 0, last.get(unit_id, 0), number + 1)))
        last[unit_id] = number + 1
    under_way: set[int] = set()
    connected = asyncio.Event()

    class Source(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
            self.packets = mqtt.Packets()
            self.transport = transport
            transport.write(mqtt.connect("bench-source"))

        def data_received(self, data: bytes) -> None:
            for kind, body in self.packets.feed(data):
                if kind == mqtt.CONNACK:
                    connected.set()
                elif kind == mqtt.PUBACK:
                    under_way.discard(int.from_bytes(body[:2], "big"))

    transport, _ = await loop.create_connection(Source, "127.0.0.1", job.port)
    async with asyncio.timeout(10):
        await connected.wait()
    packet_id = 0

    def send(message: Message) -> None:
        nonlocal packet_id
        packet_id = packet_id % 65535 + 1
        under_way.add(packet_id)
        transport.write(mqtt.publish(packet_id, f"unit/{message.unit_id}/feed", message.stamped()))

    await _on_order(messages, job.rate, send, under_way)
    transport.close()


async def _on_order(
    messages: list[Message],
    rate: float,
    send: Callable[[Message], None],
    under_way: set[Any],  # Any: whatever waits
) -> None:
    print('{"ready":true}', flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu, began = time.process_time(), time.monotonic()
    await scheduled(messages, rate, send)
    sent_after = time.monotonic() - began
    async with asyncio.timeout(SAFE_DEADLINE):
        while under_way:  # noqa: ASYNC110 - others empty it, and say nothing
            await asyncio.sleep(0.01)
    print(json.dumps(asdict(Sent(len(messages), sent_after, time.process_time() - cpu))), flush=True)


KINDS = {"commands": publish_commands, "pushes": push_facts, "mqtt": publish_mqtt}

if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for answers
    uvloop.run(KINDS[sys.argv[1]](Job(**json.loads(Path(sys.argv[2]).read_text()))))
