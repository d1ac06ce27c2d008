"""One session may speak for a unit: takeover, fencing, suspension, expiry, violations, leaving. On real bridges."""

from __future__ import annotations

import asyncio
import json

import httpx

from contracts.frames import MAX_FRAME_BYTES, Ack, CloseCode, Ping, Pong, Submit
from contracts.unit import UnitResumed, UnitSuspended
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.facts import NOON
from tests.ws_bridge.raw_unit import linked

UNIT = "north"


async def acked(centre: Centre) -> tuple[object, ...] | None:
    cursor = await centre.database.execute(
        "SELECT epoch, bridge, acked_position, connected FROM unit_sessions WHERE unit_id = %s", (UNIT,)
    )
    return await cursor.fetchone()


async def test_a_newer_session_on_another_bridge_ends_the_older_one_and_goes_on_from_its_position(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    other = await bridges.start()
    await centre.unit(UNIT)
    async with (
        linked(url_of(bridge), UNIT, bridges.token(UNIT)) as old,
        linked(url_of(other), UNIT, bridges.token(UNIT)) as new,
    ):
        await old.knows((await old.hello()).head)
        first = await centre.happens(UNIT, patient())
        await old.knows(first)
        welcome = await new.hello(first)
        assert welcome.epoch == old.epoch + 1
        assert (await old.closed(within=2))[1] == CloseCode.SUPERSEDED
        second = await centre.happens(UNIT, patient())
        assert await new.knows(second) == [second]

        async def is_the_new_one_s() -> bool:
            return await acked(centre) == (welcome.epoch, other.name, second, True)

        await eventually(is_the_new_one_s)


async def test_a_newer_session_on_the_same_bridge_ends_the_older_one(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    async with (
        linked(url_of(bridge), UNIT, bridges.token(UNIT)) as old,
        linked(url_of(bridge), UNIT, bridges.token(UNIT)) as new,
    ):
        await old.hello()
        await new.hello()
        assert (await old.closed(within=2))[1] == CloseCode.SUPERSEDED
        live = await centre.happens(UNIT, patient())
        assert (await new.knows(live))[-1] == live


async def test_a_bridge_that_slept_through_a_takeover_changes_nothing_and_lets_go(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    other = await bridges.start()
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as old:
        await old.hello()
        first = await centre.happens(UNIT, patient())
        await old.knows(first, ack=False)
        bridge.freeze()
        await old.say(Ack(epoch=old.epoch, position=first))
        async with linked(url_of(other), UNIT, bridges.token(UNIT)) as new:
            welcome = await new.hello(0)
            bridge.thaw()
            assert (await old.closed(within=20))[1] == CloseCode.SUPERSEDED
            assert await acked(centre) == (welcome.epoch, other.name, 0, True)
            assert (await new.knows(first))[-1] == first


async def test_a_frame_with_an_older_epoch_ends_the_link(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        await unit.say(Ack(epoch=0, position=0))
        assert (await unit.closed())[1] == CloseCode.SUPERSEDED


async def test_a_suspended_unit_is_cut_off_and_gets_everything_when_it_is_resumed(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        head = (await unit.hello()).head
        await unit.knows(head)
        await centre.standing(UNIT, "suspended")
        await centre.happens(UNIT, UnitSuspended(unit_id=UNIT, reason="audit"))
        bye, code = await unit.closed()
        assert code == CloseCode.UNIT_SUSPENDED
        assert bye is not None
        assert bye.reason == "the unit is suspended"
        assert bye.retry_after_seconds, "it is told when to come back"
    await centre.happens(UNIT, patient())
    await centre.standing(UNIT, "active")
    last = await centre.happens(UNIT, UnitResumed(unit_id=UNIT))
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello(head)
        assert await unit.knows(last) == [head + 1, head + 2, head + 3]


async def test_a_token_that_expires_ends_its_link(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT, ttl=3)) as unit:
        await unit.hello()
        assert (await unit.closed(within=10))[1] == CloseCode.TOKEN_NOT_VALID


NOT_FRAMES: list[str | bytes] = [
    "{",
    '{"type": "drop table"}',
    b"\xff\x00",
    '{"type": "ack", "epoch": %d, "position": 999999}',
    '{"type": "hello", "unitId": "north", "position": 0, "agentVersion": "1"}',
    "x" * (MAX_FRAME_BYTES + 1),
]


async def test_one_that_breaks_the_protocol_is_cut_and_nobody_else_notices(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    async with linked(url_of(bridge), "south", bridges.token("south")) as good:
        await good.knows((await good.hello()).head)
        for frame in NOT_FRAMES:
            async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as bad:
                epoch = (await bad.hello()).epoch
                await bad.say(frame % epoch if isinstance(frame, str) and "%d" in frame else frame)
                assert (await bad.closed())[1] == (1009 if len(frame) > MAX_FRAME_BYTES else CloseCode.NOT_THE_PROTOCOL)
            live = await centre.happens("south", patient())
            assert (await good.knows(live))[-1] == live
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(bridge.health_url + "/metrics")).text
    assert 'carespine_unit_closes_total{code="4400"} 5.0' in metrics
    assert 'carespine_unit_closes_total{code="4413"} 1.0' in metrics
    assert "drop table" not in bridge.log_text()


async def test_a_ping_is_answered(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        await unit.say(Ping())
        await unit.hears(Pong)


async def test_a_bridge_that_leaves_says_when_to_come_back_and_keeps_what_was_acknowledged(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    last = await centre.happens(UNIT, patient())
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        await unit.knows(last)
        stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
        bye, code = await unit.closed()
        assert code == CloseCode.GOING_AWAY
        assert bye is not None
        assert bye.retry_after_seconds is not None
        assert await stopping == 0
    assert await acked(centre) == (1, bridge.name, last, False)


async def test_a_unit_that_floods_is_held_back_by_its_own_line_only(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    async with (
        linked(url_of(bridge), "south", bridges.token("south")) as good,
        linked(url_of(bridge), UNIT, bridges.token(UNIT)) as noisy,
    ):
        await good.knows((await good.hello()).head)
        await noisy.hello()
        frame = Submit(epoch=noisy.epoch, command_id=new_id(), command="unheard.Of", payload={}, issued_at=NOON)

        async def flood() -> None:
            for _ in range(3000):
                await noisy.say(frame)

        flooding = asyncio.create_task(flood())
        for _ in range(10):
            await good.knows(await centre.happens("south", patient()), within=3)
        await flooding


async def test_a_hello_that_no_table_could_hold_ends_its_own_link_and_no_other(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    async with linked(url_of(bridge), "south", bridges.token("south")) as neighbour:
        await neighbour.hello()
        for wrong in ({"position": 2**63}, {"agentVersion": "1\x00"}):
            hello = {"type": "hello", "unitId": UNIT, "position": 0, "agentVersion": "1", **wrong}
            async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
                await unit.say(json.dumps(hello))
                assert (await unit.closed())[1] == CloseCode.NOT_THE_PROTOCOL
        await neighbour.say(Ping())
        await neighbour.hears(Pong)
