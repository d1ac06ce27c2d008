"""A bridge speaks to its units on the strength of a lease; two agents with one identity do not take turns for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import httpx

from contracts.frames import CloseCode, Hello, Ping, Pong, Welcome
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import RawUnit, linked

UNIT = "north"


async def says_hello(unit: RawUnit, instance: UUID | None) -> None:
    await unit.say(Hello(unit_id=UNIT, position=0, agent_version="test", instance=instance))


async def row(centre: Centre, columns: str) -> tuple[object, ...] | None:
    cursor = await centre.database.execute(
        f"SELECT {columns} FROM unit_sessions WHERE unit_id = %s".encode(),  # noqa: S608 - the test's own columns
        (UNIT,),
    )
    return await cursor.fetchone()


async def test_a_link_is_held_on_a_lease_that_ends_with_it(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    instance = new_id()
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await says_hello(unit, instance)
        await unit.hears(Welcome)
        held = await row(centre, "instance, extract(epoch FROM lease_until - now())::int BETWEEN 40 AND 45")
        assert held == (instance, True)

    async def let_go() -> bool:
        return await row(centre, "connected, lease_until <= now()") == (False, True)

    await eventually(let_go)


async def test_of_two_agents_with_one_identity_the_one_that_was_there_first_keeps_the_link(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    other = await bridges.start()
    await centre.unit(UNIT)
    old, clone = new_id(), new_id()
    url, token = url_of(bridge), bridges.token(UNIT)
    async with AsyncExitStack() as stack:

        async def arrives(instance: UUID, at: str = url) -> RawUnit:
            unit = await stack.enter_async_context(linked(at, UNIT, token))
            await says_hello(unit, instance)
            return unit

        first = await arrives(old)
        await first.hears(Welcome)
        second = await arrives(clone, url_of(other))
        await second.hears(Welcome)
        assert (await first.closed())[1] == CloseCode.SUPERSEDED
        third = await arrives(old)
        welcome = await third.hears(Welcome)
        assert (await second.closed())[1] == CloseCode.SUPERSEDED
        for at in (url, url_of(other)):
            bye, code = await (await arrives(clone, at)).closed()
            assert code == CloseCode.CONTESTED
            assert bye is not None
            assert (bye.retry_after_seconds or 0) >= 60
        await third.say(Ping())
        await third.hears(Pong)
        assert await row(centre, "epoch, instance, connected, contested_until > now()") == (
            welcome.epoch, old, True, True,
        )  # fmt: skip
        fourth = await arrives(old)
        assert (await fourth.hears(Welcome)).epoch == welcome.epoch + 1, "it may come back however contested it is"
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(bridge.health_url + "/metrics")).text
    assert 'carespine_unit_hello_total{result="contested"} 1.0' in metrics


async def test_whoever_is_left_of_two_gets_the_link(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    old, clone = new_id(), new_id()
    token = bridges.token(UNIT)
    for instance in (old, clone, old):
        async with linked(url_of(bridge), UNIT, token) as unit:
            await says_hello(unit, instance)
            await unit.hears(Welcome)
    async with linked(url_of(bridge), UNIT, token) as unit:

        async def nobody_has_it() -> bool:
            return await row(centre, "connected") == (False,)

        await eventually(nobody_has_it)
        await says_hello(unit, clone)
        await unit.hears(Welcome)


async def test_one_agent_that_comes_back_often_is_never_contested(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    for instance in (new_id(), None):
        async with AsyncExitStack() as stack:
            for _ in range(6):
                unit = await stack.enter_async_context(linked(url_of(bridge), UNIT, bridges.token(UNIT)))
                await says_hello(unit, instance)
                await unit.hears(Welcome)
    assert await row(centre, "takeovers, contested_until") == ([], None)


async def test_many_takeovers_between_two_bridges_at_once_leave_one_holder_each(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    other = await bridges.start()
    units = [f"unit-{number}" for number in range(40)]
    for unit_id in units:
        await centre.unit(unit_id)
    async with AsyncExitStack() as stack:

        async def arrives(unit_id: str, at: str) -> RawUnit:
            unit = await stack.enter_async_context(linked(at, unit_id, bridges.token(unit_id)))
            await unit.hello()
            return unit

        rounds = []
        for _ in range(3):
            for at in (url_of(bridge), url_of(other)):
                rounds.append(await asyncio.gather(*(arrives(unit_id, at) for unit_id in units)))
        *former, last = rounds
        ends = await asyncio.gather(*(unit.closed() for units in former for unit in units))
        assert {code for _, code in ends} == {CloseCode.SUPERSEDED}
        assert {unit.epoch for unit in last} == {len(rounds)}
        for unit in last[:5]:
            live = await centre.happens(unit.unit_id, patient())
            assert (await unit.knows(live))[-1] == live
