"""The broker and the database restarted and killed in the middle of a stream of commands."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import Clinic

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
async def test_a_broker_restart_loses_nothing(clinic: Clinic, kill: bool) -> None:
    await clinic.start()
    async with clinic.busy():
        await asyncio.to_thread(clinic.services.restart_rabbitmq, kill=kill)
        await clinic.progress(20)


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
async def test_a_database_restart_loses_nothing(clinic: Clinic, kill: bool) -> None:
    await clinic.start()
    async with clinic.busy():
        await asyncio.to_thread(clinic.services.restart_postgres, kill=kill)
        await clinic.progress(20)


async def test_with_the_database_away_commands_are_still_taken(clinic: Clinic) -> None:
    await clinic.start()
    async with clinic.busy():
        await asyncio.to_thread(clinic.services.kill_postgres)
        try:
            await clinic.acknowledged_only(6)
        finally:
            await asyncio.to_thread(clinic.services.start_postgres)
        await clinic.progress(20)
