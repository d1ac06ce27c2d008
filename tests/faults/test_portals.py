"""Portals while the database and the broker go away: nothing is missed, nothing told twice, nobody is sent off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from contracts.identity import Role
from infra.services.launcher import Services
from tests.flows.test_portals import House
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.portals import Portal, Stream
from tests.kit.processes import installation
from tests.kit.waiting import eventually


def _restart_broker(services: Services) -> None:
    assert services.rabbitmq
    services.rabbitmq.restart(kill=True)


def _restart_database(services: Services) -> None:
    assert services.postgres
    services.postgres.restart(kill=True)


@pytest.mark.parametrize("breaks", [_restart_broker, _restart_database], ids=["broker", "database"])
async def test_portals_go_on_when_what_they_stand_on_comes_back(
    breakable_services: Services, tmp_path: Path, breaks: Callable[[Services], None]
) -> None:
    with (
        fresh_database(breakable_services.postgres_url) as postgres,
        fresh_virtual_host(breakable_services) as rabbitmq,
        installation(postgres, rabbitmq, tmp_path) as installed,
    ):
        gateway, bridge = installed.start("gateway"), installed.start("ws_bridge")
        installed.start("command_handlers")
        installed.start("projections")
        await asyncio.gather(*(one.ready() for one in installed.started.values()))
        house = House(installed, gateway, bridge)
        await house.unit("north")
        async with (
            house.portal(Role.DOCTOR, "north", topics=["notifications"]) as doctor,
            house.client(Role.DOCTOR, "north") as client,
            Stream(client, topics="notifications") as stream,
        ):
            await doctor.welcomed()
            await stream.event("welcome")
            expected = [(await house.checked_in("north"))["encounterId"]]
            await asyncio.to_thread(breaks, breakable_services)
            for _ in range(3):
                expected.append(await _checked_in(house))

            def told() -> list[str]:
                return [event["data"]["encounterId"] for event in doctor.events]

            def streamed() -> list[str]:
                return [data["data"]["encounterId"] for _, name, data in stream.events if name == "notification"]

            await eventually(lambda: set(expected) <= set(told()), within=60, what="the socket told everything")
            await eventually(lambda: set(expected) <= set(streamed()), within=60, what="the stream told everything")
            assert len(told()) == len(set(told()))
            assert told() == streamed()
            assert doctor.socket.close_code is None
            async with Portal(house.portal_url, installed.token(Role.NURSE, "north"), topics=["units"]) as nurse:
                await nurse.welcomed()


async def _checked_in(house: House) -> str:
    """A check-in, as often as it takes: a refused or unanswered one may have been done or not."""

    async def asked() -> list[str]:
        try:
            return [(await house.checked_in("north"))["encounterId"]]
        except (AssertionError, httpx.HTTPError):
            return []

    return (await eventually(asked, within=90, what="a check-in"))[0]
