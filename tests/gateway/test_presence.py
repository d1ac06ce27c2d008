"""Operators see which units are there, how far behind they are, and which have been away for too long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from contracts.frames import Ack, Hello, Welcome
from contracts.identity import Role
from tests.gateway.conftest import Clinic, JsonObject, Network
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.conftest import url_of
from tests.ws_bridge.raw_unit import RawUnit, linked


@pytest.fixture
async def bridge(network: Network) -> AsyncIterator[Started]:
    """A bridge that calls a unit unreachable after a second."""
    started = network.installed.start("ws_bridge", CARESPINE_UNREACHABLE_SECONDS="1")
    await started.ready()
    yield started
    started.kill()


async def seen(clinic: Clinic, **filters: bool) -> JsonObject | None:
    """The unit as operators see it; None when the filters leave it out."""
    parameters = {"limit": "200", **{name: str(value).lower() for name, value in filters.items()}}
    answer = await clinic.api.get("/ops/units", params=parameters, headers=clinic.role(Role.OPS))
    found: list[JsonObject] = answer.json()["items"]
    return next((link for link in found if link["unitId"] == clinic.unit_id), None)


async def hello(unit: RawUnit) -> Welcome:
    await unit.say(Hello(unit_id=unit.unit_id, position=0, agent_version="9.1", instance=new_id()))
    welcome = await unit.hears(Welcome)
    unit.epoch = welcome.epoch
    return welcome


async def test_operators_see_who_is_connected_with_what_and_how_far_behind(clinic: Clinic, bridge: Started) -> None:
    never = await seen(clinic)
    assert never is not None
    assert (never["connected"], never.get("lagEvents"), never["contested"]) == (False, None, False)
    await clinic.patient()
    token = clinic.network.installed.token(Role.UNIT, clinic.unit_id)
    async with linked(url_of(bridge), clinic.unit_id, token) as unit:
        head = (await hello(unit)).head
        behind = await seen(clinic, connected=True)
        assert behind is not None
        assert (behind["bridge"], behind["epoch"], behind["agentVersion"]) == (bridge.name, 1, "9.1")
        assert behind["lagEvents"] == 2, "its registration and a patient's"
        assert behind["lagSeconds"] > 0
        await unit.knows(head, ack=False)
        await unit.say(Ack(epoch=unit.epoch, position=unit.position))

        async def all_there() -> bool:
            now = await seen(clinic)
            return now is not None and (now["lagEvents"], now["lagSeconds"]) == (0, 0)

        await eventually(all_there)

    async def gone() -> bool:
        return await seen(clinic, connected=True) is None

    await eventually(gone)


async def test_a_unit_that_is_away_for_too_long_is_unreachable_until_it_is_back(
    clinic: Clinic, bridge: Started
) -> None:
    token = clinic.network.installed.token(Role.UNIT, clinic.unit_id)

    async def reachable() -> bool:
        found: bool = (await clinic.api.get(f"/api/units/{clinic.unit_id}")).json()["reachable"]
        return found

    async def unreachable() -> bool:
        return not await reachable()

    async with linked(url_of(bridge), clinic.unit_id, token) as unit:
        await hello(unit)
    await eventually(unreachable, within=30)
    shown = await seen(clinic, unreachable=True)
    assert shown is not None
    assert shown["unreachableSince"] <= shown["disconnectedAt"]
    async with linked(url_of(bridge), clinic.unit_id, token) as unit:
        head = (await hello(unit)).head
        await eventually(reachable, within=30)
        assert await seen(clinic, unreachable=True) is None
        while "unit.UnitBack" not in {fact.type for fact in unit.facts}:
            head += 1
            await unit.knows(head)
        told = [fact.type for fact in unit.facts if fact.type in ("unit.UnitUnreachable", "unit.UnitBack")]
        assert told == ["unit.UnitUnreachable", "unit.UnitBack"]


async def test_a_unit_whose_bridge_was_killed_is_not_called_connected(clinic: Clinic, network: Network) -> None:
    connected = {}
    with psycopg.connect(network.installed.postgres_url, autocommit=True) as database:
        for lease in (40, -1):
            database.execute(
                "INSERT INTO unit_sessions (unit_id, epoch, bridge, connected, lease_until) VALUES (%(unit)s, 1, "
                "'bridge', true, now() + make_interval(secs => %(lease)s)) ON CONFLICT (unit_id) DO UPDATE SET "
                "lease_until = excluded.lease_until",
                {"unit": clinic.unit_id, "lease": lease},
            )
            connected[lease] = await seen(clinic, connected=True) is not None
    assert connected == {40: True, -1: False}
