"""A bridge lets in so many a second and reads so much from each; leaving, it lets its units go one after the other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from time import monotonic

import httpx
import pytest
from psutil import Process
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from contracts.frames import PORTAL_SUBPROTOCOL, CloseCode, Hello, Ping, Submit
from contracts.identity import Role
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.facts import NOON
from tests.ws_bridge.raw_unit import RawUnit, linked
from ws_bridge.catch_up import READERS

UNIT = "north"


async def metrics_of(bridge: Started) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(bridge.health_url + "/metrics")).text


async def registered(centre: Centre, units: list[str]) -> None:
    """Many units at once, without a history."""
    await centre.database.execute(
        "INSERT INTO read_units (unit_id, partition, name, name_key, kind, settings, zone, ageing_minutes, status, "
        "version, registered_at, updated_at) SELECT unit_id, 0, 'A', 'a', 'prov', '{}', 'UTC', 30, 'active', 1, now(), "
        "now() FROM unnest(%s::text[]) AS u (unit_id)",
        (units,),
    )


async def knocks(stack: AsyncExitStack, url: str, unit_id: str, token: str) -> RawUnit | tuple[int, int]:
    """Let in, or the status and the seconds to stay away."""
    try:
        return await stack.enter_async_context(linked(url, unit_id, token))
    except InvalidStatus as refused:
        response = refused.response
        return response.status_code, int(response.headers["Retry-After"])


async def test_above_the_rate_of_connects_the_others_are_told_when_to_come_back(
    bridges: Bridges, centre: Centre
) -> None:
    bridge = await bridges.start(CARESPINE_CONNECTS_PER_SECOND="5")
    await centre.unit(UNIT)
    token = bridges.token(UNIT)
    async with AsyncExitStack() as stack:
        knocked = await asyncio.gather(*(knocks(stack, url_of(bridge), UNIT, token) for _ in range(20)))
        refused = [one for one in knocked if not isinstance(one, RawUnit)]
        let_in = [one for one in knocked if isinstance(one, RawUnit)]
        assert 4 <= len(let_in) <= 12
        assert {status for status, _ in refused} == {503}
        assert min(away for _, away in refused) >= 1
        assert max(away for _, away in refused) >= 2, "each has a moment of its own"
        await let_in[-1].hello()
    assert f'carespine_connects_turned_away_total{{reason="rate"}} {len(refused)}.0' in await metrics_of(bridge)
    cursor = await centre.database.execute("SELECT epoch FROM unit_sessions")
    assert await cursor.fetchall() == [(1,)], "whoever was turned away cost the database nothing"


async def test_a_unit_that_connects_in_a_loop_is_turned_away_and_its_neighbour_is_not(
    bridges: Bridges, centre: Centre
) -> None:
    bridge = await bridges.start(CARESPINE_UNIT_CONNECTS_PER_MINUTE="10")
    for unit_id in (UNIT, "south"):
        await centre.unit(unit_id)
    async with AsyncExitStack() as stack:
        knocked = [await knocks(stack, url_of(bridge), UNIT, bridges.token(UNIT)) for _ in range(12)]
        assert [isinstance(one, RawUnit) for one in knocked] == [True] * 10 + [False] * 2
        assert isinstance(knocked[-1], tuple)
        assert knocked[-1][0] == 429
        assert isinstance(await knocks(stack, url_of(bridge), "south", bridges.token("south")), RawUnit)


async def test_a_unit_that_pours_out_frames_is_held_back_and_then_cut(bridges: Bridges, centre: Centre) -> None:
    bridge = await bridges.start(CARESPINE_UNIT_FRAMES_PER_SECOND="50")
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()

        async def pours() -> None:
            while True:
                await unit.say(Ping())

        begun = monotonic()
        with pytest.raises(ConnectionClosed):  # what it was told may be lost behind all that it sent
            await asyncio.wait_for(pours(), 60)
        assert monotonic() - begun > 8
    metrics = await metrics_of(bridge)
    assert "carespine_unit_throttled_total 1.0" in metrics
    assert f'carespine_unit_closes_total{{code="{CloseCode.TRY_LATER:d}"}} 1.0' in metrics


async def test_what_a_flood_costs_the_bridge_is_bounded_however_much_is_sent(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    used = Process(bridge.pid).cpu_times
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        epoch = (await unit.hello()).epoch
        submit = Submit(epoch=epoch, command_id=new_id(), command="unheard.Of", payload={}, issued_at=NOON)

        async def pours() -> None:
            while True:
                await unit.say(submit)

        async def pours_and_reads() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pours())
                tasks.create_task(unit.closed(within=60))

        before = used()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pours_and_reads(), 8)
        after = used()
    assert after.user + after.system - before.user - before.system < 0.3 * 8, "a third of what one core can do"


async def test_a_storm_of_hellos_needs_no_more_database_connections_than_a_quiet_day(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    units = [f"unit-{number:03}" for number in range(400)]
    await registered(centre, units)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            cursor = await centre.database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            most = max(most, int(str((await cursor.fetchone() or (0,))[0])))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    async with AsyncExitStack() as stack:

        async def arrives(unit_id: str) -> int:
            unit = await stack.enter_async_context(linked(url_of(bridge), unit_id, bridges.token(unit_id)))
            return (await unit.hello()).epoch

        for epoch in (1, 2):
            assert set(await asyncio.gather(*map(arrives, units))) == {epoch}
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert 0 < most <= READERS + 3


async def test_a_bridge_that_leaves_spreads_its_units_over_its_window_and_takes_no_new_ones(
    bridges: Bridges, centre: Centre
) -> None:
    bridge = await bridges.start(CARESPINE_DRAIN_SECONDS="3")
    other = await bridges.start()
    units = [f"unit-{number:03}" for number in range(900)]
    await registered(centre, units)
    async with AsyncExitStack() as stack:

        async def arrives(unit_id: str) -> RawUnit:
            unit = await stack.enter_async_context(linked(url_of(bridge), unit_id, bridges.token(unit_id)))
            await unit.hello()
            return unit

        linked_units: list[RawUnit] = []
        for start in range(0, len(units), 100):
            linked_units += await asyncio.gather(*(arrives(unit_id) for unit_id in units[start : start + 100]))
        begun = monotonic()

        async def leaves(unit: RawUnit) -> tuple[float, float]:
            bye, code = await unit.closed(within=30)
            assert code == CloseCode.GOING_AWAY
            assert bye is not None
            assert bye.retry_after_seconds is not None
            return monotonic() - begun, bye.retry_after_seconds

        ends = [asyncio.create_task(leaves(unit)) for unit in linked_units]
        stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        late = await knocks(stack, url_of(bridge), UNIT, bridges.token(UNIT))
        assert isinstance(late, tuple)
        assert late[0] == 503
        told = await asyncio.gather(*ends)
        back = sorted(at + away for at, away in told)
        assert await stopping == 0
        for third in range(3):
            share = sum(third <= at < third + 1 for at, _ in told) / len(units)
            assert 0.2 < share < 0.5, "as many in each second"
        assert max(away for _, away in told) <= 1
        assert back[-1] < 3 + 2
        async with linked(url_of(other), units[0], bridges.token(units[0])) as again:
            assert (await again.hello()).epoch == 2


async def test_who_says_hello_while_the_bridge_leaves_is_sent_on_and_does_not_hold_it_up(
    bridges: Bridges, centre: Centre
) -> None:
    await registered(centre, ["early", "late"])
    bridge = await bridges.start()
    async with (
        linked(url_of(bridge), "early", bridges.token("early")) as early,
        linked(url_of(bridge), "late", bridges.token("late")) as late,
        connect(
            url_of(bridge, "/portal"),
            subprotocols=[Subprotocol(PORTAL_SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {bridges.token('late', role=Role.DOCTOR)}"},
            proxy=None,
        ) as portal,
    ):
        await early.hello()
        begun = monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
        assert (await early.closed())[1] == CloseCode.GOING_AWAY
        with suppress(ConnectionClosed):
            await late.say(Hello(unit_id="late", position=0, agent_version="test"))
        with suppress(ConnectionClosed):
            await portal.send('{"type":"hello","topics":["queue-board"]}')
        assert (await late.closed())[1] == CloseCode.GOING_AWAY
        await portal.wait_closed()
        assert portal.close_code == CloseCode.GOING_AWAY
        assert await stopping == 0
        assert monotonic() - begun < 15


async def test_a_bridge_without_the_database_stops_speaking_before_its_leases_end(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    """A lease that cannot be renewed runs out; facts wait until it is renewed, on the same link."""
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.knows((await unit.hello()).head)
        async with centre.database.transaction():
            await centre.database.execute("LOCK TABLE unit_sessions")  # nobody can renew anything

            async def speaks_to_nobody() -> bool:
                return 'carespine_units{state="unleased"} 1.0' in await metrics_of(bridge)

            await eventually(speaks_to_nobody, within=60)
        live = await centre.happens(UNIT, patient())
        assert (await unit.knows(live, within=30))[-1] == live
        assert unit.epoch == 1

        async def speaks_again() -> bool:
            return 'carespine_units{state="unleased"} 0.0' in await metrics_of(bridge)

        await eventually(speaks_again)
