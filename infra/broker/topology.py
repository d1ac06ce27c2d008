"""What exists on the broker: exchanges, queues and bindings as data, declared by one function, checked by another.

Names and routing keys are `contracts.routing`'s. Queues of one process (a bridge's inbox, a gateway's replies) are
declared by those who live on them: `infra.broker.inbox`, `infra.broker.replies`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiormq
import structlog

from contracts import routing
from infra.broker import wire
from infra.broker.connection import BROKER_TROUBLE, BrokerConnection
from infra.broker.errors import BrokerUnavailable
from infra.broker.reconnect import Backoff
from infra.findings import Finding

log = structlog.get_logger()

DELIVERY_LIMIT: Final = 500
"""Returns after which the broker gives a message up. High: every hand-over counts against all that was unacknowledged;
handlers count by command id and find the cause long before."""
NO_DELIVERY_LIMIT: Final = 1_000_000_000
"""For the fallback queues, which have nowhere further to fall: brokers from 4.0 on would drop after 20 returns."""
DELIVERY_LIMIT_KEY: Final = "commands.delivery_limit"
LIVE_CALLS: Final = "unit.*.call.#"
OLDEST_VERSION: Final = (3, 10)
DECLARE_TIMEOUT: Final = 60.0
AGAIN_SECONDS: Final = 30.0
ALARM_TIMEOUT: Final = 2.0
NOBODY: Final = "carespine.doctor.nobody"

Question = Callable[[aiormq.abc.AbstractChannel], Awaitable[object]]


@dataclass(frozen=True)
class Queue:
    """A durable quorum queue and what it is bound to."""

    name: str
    arguments: dict[str, Any]  # Any: AMQP field values
    bindings: tuple[tuple[str, str], ...]
    """(exchange, routing key pattern)"""


@dataclass(frozen=True)
class Topology:
    """Everything durable on the broker."""

    queues: tuple[Queue, ...]
    exchanges: tuple[str, ...] = field(default=(routing.COMMANDS, routing.EVENTS, routing.DEAD))
    """Topic exchanges, all durable."""
    forwarding: tuple[tuple[str, str, str], ...] = field(default=((routing.COMMANDS, routing.EVENTS, LIVE_CALLS),))
    """(source, destination, routing key pattern): live calls reach a bridge through the one binding it has for a
    unit.
    """


def topology(partitions: int) -> Topology:
    """What an installation of so many partitions needs."""
    return Topology(queues=(*(_commands(p) for p in range(partitions)), *_fallback()))


async def declare(url: str, *, partitions: int, timeout: float = DECLARE_TIMEOUT) -> None:
    """Make it so; what is there already stays untouched, so every process may call this at its start.

    Raises BrokerUnavailable, with reason `mismatch` when something exists under our names but otherwise than expected:
    `carespine doctor` says what.
    """
    connection = await BrokerConnection.open(url, name="carespine.topology")
    try:
        async with asyncio.timeout(timeout):
            rpc = (await connection.channel()).rpc
            await _declare(rpc, topology(partitions))
    except (aiormq.exceptions.ChannelPreconditionFailed, aiormq.exceptions.ChannelNotFoundEntity) as mismatch:
        raise BrokerUnavailable("mismatch") from mismatch
    except BROKER_TROUBLE as trouble:
        raise BrokerUnavailable("timeout" if isinstance(trouble, TimeoutError) else "lost") from trouble
    finally:
        await connection.close()


async def keep_declaring(url: str, *, partitions: int) -> None:
    """Declare as soon as the broker lets us, and again now and then: what somebody deleted is back within a minute.

    For a task of every process that needs the topology; runs until cancelled.
    """
    backoff = Backoff()
    while True:
        try:
            await declare(url, partitions=partitions)
            backoff.reset()
            pause = AGAIN_SECONDS
        except BrokerUnavailable as why:
            log.warning("topology_not_declared", reason=why.reason)
            pause = AGAIN_SECONDS if why.reason == "mismatch" else backoff.next()
        await asyncio.sleep(pause)


async def check(url: str, *, partitions: int = 16) -> list[Finding]:
    """Compare the live broker with what the code expects. Changes nothing. Never raises for what it finds."""
    try:
        connection = await BrokerConnection.open(url, name="carespine.doctor")
    except BrokerUnavailable as trouble:
        seen = "access refused" if trouble.reason == "access_refused" else "no connection"
        remedy = "start RabbitMQ, or correct CARESPINE_RABBITMQ_URL (host, port, user, password, virtual host)"
        return [_failed("rabbitmq.connect", seen=seen, expected="an answer, and access", remedy=remedy)]
    try:
        findings = [
            _ok("rabbitmq.connect", "connected"),
            _version(connection.broker_version),
            await _alarm(url),
        ]
        wanted = topology(partitions)
        for exchange in wanted.exchanges:
            findings.append(await _exchange(connection, exchange))
        for queue in wanted.queues:
            findings.append(await _queue(connection, queue))
        return findings
    finally:
        await connection.close()


async def _declare(rpc: aiormq.abc.AbstractChannel, wanted: Topology) -> None:
    for exchange in wanted.exchanges:
        await rpc.exchange_declare(exchange, exchange_type="topic", durable=True)
    for source, destination, pattern in wanted.forwarding:
        await rpc.exchange_bind(destination, source, pattern)
    for queue in wanted.queues:
        await rpc.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        for exchange, pattern in queue.bindings:
            await rpc.queue_bind(queue.name, exchange, pattern)


def _commands(partition: int) -> Queue:
    return Queue(
        name=routing.commands_queue(partition),
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": routing.DEAD,
            "x-dead-letter-routing-key": DELIVERY_LIMIT_KEY,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # at-least-once dead-lettering asks for it
        },
        bindings=((routing.COMMANDS, routing.partition_binding(partition)),),
    )


def _fallback() -> Iterator[Queue]:
    for name, pattern in ((routing.DEAD_COMMANDS, "commands.#"), (routing.DEAD_UNITS, "units.#")):
        yield Queue(
            name=name,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT},
            bindings=((routing.DEAD, pattern),),
        )


def _ok(check_id: str, seen: str) -> Finding:
    return Finding(id=check_id, state="ok", seen=seen, expected=seen, remedy="")


def _failed(check_id: str, *, seen: str, expected: str, remedy: str) -> Finding:
    return Finding(id=check_id, state="failed", seen=seen, expected=expected, remedy=remedy)


def _version(version: str) -> Finding:
    parts = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if parts >= OLDEST_VERSION:
        return _ok("rabbitmq.version", version)
    oldest = ".".join(map(str, OLDEST_VERSION))
    return _failed(
        "rabbitmq.version",
        seen=version,
        expected=f"{oldest} or later",
        remedy=f"upgrade RabbitMQ: at-least-once dead-lettering needs {oldest}",
    )


async def _alarm(url: str) -> Finding:
    # A broker short of memory or disk lets everybody in, and stops reading from whoever publishes: so a connection of
    # its own publishes a message to nobody and asks whether it is still heard.
    seen = "no answer after publishing"
    with suppress(BrokerUnavailable, TimeoutError):
        connection = await BrokerConnection.open(url, name="carespine.doctor.alarm")
        try:
            channel = await connection.channel()
            nothing = wire.publish(channel.number, "", NOBODY, b"", message_id=None, frame_max=4096, mandatory=False)
            channel.send(nothing)
            async with asyncio.timeout(ALARM_TIMEOUT):
                await connection.channel()
            return _ok("rabbitmq.alarms", "none")
        finally:
            if connection.blocked:
                seen = "publishers are blocked"
            connection.abort()
    remedy = "free disk space or memory on the broker's machine; `rabbitmq-diagnostics alarms` names the alarm"
    return _failed("rabbitmq.alarms", seen=seen, expected="no memory or disk alarm", remedy=remedy)


async def _exchange(connection: BrokerConnection, name: str) -> Finding:
    check_id = f"rabbitmq.exchange.{name}"
    found = await _ask(connection, lambda rpc: rpc.exchange_declare(name, passive=True))
    if found is None:
        found = await _ask(connection, lambda rpc: rpc.exchange_declare(name, exchange_type="topic", durable=True))
    return _verdict(
        check_id,
        found,
        "a durable topic exchange",
        f"delete the exchange {name} and restart a process: it is declared anew",
    )


async def _queue(connection: BrokerConnection, queue: Queue) -> Finding:
    check_id = f"rabbitmq.queue.{queue.name}"
    # Passively first: it must not be made here. Then with its arguments, which the broker compares.
    found = await _ask(connection, lambda rpc: rpc.queue_declare(queue.name, passive=True))
    if found is None:
        found = await _ask(
            connection, lambda rpc: rpc.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        )
    expected = ", ".join(f"{key}={value}" for key, value in queue.arguments.items())
    return _verdict(
        check_id, found, expected, f"drain the queue {queue.name}, delete it and restart a process: it is declared anew"
    )


def _verdict(check_id: str, trouble: str | None, expected: str, remedy: str) -> Finding:
    if trouble is None:
        return _ok(check_id, "as declared")
    if trouble == "missing":
        remedy = "run `carespine up`, or start a gateway or handler process: each declares what is missing"
    return _failed(check_id, seen=trouble, expected=expected, remedy=remedy)


async def _ask(connection: BrokerConnection, question: Question) -> str | None:
    """None when the broker agrees, else what it said. A refusal costs the channel, so each question has its own."""
    try:
        async with asyncio.timeout(DECLARE_TIMEOUT):
            channel = await connection.channel()
            await question(channel.rpc)
            await channel.close()
    except aiormq.exceptions.ChannelNotFoundEntity:
        return "missing"
    except aiormq.exceptions.ChannelPreconditionFailed:
        return "exists with other arguments"
    except (*BROKER_TROUBLE, BrokerUnavailable) as trouble:
        return f"not answered: {type(trouble).__name__}"
    return None
