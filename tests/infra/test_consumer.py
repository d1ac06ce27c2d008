"""Consuming: in order, by batches of what is there; what is not acknowledged goes back in order."""

from __future__ import annotations

import asyncio
import secrets

import aiormq
import pytest

from infra.broker.consumer import PREFETCH, Consumer, ConsumingConnection, Delivery
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused
from infra.broker.publisher import Publisher
from tests.infra.cable import Cable
from tests.infra.conftest import EXCHANGE, Line, publish_numbers
from tests.kit.waiting import eventually


async def taken(consumer: Consumer, count: int) -> list[Delivery]:
    """The next `count` deliveries."""
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        batch = await consumer.take(count - len(deliveries), timeout=10)
        assert batch, f"only {len(deliveries)} of {count} arrived"
        deliveries += batch
    return deliveries


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.body) for delivery in deliveries]


async def test_messages_come_in_order_with_all_they_carry(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publisher.publish(
        EXCHANGE, line.key, b"0", message_id="m0", headers={"a": "b"}, reply_to="r", correlation_id="c", type="t"
    )
    await publish_numbers(publisher, line, range(1, 300))
    consumer = await consuming.consume(line.queue)
    deliveries = await taken(consumer, 300)
    assert numbers(deliveries) == list(range(300))
    first = deliveries[0]
    assert (first.message_id, first.headers["a"], first.routing_key, first.exchange) == ("m0", "b", line.key, EXCHANGE)
    assert (first.properties.reply_to, first.properties.correlation_id, first.properties.type) == ("r", "c", "t")
    assert not first.redelivered


async def test_a_batch_is_what_has_arrived_and_never_more_than_asked(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    consumer = await consuming.consume(line.queue)
    assert await consumer.take(timeout=0.05) == []
    await publish_numbers(publisher, line, range(10))
    await eventually(lambda: consumer.buffered == 10)
    assert numbers(await consumer.take(4)) == [0, 1, 2, 3]
    assert numbers(await consumer.take()) == [4, 5, 6, 7, 8, 9]


async def test_acknowledged_is_gone_and_the_rest_comes_again(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(6))
    consumer = await consuming.consume(line.queue)
    deliveries = await taken(consumer, 6)
    consumer.ack_through(deliveries[2].tag)
    consumer.ack(deliveries[4].tag)
    await consumer.give_back()
    consumer = await consuming.consume(line.queue)
    again = await taken(consumer, 2)
    assert numbers(again) == [3, 5]
    assert all(delivery.redelivered for delivery in again)
    consumer.ack_through(again[-1].tag)
    await consumer.give_back()
    assert await line.count() == 0


async def test_what_is_given_back_comes_again_in_order_before_what_is_newer(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(200))
    consumer = await consuming.consume(line.queue, prefetch=150)
    deliveries = await taken(consumer, 150)
    consumer.ack_through(deliveries[39].tag)
    await consumer.give_back()
    await publish_numbers(publisher, line, range(200, 210))
    consumer = await consuming.consume(line.queue)
    assert numbers(await taken(consumer, 170)) == list(range(40, 210))


async def test_given_back_several_times_the_order_still_holds(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(60))
    for count in (7, 60, 1, 23):
        consumer = await consuming.consume(line.queue)
        assert numbers(await taken(consumer, count)) == list(range(count))
        await consumer.give_back()
    consumer = await consuming.consume(line.queue)
    assert numbers(await taken(consumer, 60)) == list(range(60))


async def test_nobody_else_consumes_beside_an_exclusive_consumer_until_it_lets_go(
    rabbitmq: str, publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(20))
    first = await consuming.consume(line.queue)
    await taken(first, 20)
    async with ConsumingConnection(rabbitmq, name="test.second") as other:
        await other.until_up()
        with pytest.raises(ConsumerRefused) as refused:
            await other.consume(line.queue)
        assert refused.value.reason == "exclusive"
        assert (other.expected, other.actual) == (1, 0)
        assert other.ready() == "0 of 1 consumers"
        await consuming.release(line.queue)
        second = await other.consume(line.queue)
        assert numbers(await taken(second, 20)) == list(range(20))
        assert (consuming.expected, other.expected, other.actual) == (0, 1, 1)


async def test_what_a_cut_off_consumer_held_comes_to_the_next_in_order(
    cable: Cable, publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(50))
    async with ConsumingConnection(cable.url, name="test.cut") as doomed:
        await doomed.until_up()
        consumer = await doomed.consume(line.queue)
        deliveries = await taken(consumer, 50)
        consumer.ack_through(deliveries[9].tag)
        waiting = asyncio.create_task(consumer.take())
        await line.count()  # a round trip: the acknowledgement went first, through the same broker
        cable.pull()
        with pytest.raises(ConsumerLost) as lost:
            await asyncio.wait_for(waiting, 2)
        assert lost.value.reason == "connection_lost"
        with pytest.raises(ConsumerLost):
            consumer.ack_through(deliveries[49].tag)
        assert (doomed.expected, doomed.actual) == (1, 0)
        assert doomed.ready() is not None
    next_one = await _as_soon_as_allowed(consuming, line)
    assert numbers(await taken(next_one, 40)) == list(range(10, 50))


async def test_what_a_former_consumer_delivered_is_never_acknowledged_to_its_successor(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(10))
    former = await consuming.consume(line.queue)
    deliveries = await taken(former, 10)
    await former.give_back()
    successor = await consuming.consume(line.queue)
    again = await taken(successor, 10)
    for acknowledge in (successor.ack_through, successor.ack, successor.reject):
        with pytest.raises(ConsumerLost) as lost:
            acknowledge(deliveries[4].tag)
        assert lost.value.reason == "former_consumer"
    successor.ack_through(again[4].tag)
    await consuming.release(line.queue)
    assert await line.count() == 5


@pytest.mark.parametrize("end", ["given back", "cut off"])
async def test_an_impatient_successor_never_overtakes_what_its_predecessor_held(
    end: str, rabbitmq: str, publisher: Publisher, line: Line
) -> None:
    await publish_numbers(publisher, line, range(40))
    for _ in range(10):
        async with Cable(rabbitmq) as cable, ConsumingConnection(cable.url, name="test.predecessor") as before:
            await before.until_up()
            consumer = await before.consume(line.queue, prefetch=20)
            await taken(consumer, 20)
            async with ConsumingConnection(rabbitmq, name="test.successor") as after:
                await after.until_up()
                impatient = asyncio.create_task(_as_soon_as_allowed(after, line, prefetch=20))
                if end == "given back":
                    await before.release(line.queue)
                else:
                    cable.pull()
                successor = await asyncio.wait_for(impatient, 20)
                assert numbers(await taken(successor, 20)) == list(range(20))


async def test_a_consumer_given_up_while_it_starts_does_not_go_on_unseen(
    rabbitmq: str, publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    await publish_numbers(publisher, line, range(20))
    async with ConsumingConnection(rabbitmq, name="test.other") as other:
        await other.until_up()
        for turns in range(60):
            starting = asyncio.create_task(consuming.consume(line.queue))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await consuming.release(line.queue)
            successor = await _as_soon_as_allowed(other, line)
            assert numbers(await taken(successor, 20)) == list(range(20))
            await other.release(line.queue)


async def test_one_process_does_not_consume_a_queue_twice(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    starting = [asyncio.create_task(consuming.consume(line.queue)) for _ in range(3)]
    results = await asyncio.gather(*starting, return_exceptions=True)
    assert [type(result) for result in results] == [Consumer, ConsumerRefused, ConsumerRefused]
    with pytest.raises(ConsumerRefused):
        await consuming.consume(line.queue)
    await publish_numbers(publisher, line, range(3))
    consumer = results[0]
    assert isinstance(consumer, Consumer)
    assert numbers(await taken(consumer, 3)) == [0, 1, 2]


async def test_a_consumer_notices_that_its_queue_is_deleted(consuming: ConsumingConnection, line: Line) -> None:
    consumer = await consuming.consume(line.queue)
    waiting = asyncio.create_task(consumer.take())
    await line.delete()
    with pytest.raises(ConsumerLost) as lost:
        await asyncio.wait_for(waiting, 5)
    assert lost.value.reason == "cancelled"
    assert (consuming.expected, consuming.actual) == (1, 0)
    with pytest.raises(ConsumerRefused) as refused:
        await consuming.consume(line.queue)
    assert refused.value.reason == "missing"


async def test_a_refused_consumer_does_not_disturb_its_neighbours(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    consumer = await consuming.consume(line.queue)
    for _ in range(20):
        with pytest.raises(ConsumerRefused):
            await consuming.consume(f"test.{secrets.token_hex(4)}")
    await publish_numbers(publisher, line, range(5))
    assert numbers(await taken(consumer, 5)) == list(range(5))


async def test_sixteen_consumers_come_and_go_on_one_connection(
    publisher: Publisher, consuming: ConsumingConnection, rpc: aiormq.abc.AbstractChannel
) -> None:
    queues = [f"test.{secrets.token_hex(6)}" for _ in range(16)]
    for queue in queues:
        await rpc.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    try:
        for turn in range(3):
            consumers = await asyncio.gather(*(consuming.consume(queue) for queue in queues))
            assert (consuming.expected, consuming.actual) == (16, 16)
            await asyncio.gather(*(publisher.publish("", queue, b"%d" % turn, message_id=queue) for queue in queues))
            for consumer in consumers:
                (delivery,) = await taken(consumer, 1)
                assert (delivery.message_id, delivery.body) == (consumer.queue, b"%d" % turn)
                consumer.ack(delivery.tag)
            await asyncio.gather(*(consuming.release(queue) for queue in queues))
            assert (consuming.expected, consuming.actual) == (0, 0)
    finally:
        for queue in queues:
            await rpc.queue_delete(queue)


async def test_a_rejected_message_goes_to_the_dead_letter_exchange(
    publisher: Publisher, consuming: ConsumingConnection, line: Line, rpc: aiormq.abc.AbstractChannel
) -> None:
    shared = f"test.{secrets.token_hex(6)}"
    await rpc.queue_declare(
        shared,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": EXCHANGE,
            "x-dead-letter-routing-key": line.key,
        },
    )
    try:
        await publish_numbers_to(publisher, shared, range(3))
        consumer = await consuming.consume(shared)
        deliveries = await taken(consumer, 3)
        consumer.reject(deliveries[1].tag)
        dead = await consuming.consume(line.queue)
        (letter,) = await taken(dead, 1)
        assert letter.body == b"1"
        assert letter.headers["x-death"][0]["reason"] == "rejected"
    finally:
        await rpc.queue_delete(shared)


async def test_while_the_broker_is_away_a_consumer_is_refused_and_comes_back_later(cable: Cable, line: Line) -> None:
    cable.pull()
    async with ConsumingConnection(cable.url, name="test") as consuming:
        with pytest.raises(BrokerUnavailable):
            await consuming.consume(line.queue)
        cable.plug()
        await consuming.until_up()
        await consuming.consume(line.queue)
        assert consuming.ready() is None


async def test_a_callback_gets_deliveries_as_they_arrive(
    publisher: Publisher, consuming: ConsumingConnection, line: Line
) -> None:
    seen: list[bytes] = []
    await consuming.consume(line.queue, no_ack=True, on_delivery=lambda delivery: seen.append(delivery.body))
    await publish_numbers(publisher, line, range(5))
    await eventually(lambda: len(seen) == 5)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


async def publish_numbers_to(publisher: Publisher, queue: str, range_: range) -> None:
    for number in range_:
        await publisher.publish("", queue, b"%d" % number, message_id=str(number))


async def _as_soon_as_allowed(consuming: ConsumingConnection, line: Line, prefetch: int = PREFETCH) -> Consumer:
    async def attempt() -> Consumer | None:
        try:
            return await consuming.consume(line.queue, prefetch=prefetch)
        except ConsumerRefused:
            return None

    consumer = await eventually(attempt, what="the broker to let the next consumer in")
    assert consumer is not None
    return consumer
