"""Answers reach whoever waits for them, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from infra.broker.errors import BrokerUnavailable, ReplyLost
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox, packed
from tests.infra.cable import Cable


@pytest.fixture
async def box(cable: Cable) -> AsyncIterator[ReplyBox]:
    """A reply box on a cable."""
    async with ReplyBox(cable.url, instance=f"test-{secrets.token_hex(4)}") as box:
        await box.until_up()
        yield box


def answer(publisher: Publisher, box: ReplyBox, command_id: str, body: bytes) -> None:
    assert box.queue is not None
    publisher.publish_nowait("", box.queue, body, correlation_id=command_id)


async def test_each_waits_for_his_own_answer(publisher: Publisher, box: ReplyBox) -> None:
    async def ask(command_id: str) -> bytes:
        with box.expect(command_id) as reply:
            answer(publisher, box, command_id, f"to {command_id}".encode())
            return await asyncio.wait_for(reply, 5)

    ids = [f"c{number}" for number in range(200)]
    assert await asyncio.gather(*map(ask, ids)) == [f"to {command_id}".encode() for command_id in ids]
    assert box.waiting == 0


async def test_the_answers_of_a_batch_come_in_one_message(publisher: Publisher, box: ReplyBox) -> None:
    with box.expect("first") as first, box.expect("second") as second:
        assert box.queue is not None
        answers = [("first", b'{"detail":"two words"}'), ("nobody", b"{}"), ("second", b"{}")]
        publisher.publish_nowait("", box.queue, packed(answers))
        assert await asyncio.wait_for(first, 5) == b'{"detail":"two words"}'
        assert await asyncio.wait_for(second, 5) == b"{}"


async def test_two_who_wait_for_the_same_command_both_hear(publisher: Publisher, box: ReplyBox) -> None:
    with box.expect("c") as one, box.expect("c") as other:
        answer(publisher, box, "c", b"x")
        assert await asyncio.wait_for(one, 5) == await asyncio.wait_for(other, 5) == b"x"
    assert box.waiting == 0


async def test_who_does_not_wait_any_longer_leaves_nothing_behind(publisher: Publisher, box: ReplyBox) -> None:
    for number in range(100):
        with pytest.raises(TimeoutError), box.expect(f"c{number}") as reply:
            await asyncio.wait_for(reply, 0.001)
    assert box.waiting == 0
    answer(publisher, box, "c1", b"too late")
    with box.expect("next") as reply:
        answer(publisher, box, "next", b"in time")
        assert await asyncio.wait_for(reply, 5) == b"in time"


async def test_an_answer_nobody_looks_at_does_no_harm(publisher: Publisher, box: ReplyBox) -> None:
    with box.expect("c"):
        answer(publisher, box, "c", b"x")
    assert box.waiting == 0


async def test_when_the_connection_is_lost_whoever_waits_hears_so_at_once(
    publisher: Publisher, box: ReplyBox, cable: Cable
) -> None:
    with box.expect("c") as reply:
        cable.pull()
        with pytest.raises(ReplyLost):
            await asyncio.wait_for(reply, 5)
    assert box.waiting == 0
    assert box.queue is None
    with pytest.raises(BrokerUnavailable), box.expect("c"):
        pass
    cable.plug()
    await box.until_up()
    with box.expect("c") as reply:
        answer(publisher, box, "c", b"again")
        assert await asyncio.wait_for(reply, 5) == b"again"


async def test_a_second_box_of_the_same_name_takes_another_queue(cable: Cable, box: ReplyBox, rabbitmq: str) -> None:
    assert box.queue is not None
    async with ReplyBox(rabbitmq, instance=box.queue.removeprefix("replies.")) as second:
        await second.until_up()
        assert second.queue == f"{box.queue}.2"
