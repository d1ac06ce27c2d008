"""kill -9 of each kind of process, and owners that freeze, in the middle of a stream of commands."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import Clinic

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("kind", ["gateway", "command_handlers", "projections", "ws_bridge", "unit_agent"])
async def test_killing_a_process_loses_nothing_and_doubles_nothing(clinic: Clinic, kind: str) -> None:
    await clinic.start()
    async with clinic.busy():
        for number in (0, 1, 0):
            victim = clinic.process(kind, number)
            victim.kill()
            await clinic.progress(20)
            victim.start()
            if kind != "unit_agent":
                await victim.ready(within=60)


@pytest.mark.parametrize("kind", ["command_handlers", "projections"])
async def test_a_frozen_owner_that_wakes_up_writes_nothing_of_its_own(clinic: Clinic, kind: str) -> None:
    await clinic.start()
    async with clinic.busy():
        zombie = clinic.process(kind)
        zombie.freeze()
        await clinic.lease_over()
        await clinic.progress(10)
        zombie.thaw()
        await clinic.progress(30)


async def test_an_orderly_restart_of_everything_one_by_one_is_not_noticed(clinic: Clinic) -> None:
    await clinic.start()
    async with clinic.busy():
        for one in list(clinic.installed.started.values()):
            # In a thread: callers go on meanwhile, and what they have begun to send is waited for.
            code = await asyncio.to_thread(one.stop)
            assert code == 0, f"{one.name} ended with {code}:\n{one.log_text()[-3000:]}"
            one.start()
            if one.module != "unit_agent":
                await one.ready(within=60)
            await clinic.progress(10)
