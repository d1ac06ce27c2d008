"""The topology: declared as often as anybody likes, checked without changing anything."""

from __future__ import annotations

import aiormq
import pytest

from contracts import routing
from infra.broker.connection import BrokerConnection
from infra.broker.consumer import ConsumingConnection
from infra.broker.errors import BrokerUnavailable, ConsumerRefused
from infra.broker.publisher import Publisher
from infra.broker.topology import check, declare, topology
from infra.services.ports import free_ports

PARTITIONS = 3


@pytest.fixture
async def declared(rabbitmq: str, rpc: aiormq.abc.AbstractChannel) -> str:
    """A broker with the whole topology, its queues empty even where the tests share one virtual host."""
    for queue in topology(PARTITIONS).queues:
        await rpc.queue_delete(queue.name)
    await declare(rabbitmq, partitions=PARTITIONS)
    return rabbitmq


async def test_declared_twice_it_is_as_expected(declared: str) -> None:
    await declare(declared, partitions=PARTITIONS)
    findings = await check(declared, partitions=PARTITIONS)
    assert {finding.id for finding in findings} >= {
        "rabbitmq.connect",
        "rabbitmq.version",
        "rabbitmq.alarms",
        "rabbitmq.exchange.carespine.commands",
        "rabbitmq.queue.commands.p02",
        "rabbitmq.queue.dead.units",
    }
    assert [finding for finding in findings if finding.state != "ok"] == []


async def test_the_check_says_what_is_missing_and_makes_nothing(declared: str, rpc: aiormq.abc.AbstractChannel) -> None:
    await rpc.queue_delete("commands.p01")
    for _ in range(2):
        (finding,) = [found for found in await check(declared, partitions=PARTITIONS) if found.state != "ok"]
        assert (finding.id, finding.seen) == ("rabbitmq.queue.commands.p01", "missing")
        assert finding.remedy
    await declare(declared, partitions=PARTITIONS)
    assert all(found.state == "ok" for found in await check(declared, partitions=PARTITIONS))


async def test_the_check_says_what_is_otherwise_than_expected(rabbitmq: str, rpc: aiormq.abc.AbstractChannel) -> None:
    await rpc.queue_delete("commands.p00")  # there, where the tests share one virtual host
    await rpc.queue_declare("commands.p00", durable=True, arguments={"x-queue-type": "classic"})
    try:
        (finding,) = [
            found
            for found in await check(rabbitmq, partitions=PARTITIONS)
            if found.state != "ok" and found.id.endswith("p00")
        ]
        assert finding.seen == "exists with other arguments"
        assert "x-queue-type=quorum" in finding.expected
        with pytest.raises(BrokerUnavailable) as refused:
            await declare(rabbitmq, partitions=PARTITIONS)
        assert refused.value.reason == "mismatch"
    finally:
        await rpc.queue_delete("commands.p00")


async def test_where_no_broker_answers_the_check_says_what_to_do() -> None:
    (port,) = free_ports(1)
    (finding,) = await check(f"amqp://guest:guest@127.0.0.1:{port}/")
    assert (finding.id, finding.state) == ("rabbitmq.connect", "failed")
    assert "CARESPINE_RABBITMQ_URL" in finding.remedy


async def test_a_command_goes_to_its_partition_and_a_dead_one_to_its_fallback_queue(
    declared: str, publisher: Publisher, rpc: aiormq.abc.AbstractChannel
) -> None:
    key = routing.command_key("north", 2, "queue.CallNext")
    await publisher.publish(routing.COMMANDS, key, b"command", message_id="1")
    await publisher.publish(routing.DEAD, "commands.poison", b"dead command", message_id="2")
    await publisher.publish(routing.DEAD, "units.poison", b"dead for a unit", message_id="3")
    for queue, body in (
        ("commands.p02", b"command"),
        ("dead.commands", b"dead command"),
        ("dead.units", b"dead for a unit"),
    ):
        message = await rpc.basic_get(queue, no_ack=True)
        assert message.body == body


async def test_a_command_given_back_too_often_lands_in_the_fallback_queue(
    declared: str, publisher: Publisher, consuming: ConsumingConnection, rpc: aiormq.abc.AbstractChannel
) -> None:
    wanted = next(queue for queue in topology(1).queues if queue.name == "commands.p00")
    await rpc.queue_delete("commands.p00")
    await rpc.queue_declare("commands.p00", durable=True, arguments={**wanted.arguments, "x-delivery-limit": 2})
    await publisher.publish("", "commands.p00", b"poison", message_id="p")
    consumer = await consuming.consume("commands.p00")
    for _ in range(3):
        (delivery,) = await consumer.take(timeout=10)
        consumer.reject(delivery.tag, requeue=True)
    dead = await consuming.consume("dead.commands")
    (letter,) = await dead.take(timeout=10)
    assert (letter.body, letter.message_id, letter.routing_key) == (b"poison", "p", "commands.delivery_limit")
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"
    await consuming.release("dead.commands")
    await consuming.release("commands.p00")
    await rpc.queue_delete("commands.p00")


async def test_a_wrong_password_is_told_apart_from_nothing(rabbitmq: str) -> None:
    wrong = rabbitmq.replace("://", "://nobody:x@", 1) if "@" not in rabbitmq else None
    wrong = wrong or f"amqp://nobody:wrong@{rabbitmq.rsplit('@', 1)[1]}"
    with pytest.raises(BrokerUnavailable) as refused:
        await BrokerConnection.open(wrong, name="test")
    assert refused.value.reason == "access_refused"
    (finding,) = await check(wrong)
    assert finding.seen == "access refused"


async def test_the_check_disturbs_no_consumer(declared: str, consuming: ConsumingConnection) -> None:
    consumer = await consuming.consume("commands.p00")
    await check(declared, partitions=PARTITIONS)
    assert consumer.lost is None
    async with ConsumingConnection(declared, name="test.other") as other:
        await other.until_up()
        with pytest.raises(ConsumerRefused):
            await other.consume("commands.p00")
