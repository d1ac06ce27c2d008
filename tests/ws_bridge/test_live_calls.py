"""Live calls through a real bridge: asked, answered, and what the caller hears when the unit does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from contracts.frames import Answer, Call
from contracts.live_call import CallOff, LiveAnswer
from contracts.routing import EVENTS, call_off_key
from infra.broker.errors import Unroutable
from infra.broker.replies import ReplyBox
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import RawUnit, linked

UNIT = "north"


@pytest.fixture
async def replies(rabbitmq: str) -> AsyncIterator[ReplyBox]:
    async with ReplyBox(rabbitmq, instance="asker") as box:
        await box.until_up()
        yield box


@pytest.fixture
async def unit(bridge: Started, bridges: Bridges, centre: Centre) -> AsyncIterator[RawUnit]:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as one:
        await one.hello()
        yield one


async def pending(bridge: Started, result: str = "timeout") -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(bridge.health_url + "/metrics")).text
    return f'carespine_unit_calls_total{{result="{result}"}}' in metrics


async def test_a_question_reaches_the_unit_and_its_answer_whoever_asked(
    unit: RawUnit, centre: Centre, replies: ReplyBox
) -> None:
    assert replies.queue is not None
    call_id = await centre.call(UNIT, "waiting-room", {"department": "intake"}, replies.queue)
    with replies.expect(str(call_id)) as answer:
        call = await unit.hears(Call)
        assert (call.call_id, call.name, call.body) == (call_id, "waiting-room", {"department": "intake"})
        await unit.say(Answer(epoch=unit.epoch, call_id=call_id, ok=True, body={"entries": []}))
        async with asyncio.timeout(5):
            found = LiveAnswer.model_validate_json(await answer)
    assert found == LiveAnswer(call_id=call_id, ok=True, body={"entries": []})


async def test_nobody_is_asked_for_a_unit_without_a_link(bridge: Started, centre: Centre, replies: ReplyBox) -> None:
    assert replies.queue is not None
    with pytest.raises(Unroutable):
        await centre.call(UNIT, "ping", {}, replies.queue)


async def test_when_the_unit_goes_while_it_is_asked_the_caller_hears_so_at_once(
    unit: RawUnit, centre: Centre, replies: ReplyBox
) -> None:
    assert replies.queue is not None
    call_id = await centre.call(UNIT, "ping", {}, replies.queue, seconds=60)
    with replies.expect(str(call_id)) as answer:
        await unit.hears(Call)
        await unit.socket.close()
        async with asyncio.timeout(5):
            found = LiveAnswer.model_validate_json(await answer)
    assert (found.ok, found.code) == (False, "unit_not_connected")


async def test_a_call_that_is_not_answered_is_forgotten_at_its_deadline(
    unit: RawUnit, bridge: Started, centre: Centre, replies: ReplyBox
) -> None:
    assert replies.queue is not None
    call_id = await centre.call(UNIT, "ping", {}, replies.queue, seconds=1)
    await unit.hears(Call)
    await eventually(lambda: pending(bridge), what="the bridge forgot the call")
    await unit.say(Answer(epoch=unit.epoch, call_id=call_id, ok=True))  # too late: nobody listens, nothing breaks
    second = await centre.call(UNIT, "ping", {}, replies.queue)
    assert (await unit.hears(Call)).call_id == second


async def test_a_question_nobody_waits_for_any_more_is_forgotten_before_its_deadline(
    unit: RawUnit, bridge: Started, centre: Centre, replies: ReplyBox
) -> None:
    assert replies.queue is not None
    call_id = await centre.call(UNIT, "ping", {}, replies.queue, seconds=60)
    with replies.expect(str(call_id)) as answer:
        await unit.hears(Call)
        off = CallOff(call_id=call_id, unit_id=UNIT)
        centre.publisher.publish_nowait(EVENTS, call_off_key(UNIT), off.to_json())
        await eventually(lambda: pending(bridge, "left"), what="the bridge forgot the call")
        await unit.say(Answer(epoch=unit.epoch, call_id=call_id, ok=True))
        second = await centre.call(UNIT, "ping", {}, replies.queue)
        assert (await unit.hears(Call)).call_id == second, "its place is free and the link stands"
        assert not answer.done()


async def test_a_unit_cannot_answer_for_another(
    unit: RawUnit, bridge: Started, bridges: Bridges, centre: Centre, replies: ReplyBox
) -> None:
    assert replies.queue is not None
    await centre.unit("south")
    async with linked(url_of(bridge), "south", bridges.token("south")) as other:
        await other.hello()
        call_id = await centre.call(UNIT, "ping", {}, replies.queue)
        with replies.expect(str(call_id)) as answer:
            await unit.hears(Call)
            await other.say(Answer(epoch=other.epoch, call_id=call_id, ok=True, body={"from": "south"}))
            await unit.say(Answer(epoch=unit.epoch, call_id=call_id, ok=True, body={"from": UNIT}))
            async with asyncio.timeout(5):
                assert LiveAnswer.model_validate_json(await answer).body == {"from": UNIT}
