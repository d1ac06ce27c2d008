"""Sessions taken over at every moment, between two bridges: CARESPINE_TAKEOVERS=10000 for the full number."""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import partial

import pytest

from tests.faults.link.conftest import Scene, url_of
from tests.faults.link.fickle import FickleUnit

TAKEOVERS = int(os.environ.get("CARESPINE_TAKEOVERS", "400"))
UNITS = max(12, min(48, TAKEOVERS // 200))
SEED = 4409

pytestmark = pytest.mark.timeout(240 + TAKEOVERS // 10)


async def test_forced_takeovers_lose_nothing_and_double_nothing(scene: Scene) -> None:
    urls = [url_of(bridge) for bridge in scene.network.bridges]
    units = []
    await scene.register([f"fickle-{number}" for number in range(UNITS)])
    for number, unit_id in enumerate(scene.units):
        credential = scene.token(unit_id)
        units.append(FickleUnit(unit_id, urls, credential, random.Random(SEED + number)))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for unit in units:
            group.create_task(unit.take_over(TAKEOVERS // len(units) + 1))
    lasted = time.monotonic() - began
    count = sum(unit.takeovers for unit in units)
    commands = sum(len(unit.made) for unit in units)
    print(f"{count} takeovers, {count / lasted:.0f} per second, {commands} commands")
    async with asyncio.TaskGroup() as group:
        for unit in units:
            group.create_task(unit.settle(partial(scene.feed, unit.unit_id)))
    for unit in units:
        assert unit.wrong == []
        assert [position for position, _, _ in unit.told] == scene.feed(unit.unit_id)
        registered = [command_id for _, kind, command_id in unit.told if kind == "patient.PatientRegistered"]
        assert registered == unit.made, "every command once, in the order they were made"
