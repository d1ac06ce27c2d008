"""The feed of a unit over a real bridge: from the log, live, and however pushes get lost."""

from __future__ import annotations

import asyncio

from contracts.frames import Ack, CloseCode, Facts, Hello
from contracts.ids import partition_of
from tests.infra.cable import Cable
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.projections.logbook import PARTITIONS
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import linked

UNIT = "north"


async def test_a_unit_gets_what_it_missed_and_then_what_happens_once_and_in_order(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    for _ in range(5):
        await centre.happens(UNIT, patient(), patient())
        await centre.happens("south", patient())
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        welcome = await unit.hello()
        await unit.knows(welcome.head)
        last = await centre.happens(UNIT, patient("Ottoline"), patient())
        positions = await unit.knows(last)
    assert len(positions) == 13
    assert positions == sorted(set(positions))
    assert unit.facts[-2].payload["firstName"] == "Ottoline"
    assert "south" not in {fact.stream for fact in unit.facts}


async def test_a_unit_that_comes_back_gets_only_what_it_does_not_have(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    has = await centre.happens(UNIT, patient())
    await centre.happens(UNIT, patient())
    last = await centre.happens(UNIT, patient())
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello(has)
        assert await unit.knows(last) == [has + 1, has + 2]


async def test_nothing_is_told_before_it_is_visible(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    seen = await centre.happens(UNIT, patient())
    hidden = await centre.happens(UNIT, patient(), visible=False)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        assert (await unit.hello()).head == seen
        await unit.knows(seen)
        await centre.becomes_visible(partition_of(UNIT, PARTITIONS), hidden)
        await centre.push(UNIT, after=seen, through=hidden)
        assert (await unit.knows(hidden))[-1] == hidden


async def test_pushes_that_come_twice_late_or_not_at_all_are_repaired_from_the_log(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        first = (await unit.hello()).head
        await unit.knows(first)
        lost = await centre.happens(UNIT, patient(), pushed=False)
        second = await centre.happens(UNIT, patient())
        assert (await unit.knows(second))[-2:] == [lost, second]
        await centre.push(UNIT, after=first, through=lost)
        await centre.push(UNIT, after=lost, through=second)
        await centre.push(UNIT, after=first, through=second)
        third = await centre.happens(UNIT, patient())
        positions = await unit.knows(third)
    assert positions == sorted(set(positions))


async def test_a_sweep_brings_a_push_that_got_lost_though_nothing_follows(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.knows((await unit.hello()).head)
        lost = await centre.happens(UNIT, patient(), pushed=False)
        assert (await unit.knows(lost, within=15))[-1] == lost


async def test_no_more_facts_are_under_way_than_the_unit_takes_unacknowledged(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    last = await centre.happens(UNIT, *(patient() for _ in range(20)))
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello(window=7)
        frame = await unit.hears(Facts)
        assert len(frame.facts) == 7
        held = await centre.happens(UNIT, patient())  # a push does not get past a full window either
        with_nothing_more = asyncio.create_task(unit.hears(Facts, within=0.5))
        await asyncio.wait([with_nothing_more])
        assert isinstance(with_nothing_more.exception(), TimeoutError)
        await unit.say(Ack(epoch=unit.epoch, position=unit.position))
        positions = await unit.knows(held)
    assert positions == list(range(1, last + 2))


async def test_what_is_acknowledged_stands_in_the_session(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    last = await centre.happens(UNIT, patient(), patient())

    async def session() -> tuple[object, ...] | None:
        cursor = await centre.database.execute(
            "SELECT epoch, bridge, connected, acked_position, agent_version FROM unit_sessions WHERE unit_id = %s",
            (UNIT,),
        )
        return await cursor.fetchone()

    async def is_now(*expected: object) -> bool:
        return await session() == expected

    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        await unit.knows(last)
        await eventually(lambda: is_now(1, bridge.name, True, last, "test"))
    await eventually(lambda: is_now(1, bridge.name, False, last, "test"))


async def test_an_erased_person_s_facts_come_without_what_was_sealed(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    gone = patient()
    last = await centre.happens(UNIT, gone, pushed=False)
    await centre.log.erase(gone.patient_id)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        await unit.knows(last)
    assert unit.facts[-1].erased
    assert "firstName" not in unit.facts[-1].payload


async def test_a_long_absence_comes_in_pages_while_others_stay_live(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    last = 0
    for _ in range(6):
        last = await centre.happens(UNIT, *(patient() for _ in range(500)), pushed=False)
    async with (
        linked(url_of(bridge), UNIT, bridges.token(UNIT)) as behind,
        linked(url_of(bridge), "south", bridges.token("south")) as live,
    ):
        await live.knows((await live.hello()).head)
        await behind.hello()
        catching_up = asyncio.create_task(behind.knows(last, within=30))
        for _ in range(5):
            await live.knows(await centre.happens("south", patient()), within=5)
        positions = await catching_up
    assert positions == list(range(1, last + 1))
    assert len(live.facts) == 6


async def test_what_was_pushed_while_the_broker_was_out_of_reach_comes_when_it_is_back(
    bridges: Bridges, centre: Centre, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    async with Cable(rabbitmq) as cable:
        bridge = await bridges.start(CARESPINE_RABBITMQ_URL=cable.url)
        async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
            await unit.knows((await unit.hello()).head)
            cable.pull()
            lost = await centre.happens(UNIT, patient())
            assert (await unit.knows(lost, within=20))[-1] == lost  # a sweep; the log is there throughout
            missed = await centre.happens(UNIT, patient())
            cable.plug()
            await bridge.ready()
            live = await centre.happens(UNIT, patient())
            assert (await unit.knows(live))[-2:] == [missed, live]


async def test_a_unit_can_link_while_the_broker_is_out_of_reach(
    bridges: Bridges, centre: Centre, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    async with Cable(rabbitmq) as cable:
        bridge = await bridges.start(CARESPINE_RABBITMQ_URL=cable.url)
        cable.pull()
        async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
            await unit.knows((await unit.hello()).head)
            cable.plug()
            await bridge.ready()
            live = await centre.happens(UNIT, patient())
            assert (await unit.knows(live, within=1.5))[-1] == live


async def test_links_outlive_the_database_and_the_feed_goes_on_when_it_is_back(
    bridges: Bridges, centre: Centre, postgres: str
) -> None:
    await centre.unit(UNIT)
    async with Cable(postgres) as cable:
        bridge = await bridges.start(CARESPINE_POSTGRES_URL=cable.url)
        async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
            await unit.knows((await unit.hello()).head)
            cable.pull()
            live = await centre.happens(UNIT, patient())
            await unit.knows(live)
            lost = await centre.happens(UNIT, patient(), pushed=False)
            gap = await centre.happens(UNIT, patient())
            async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as other:
                await other.say(Hello(unit_id=UNIT, position=0, agent_version="test"))
                bye, code = await other.closed(within=15)
                assert code == CloseCode.TROUBLE
                assert bye is not None
                assert bye.retry_after_seconds is not None
            cable.plug()
            assert (await unit.knows(gap, within=20))[-2:] == [lost, gap]
            await bridge.ready()
