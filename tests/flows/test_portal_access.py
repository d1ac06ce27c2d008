"""How long somebody may watch: tokens run out, are renewed, are revoked; bridges come and go."""

from __future__ import annotations

import asyncio
import time

import httpx

from contracts.identity import Role
from tests.flows.test_portals import House, house
from tests.kit.portals import Portal, Stream
from tests.kit.waiting import eventually

__all__ = ["house"]


async def _next_second() -> None:
    """Tokens tell whole seconds: one of the second of a revocation is refused."""
    second = int(time.time())
    await eventually(lambda: int(time.time()) > second, within=3)


async def test_portals_of_a_role_are_closed_within_a_second_and_its_old_tokens_open_none(house: House) -> None:
    await house.unit("lost")
    token = house.installed.token(Role.NURSE, "lost")
    async with (
        Portal(house.portal_url, token) as nurse,
        house.portal(Role.DOCTOR, "lost") as doctor,
        house.client(Role.NURSE, "lost") as client,
        Stream(client) as stream,
        house.client(Role.OPS) as ops,
    ):
        await nurse.welcomed()
        await doctor.welcomed()
        await stream.event("welcome")
        began = time.monotonic()
        answer = await ops.post(
            "/api/units/lost/portals/revoke", json={"roles": ["nurse"], "reason": "tablets were lost"}
        )
        assert answer.status_code == 200, answer.text
        bye = await nurse.told("bye", within=5)
        assert time.monotonic() - began < 2  # a second on a machine with nothing else to do
        assert (bye["code"], bye["mayReconnect"], await nurse.closed()) == (4402, False, 4402)
        assert (await stream.event("bye"))["code"] == 4402
        await eventually(lambda: stream.is_over, within=5)
        async with Portal(house.portal_url, token) as again:
            assert await again.closed() == 4402
        assert (await client.get("/api/stream")).status_code == 401
        await _next_second()
        async with house.portal(Role.NURSE, "lost") as newer:
            await newer.welcomed()
        await house.checked_in("lost")
        await doctor.event("notification")


async def test_one_account_is_shut_out_and_no_other(house: House) -> None:
    await house.unit("left")
    async with house.portal(Role.DOCTOR, "left") as doctor, house.client(Role.OPS) as ops:
        await doctor.welcomed()
        other = await ops.post("/api/units/left/portals/revoke", json={"account": "dr-9", "reason": "has left"})
        assert other.status_code == 200
        own = await ops.post("/api/units/left/portals/revoke", json={"account": "left", "reason": "has left"})
        assert own.status_code == 200
        assert await doctor.closed() == 4402
        changed = [event["data"]["change"] for event in doctor.events]
        assert changed == []


async def test_a_portal_is_closed_when_its_token_runs_out_unless_it_was_renewed(house: House) -> None:
    await house.unit("timed")
    short = house.installed.token(Role.DOCTOR, "timed", ttl=4)
    async with Portal(house.portal_url, short) as renewing, Portal(house.portal_url, short) as idle:
        await renewing.welcomed()
        await renewing.say({"type": "renew", "token": "nonsense"})
        assert (await renewing.told("declined"))["code"] == "token_malformed"
        await renewing.say({"type": "renew", "token": house.installed.token(Role.DOCTOR, "north")})
        await renewing.told("declined", code="other_account")
        await renewing.say({"type": "renew", "token": house.installed.token(Role.DOCTOR, "timed")})
        await renewing.told("renewed")
        assert (await idle.told("bye"))["mayReconnect"] is True
        assert await idle.closed() == 4401
        await house.checked_in("timed")
        await renewing.event("notification")
        async with house.client(Role.DOCTOR, "timed", ttl=3) as client, Stream(client) as stream:
            assert (await stream.event("bye"))["code"] == 4401
            await eventually(lambda: stream.is_over, within=5)


async def test_a_bridge_that_leaves_names_when_to_come_back_and_another_resumes_without_a_gap(house: House) -> None:
    await house.unit("moving")
    other = house.installed.start("ws_bridge")
    await other.ready()
    token = house.installed.token(Role.DOCTOR, "moving")
    url = f"ws://127.0.0.1:{other.environment['CARESPINE_BRIDGE_PORT']}/portal"
    async with Portal(url, token, topics=["queue-board"]) as doctor:
        await doctor.welcomed()
        await house.checked_in("moving")
        await doctor.event("queue-updated", counts={**_NOBODY, "waiting": 1})
        other.stop()
        bye = await doctor.told("bye")
        assert (bye["code"], bye["mayReconnect"]) == (1001, True)
        assert bye["retryAfterSeconds"] > 0
        await house.checked_in("moving")
        doctor._url = house.portal_url
        await doctor.resume()
        await house.checked_in("moving")
        await doctor.event("queue-updated", counts={**_NOBODY, "waiting": 3})
        assert [event["data"]["counts"]["waiting"] for event in doctor.events] == [1, 2, 3]


async def test_a_gateway_that_leaves_ends_its_streams_and_goes(house: House) -> None:
    await house.unit("ending")
    other = house.installed.start("gateway")
    await other.ready()
    headers = {"Authorization": f"Bearer {house.installed.token(Role.DOCTOR, 'ending')}"}
    url = f"http://127.0.0.1:{other.environment['CARESPINE_HTTP_PORT']}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client, Stream(client) as stream:
        await stream.event("welcome")
        began = time.monotonic()
        code = await asyncio.to_thread(other.stop)
        assert (code, time.monotonic() - began < 9) == (0, True)  # ten seconds are what a stuck request is given
        bye = await stream.event("bye")
        assert (bye["code"], bye["mayReconnect"]) == (1001, True)
        await house.checked_in("ending")
        async with (
            house.client(Role.DOCTOR, "ending") as elsewhere,
            Stream(elsewhere, stream.last_event_id, topics="notifications") as resumed,
        ):
            await resumed.event("notification")


async def test_the_projections_killed_between_commit_and_push_lose_no_event(house: House) -> None:
    """What was committed and never pushed is found by the sweep."""
    await house.unit("swept")
    projections = next(one for one in house.installed.started.values() if one.module == "projections")
    async with house.portal(Role.DOCTOR, "swept", topics=["queue-board"]) as doctor:
        await doctor.welcomed()
        for number in range(1, 4):
            await house.checked_in("swept")
            projections.kill()
            projections.start()
            await projections.ready()
            await doctor.event("queue-updated", counts={**_NOBODY, "waiting": number})
        assert [event["data"]["counts"]["waiting"] for event in doctor.events] == [1, 2, 3]


_NOBODY = dict.fromkeys(("waiting", "called", "in-service", "done", "no-show", "left", "transferred"), 0)
