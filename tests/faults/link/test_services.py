"""The broker that falls silent without a word, and the database that restarts, under links that are in use."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.link.conftest import Scene, url_of
from tests.kit.lines import Line

pytestmark = pytest.mark.timeout(240)


async def test_a_bridge_whose_broker_falls_silent_without_a_word_loses_nothing(scene: Scene) -> None:
    installed = scene.network.installed
    async with Line(installed.rabbitmq_url) as broker:
        bridge = installed.start("ws_bridge", name="bridge-cut-off", CARESPINE_RABBITMQ_URL=broker.url)
        try:
            await bridge.ready()
            scene.line.reroute(url_of(bridge))
            scene.start_agents()
            await scene.linked()
            async with scene.busy():
                broker.silence()
                await scene.executed(6)  # facts come by way of the log, though nobody announces them
                broker.restore()
                await scene.progress(10)
        finally:
            bridge.kill()


async def test_a_database_killed_under_open_links_loses_nothing(scene: Scene) -> None:
    scene.start_agents()
    await scene.linked()
    async with scene.busy():
        await asyncio.to_thread(scene.network.services.restart_postgres, kill=True)
        await scene.look_again()
        await scene.executed(5)
