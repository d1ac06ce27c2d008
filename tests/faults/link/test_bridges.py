"""Bridges that are killed with facts on the wire, or freeze holding a link and wake up when it is another's."""

from __future__ import annotations

import pytest

from tests.faults.link.conftest import Scene, url_of
from tests.kit.lines import Limits
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(240)


async def test_a_bridge_killed_in_the_middle_of_a_frame_loses_nothing_and_doubles_nothing(scene: Scene) -> None:
    first, second = scene.network.bridges
    scene.start_agents()
    await scene.linked()
    async with scene.busy():
        for victim, other in ((first, second), (second, first)):
            scene.line.limits = lambda: Limits(down=3000, hold=True)
            scene.line.held = 0
            scene.line.cut()
            await eventually(lambda: scene.line.held, what="a frame stands half on the wire")
            victim.kill()
            scene.line.limits = Limits
            scene.line.reroute(url_of(other))
            scene.line.cut()
            await scene.executed(5)
            victim.start()
            await victim.ready()


async def test_a_frozen_bridge_that_wakes_up_with_unacknowledged_frames_harms_nobody(scene: Scene) -> None:
    zombie, other = scene.network.bridges
    scene.line.limits = lambda: Limits(up=1500, hold=True)
    scene.start_agents()
    await scene.linked()
    async with scene.busy():
        await eventually(lambda: scene.line.held >= len(scene.units), what="acknowledgements do not get through")
        await scene.progress(10)
        zombie.freeze()
        scene.line.limits = Limits
        scene.line.reroute(url_of(other))
        scene.line.abandon()
        await scene.executed(5)
        zombie.thaw()
        scene.line.release()  # what the old sessions had to say reaches the one that believes it still holds them
        await scene.executed(10)
    epochs = scene.database.execute(
        "SELECT bridge, count(*) FROM unit_sessions WHERE unit_id = ANY(%s) AND connected GROUP BY 1", (scene.units,)
    ).fetchall()
    assert epochs == [(other.name, len(scene.units))]
