"""A person's login ends, and with it whatever is open at gateway and bridge: for that login, and no other."""

from __future__ import annotations

import time

import httpx

from tests.flows.test_portals import House, house
from tests.kit.portals import Portal, Stream, turned_away
from tests.kit.waiting import eventually

__all__ = ["house"]

PERSON = {"email": "ada@example.org", "password": "seven ponds and a heron"}


async def test_a_logout_ends_the_portal_and_the_stream_of_that_login_within_seconds(house: House) -> None:
    await house.unit("ponds")
    async with httpx.AsyncClient(base_url=house.api_url, timeout=30) as anyone:
        registered = await anyone.post("/api/auth/register", json={**PERSON, "unitId": "ponds", "name": "Ada Example"})
        assert registered.status_code == 201, registered.text

        async def login() -> tuple[str, str]:
            answer = await anyone.post("/api/auth/login", json={**PERSON, "unitId": "ponds"})
            assert answer.status_code == 200, answer.text
            return answer.json()["accessToken"], answer.json()["refreshToken"]

        (here, refresh), (there, _) = await login(), await login()
        headers = {"Authorization": f"Bearer {here}"}
        async with (
            Portal(house.portal_url, here) as lost,
            Portal(house.portal_url, there) as kept,
            httpx.AsyncClient(base_url=house.api_url, headers=headers, timeout=30) as client,
            Stream(client) as stream,
        ):
            await lost.welcomed()
            await kept.welcomed()
            await stream.event("welcome")
            began = time.monotonic()
            assert (await anyone.post("/api/auth/logout", json={"refreshToken": refresh})).status_code == 200
            assert await lost.closed() == 4402
            assert (await stream.event("bye"))["code"] == 4402
            await eventually(lambda: stream.is_over, within=5)
            assert time.monotonic() - began < 5
            assert await turned_away(house.portal_url, here) == 401
            await house.checked_in("ponds")
            await kept.event("notification")
