"""Agents that die between doing and telling, whose clocks are wrong, whose disks are full."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from tests.faults.link.conftest import Scene
from tests.faults.link.disks import small_disk
from tests.faults.link.resident import own_keys, resident_agents, set_agents_clock
from tests.faults.link.site import Run
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(240)


async def test_agents_killed_between_doing_and_telling_do_nothing_twice(scene: Scene) -> None:
    agents = scene.start_agents()
    await scene.linked()
    async with scene.busy():
        for _ in range(3):

            def die(run: Run) -> None:
                scene.site.before_answer = lambda run: None
                agents.kill()

            scene.site.before_answer = die
            await eventually(lambda: not agents.running(), what="a command was executed, and its agent killed")
            agents.start()
            await scene.linked()
            await scene.executed(3)


async def test_what_nobody_can_tell_is_said_to_be_unknown_and_not_done_again(scene: Scene) -> None:
    scene.site.remembers = False
    agents = scene.start_agents()
    await scene.linked()
    scene.site.before_answer = lambda run: agents.kill()
    asked = await scene.queue(scene.units[0], 1)
    await eventually(lambda: not agents.running(), what="the command was executed, and its agent killed")
    scene.site.before_answer = lambda run: None
    agents.start()
    await eventually(lambda: scene.statuses().get(asked.command_id) == "rejected", what="the agent's word")
    await scene.settled()
    assert scene.site.times() == {asked.command_id: 1}


@pytest.mark.parametrize("minutes", [5, -5], ids=["ahead", "behind"])
async def test_deadlines_are_the_centres_whatever_the_agents_clock_says(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    set_agents_clock(monkeypatch, timedelta(minutes=minutes))
    north, south, _ = scene.units
    credentials = await own_keys(scene, ahead=timedelta(minutes=minutes))
    async with resident_agents(scene, credentials=credentials):
        await scene.linked()
        for unit_id in scene.units:
            await scene.queue(unit_id, 1)
            await scene.make(unit_id, 1)
        await eventually(lambda: len(scene.site.runs) == len(scene.units), what="each unit has executed one")
        scene.site.hold.clear()
        running, waiting = [await scene.queue(north, number, seconds=60) for number in (2, 3)]
        brief = await scene.queue(north, 4, seconds=2)
        await eventually(lambda: scene.site.times()[running.command_id], what="the rest waits for the first")
        scene.line.pull()  # from here on the agents hear of no deadline
        away = await scene.queue(south, 2, seconds=2)
        await eventually(
            lambda: [scene.statuses().get(one.command_id) for one in (brief, away)] == ["expired"] * 2,
            what="both deadlines have passed at the centre",
        )
        scene.site.hold.set()
        await eventually(lambda: scene.site.times()[waiting.command_id], what="what is in time is executed")
        scene.line.plug()
        await scene.settled()
    times = scene.site.times()
    assert (times[brief.command_id], times[away.command_id]) == (0, 0), "executed after its deadline"


async def test_a_full_disk_takes_nothing_it_cannot_keep_and_harms_no_other_unit(scene: Scene) -> None:
    crowded, *others = scene.units
    async with AsyncExitStack() as closing:
        disk = closing.enter_context(small_disk(scene.folder / crowded))
        agents = scene.start_agents()
        closing.callback(agents.kill)
        await scene.linked()
        async with scene.busy():
            disk.fill()
            before = Counter(run.unit_id for run in scene.site.runs)
            await eventually(
                lambda: all(scene.runs_at(unit_id) >= before[unit_id] + 5 for unit_id in others),
                within=60,
                what="the other units go on",
            )
            held = scene.acknowledged_at(crowded)
            disk.make_room()
            await eventually(lambda: scene.acknowledged_at(crowded) > held, within=60, what="the unit goes on")
        agents.stop()
