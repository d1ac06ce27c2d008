"""Who is let in, over real handshakes: everything else is a clear HTTP answer before the upgrade."""

from __future__ import annotations

import json

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from contracts.frames import CLOSINGS, CloseCode, Hello
from contracts.identity import Role
from infra.tokens import generate_key_pair, mint
from tests.kit.processes import Started
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import linked

UNIT = "north"


async def turned_away(url: str, token: str, *, subprotocol: str = "carespine.unit.v1") -> tuple[int, str, str]:
    """The status, the problem's code and its media type."""
    with pytest.raises(InvalidStatus) as refused:
        async with linked(url, UNIT, token, subprotocol=subprotocol):
            pass
    response = refused.value.response
    problem = json.loads(response.body or b"")
    assert problem["status"] == response.status_code
    assert not token or token not in str(problem)
    return response.status_code, problem["code"], response.headers["Content-Type"]


async def test_only_a_unit_s_own_valid_token_gets_in(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    url, problem = url_of(bridge), "application/problem+json"
    await centre.unit(UNIT)
    forged = mint(generate_key_pair()[0], role=Role.UNIT, unit=UNIT)
    assert await turned_away(url, forged) == (401, "token_invalid", problem)
    assert await turned_away(url, "not-a-token") == (401, "token_invalid", problem)
    assert await turned_away(url, "") == (401, "token_missing", problem)
    assert await turned_away(url, bridges.token(UNIT, ttl=-60)) == (401, "token_expired", problem)
    assert await turned_away(url, bridges.token(UNIT, role=Role.STAFF)) == (403, "not_allowed", problem)
    assert await turned_away(url, bridges.installed.token(Role.UNIT)) == (403, "not_allowed", problem)
    async with linked(url, UNIT, bridges.token(UNIT)) as unit:
        assert (await unit.hello()).epoch == 1


async def test_other_paths_and_protocols_are_told_what_is_here(bridge: Started, bridges: Bridges) -> None:
    token = bridges.token(UNIT)
    assert (await turned_away(url_of(bridge, "/portal"), token))[:2] == (403, "not_allowed")
    assert (await turned_away(url_of(bridge, "/elsewhere"), token))[:2] == (404, "not_found")
    assert (await turned_away(url_of(bridge), token, subprotocol="mqtt"))[:2] == (400, "subprotocol_missing")


async def test_a_browser_that_strays_in_gets_an_answer(bridge: Started) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url_of(bridge).replace("ws://", "http://"))
        assert answer.status_code == 401
        metrics = await client.get(bridge.health_url + "/metrics")
        assert 'carespine_auth_failures_total{reason="missing"} 1.0' in metrics.text


async def test_a_unit_s_token_opens_no_other_unit_s_link(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit(UNIT)
    await centre.unit("south")
    async with linked(url_of(bridge), "south", bridges.token(UNIT)) as unit:
        await unit.say(Hello(unit_id="south", position=0, agent_version="test"))
        bye, code = await unit.closed()
        assert (code, bye and bye.code) == (CloseCode.NOT_ALLOWED, CloseCode.NOT_ALLOWED)
    assert not CLOSINGS[CloseCode.NOT_ALLOWED].may_reconnect
    cursor = await centre.database.execute("SELECT count(*) FROM unit_sessions")
    assert await cursor.fetchone() == (0,)


async def test_a_unit_that_is_not_served_is_told_so(bridge: Started, bridges: Bridges, centre: Centre) -> None:
    await centre.unit("retired", status="retired")
    await centre.unit("suspended", status="suspended")
    for unit_id, expected in [
        ("unheard-of", CloseCode.UNIT_NOT_FOUND),
        ("retired", CloseCode.UNIT_NOT_FOUND),
        ("suspended", CloseCode.UNIT_SUSPENDED),
    ]:
        async with linked(url_of(bridge), unit_id, bridges.token(unit_id)) as unit:
            await unit.say(Hello(unit_id=unit_id, position=0, agent_version="test"))
            bye, code = await unit.closed()
        assert code == expected
        assert bye is not None
        assert (bye.retry_after_seconds is not None) is CLOSINGS[expected].may_reconnect


async def test_a_position_that_no_log_has_is_another_installation_s(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.say(Hello(unit_id=UNIT, position=10_000, agent_version="test"))
        assert (await unit.closed())[1] == CloseCode.POSITION_AHEAD
