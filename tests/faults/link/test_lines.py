"""The network between agent and bridge: cut after any number of bytes, either way, again and again."""

from __future__ import annotations

import random

import pytest

from tests.faults.link.conftest import Scene
from tests.faults.link.resident import resident_agents
from tests.kit.lines import Limits
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(240)

CUTS = 60
SEED = 20260302


async def test_a_line_cut_after_any_number_of_bytes_loses_nothing_and_doubles_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(SEED)

    def somewhere() -> Limits:
        """A handshake takes about 500 bytes up and 200 down, a hello 150, a fact 600, a command 400."""
        after = draw.randrange(1, 200) if draw.random() < 0.2 else draw.randrange(200, 6000)
        return Limits(up=after) if draw.random() < 0.5 else Limits(down=after)

    monkeypatch.setattr("unit_agent.reconnect.FIRST", 0.02)
    monkeypatch.setattr("unit_agent.reconnect.LONGEST", 0.02)
    scene.line.limits = somewhere
    async with resident_agents(scene), scene.busy():
        await eventually(lambda: scene.line.connections >= CUTS, within=60, what=f"{CUTS} connections cut")
        scene.line.limits = Limits
        scene.line.cut()
