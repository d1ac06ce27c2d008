"""Publishing: confirmed means safe, everything else is said within the deadline."""

from __future__ import annotations

import asyncio
import secrets

import aiormq
import pytest

from infra.broker.consumer import ConsumingConnection
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.telemetry.metrics import Metrics
from tests.infra.cable import Cable
from tests.infra.conftest import EXCHANGE, Line, publish_numbers
from tests.kit.waiting import eventually


async def test_a_confirmed_message_is_in_the_queue_as_it_was_published(
    publisher: Publisher, line: Line, rpc: aiormq.abc.AbstractChannel
) -> None:
    await publisher.publish(
        EXCHANGE, line.key, b'{"a":1}', message_id="m1", headers={"attempt": 1}, reply_to="replies.x",
        correlation_id="c1", type="queue.CallNext", expiration=60_000,
    )  # fmt: skip
    message = await rpc.basic_get(line.queue, no_ack=True)
    properties = message.header.properties
    assert message.body == b'{"a":1}'
    assert (properties.message_id, properties.reply_to, properties.correlation_id) == ("m1", "replies.x", "c1")
    assert (properties.message_type, properties.expiration, properties.delivery_mode) == ("queue.CallNext", "60000", 2)
    assert properties.headers is not None
    assert properties.headers["attempt"] == 1


async def test_many_callers_at_once_lose_nothing_and_double_nothing(publisher: Publisher, line: Line) -> None:
    await asyncio.gather(
        *(publisher.publish(EXCHANGE, line.key, b"%d" % number, message_id=str(number)) for number in range(3000))
    )
    assert await line.count() == 3000
    assert publisher.in_flight == 0


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 500_000])
async def test_a_body_of_any_size_arrives_whole(
    publisher: Publisher, consuming: ConsumingConnection, line: Line, size: int
) -> None:
    body = secrets.token_bytes(size)
    await publisher.publish(EXCHANGE, line.key, body, message_id="m")
    consumer = await consuming.consume(line.queue)
    (delivery,) = await consumer.take(timeout=5)
    assert delivery.body == body


async def test_a_message_no_queue_wants_is_unroutable_and_the_others_are_not(publisher: Publisher, line: Line) -> None:
    sent = [publisher.publish(EXCHANGE, line.key, b"", message_id=str(number)) for number in range(50)]
    lost = [publisher.publish(EXCHANGE, f"nobody.{n}", b"", message_id=f"lost-{n}") for n in range(50)]
    results = await asyncio.gather(*sent, *lost, return_exceptions=True)
    assert results[:50] == [None] * 50
    for number, result in enumerate(results[50:]):
        assert isinstance(result, Unroutable)
        assert result.routing_key == f"nobody.{number}"


async def test_a_message_that_may_be_dropped_is_dropped_in_silence(publisher: Publisher) -> None:
    await publisher.publish(EXCHANGE, "nobody.is.there", b"", message_id="m", mandatory=False)
    publisher.publish_nowait(EXCHANGE, "nobody.is.there", b"")


async def test_an_unconfirmed_message_arrives_all_the_same(publisher: Publisher, line: Line) -> None:
    publisher.publish_nowait(EXCHANGE, line.key, b"x", message_id="m")
    await eventually(line.count, what="the message")


async def test_without_a_confirm_the_caller_hears_so_at_the_deadline(cable: Cable, line: Line) -> None:
    async with Publisher(cable.url, name="test") as publisher:
        await publisher.until_up()
        cable.hold_answers()
        started = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnavailable) as refused:
            await publisher.publish(EXCHANGE, line.key, b"1", message_id="1", deadline=0.3)
        took = asyncio.get_running_loop().time() - started
        assert refused.value.reason == "no_confirm"
        assert 0.3 <= took < 0.6
        cable.let_answers_through()
        await publisher.publish(EXCHANGE, line.key, b"2", message_id="2")
        assert await line.count() == 2, "the one without a confirm was delivered all the same"
        assert publisher.in_flight == 0


async def test_a_cut_connection_fails_what_is_in_flight_at_once_and_publishing_resumes(
    cable: Cable, line: Line
) -> None:
    async with Publisher(cable.url, name="test") as publisher:
        await publisher.until_up()
        cable.hold_answers()
        caller = asyncio.create_task(publisher.publish(EXCHANGE, line.key, b"1", message_id="1", deadline=60))
        await eventually(lambda: publisher.in_flight == 1)
        cable.pull()
        with pytest.raises(BrokerUnavailable) as refused:
            await asyncio.wait_for(caller, 2)
        assert refused.value.reason == "lost"
        with pytest.raises(BrokerUnavailable) as refused:
            await publisher.publish(EXCHANGE, line.key, b"2", message_id="2", deadline=60)
        assert refused.value.reason == "not_connected"
        assert publisher.ready() is not None
        cable.let_answers_through()
        cable.plug()
        await publisher.until_up()
        assert publisher.ready() is None
        await publisher.publish(EXCHANGE, line.key, b"3", message_id="3")


async def test_a_publisher_starts_while_the_broker_is_away_and_works_when_it_comes(cable: Cable, line: Line) -> None:
    cable.pull()
    async with Publisher(cable.url, name="test") as publisher:
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(EXCHANGE, line.key, b"", message_id="1")
        with pytest.raises(BrokerUnavailable):
            publisher.publish_nowait(EXCHANGE, line.key, b"")
        cable.plug()
        await publisher.until_up()
        await publisher.publish(EXCHANGE, line.key, b"", message_id="2")


async def test_more_than_the_limit_waits_for_room_until_its_deadline(cable: Cable, line: Line) -> None:
    async with Publisher(cable.url, name="test", max_in_flight=10) as publisher:
        await publisher.until_up()
        cable.hold_answers()
        callers = [
            asyncio.create_task(publisher.publish(EXCHANGE, line.key, b"", message_id=str(n), deadline=30))
            for n in range(12)
        ]
        await eventually(lambda: publisher.in_flight == 10)
        with pytest.raises(BrokerUnavailable) as refused:
            await publisher.publish(EXCHANGE, line.key, b"", message_id="late", deadline=0.1)
        assert refused.value.reason == "full"
        assert publisher.in_flight == 10
        cable.let_answers_through()
        await asyncio.gather(*callers)
        assert await line.count() == 12


async def test_a_caller_who_gives_up_leaves_nothing_behind(cable: Cable, line: Line) -> None:
    async with Publisher(cable.url, name="test") as publisher:
        await publisher.until_up()
        cable.hold_answers()
        caller = asyncio.create_task(publisher.publish(EXCHANGE, line.key, b"", message_id="1"))
        await eventually(lambda: publisher.in_flight == 1)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        cable.let_answers_through()
        await eventually(lambda: publisher.in_flight == 0)


async def test_a_full_queue_that_rejects_is_told_to_the_caller(
    publisher: Publisher, rpc: aiormq.abc.AbstractChannel
) -> None:
    name = f"test.{secrets.token_hex(6)}"
    await rpc.queue_declare(
        name, durable=False, exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    await publisher.publish("", name, b"1", message_id="1")
    with pytest.raises(BrokerUnavailable) as refused:
        await publisher.publish("", name, b"2", message_id="2")
    assert refused.value.reason == "rejected"


async def test_publishing_to_an_exchange_that_is_not_there_fails_and_publishing_goes_on(
    publisher: Publisher, line: Line
) -> None:
    with pytest.raises(BrokerUnavailable) as refused:
        await publisher.publish("no.such.exchange", "k", b"", message_id="1")
    assert refused.value.reason == "lost"
    await publisher.until_up()
    await publish_numbers(publisher, line, range(3))
    assert await line.count() == 3


async def test_confirms_and_failures_are_measured(cable: Cable, line: Line) -> None:
    metrics = Metrics()
    async with Publisher(cable.url, name="test", metrics=metrics) as publisher:
        await publisher.until_up()
        await publish_numbers(publisher, line, range(3))
        with pytest.raises(Unroutable):
            await publisher.publish(EXCHANGE, "nobody", b"", message_id="m")
        cable.pull()
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(EXCHANGE, line.key, b"", message_id="m")
    told = metrics.exposition().decode()
    assert "carespine_publish_confirm_duration_seconds_count 3.0" in told
    assert 'carespine_publish_failures_total{reason="unroutable"} 1.0' in told
