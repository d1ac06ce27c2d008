"""Durable commands from a caller of the API to the site's system and back, with everything real in between."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from contracts.envelope import Json
from contracts.identity import Role
from tests.flows.importing import CARESPINE
from tests.kit.processes import Installation, Started
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent, NewAgent
from tests.unit_agent.site import Site, site_system
from tests.ws_bridge.conftest import Bridges, url_of

UNIT = "north"
pytestmark = pytest.mark.timeout(240)


@dataclass
class Network:
    """A centre, one unit's site, and callers of both kinds."""

    installed: Installation
    bridge: Started
    api: httpx.AsyncClient
    """Speaks as the unit's staff system."""
    site: Site
    agent: Agent

    @property
    def ops(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.installed.token(Role.OPS)}"}

    async def queue(self, *, seconds: float = 120, **more: object) -> str:
        """A command for the unit; its id."""
        deadline = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        order = {"type": "orders.place", "payload": {"code": "24323-8"}, "deadline": deadline, **more}
        answer = await self.api.post(f"/api/units/{UNIT}/commands", json=order)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def delivery(self, command_id: str) -> Json:
        """How far it has come."""
        found: Json = (await self.api.get(f"/api/commands/{command_id}")).json().get("delivery") or {}
        return found

    async def ends(self, command_id: str, status: str, *, attempt: int = 1) -> list[tuple[str, int]]:
        """Wait until it has; (state, attempt) of its witnesses."""

        async def has() -> Json | None:
            found = await self.delivery(command_id)
            ended = (found.get("status"), found.get("attempt")) == (status, attempt)
            arrived = any((one["state"], one["attempt"]) == ("received", attempt) for one in found.get("witnesses", []))
            return found if ended and (arrived or status != "applied") else None

        found = await eventually(has, within=40, what=f"{status}")
        assert found is not None
        return [(one["state"], one["attempt"]) for one in found["witnesses"]]

    async def letters(self, *reasons: str) -> list[Json]:
        """Open letters at the desk with these reasons."""
        query = {"reason": list(reasons), "unit": UNIT}
        answer = await self.api.get("/ops/dead-letters", params=query, headers=self.ops)
        assert answer.status_code == 200, answer.text
        found: list[Json] = answer.json()["items"]
        return found

    async def letter(self, reason: str) -> Json:
        """The one open letter with this reason, once it is filed."""
        ((found),) = await eventually(lambda: self.letters(reason), what=f"a letter {reason}")
        return dict(found)

    async def carespine(self, *words: str) -> subprocess.CompletedProcess[str]:
        """An operator at a terminal."""
        environment = os.environ | {
            "CARESPINE_VAR": str(self.installed.folder / "operator"),
            "CARESPINE_URL": str(self.api.base_url),
            "CARESPINE_TOKEN": self.installed.token(Role.OPS),
        }
        return await asyncio.to_thread(
            subprocess.run,
            [*CARESPINE, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


@asynccontextmanager
async def running(bridges: Bridges, agent_at: NewAgent) -> AsyncIterator[Network]:
    """Everything but the agent, which each test starts when its time comes."""
    installed = bridges.installed
    started = [installed.start(module) for module in ("gateway", "command_handlers", "projections")]
    bridge = await bridges.start()
    for one in started:
        await one.ready()
    url = f"http://127.0.0.1:{started[0].environment['CARESPINE_HTTP_PORT']}"
    own = {"Authorization": f"Bearer {installed.token(Role.STAFF, UNIT)}"}
    async with site_system() as site, httpx.AsyncClient(base_url=url, timeout=30, headers=own) as api:
        answer = await api.post("/api/units", json={"name": "A clinic"})
        assert answer.status_code == 201, answer.text
        position = {"position": answer.headers["Carespine-Position"]}
        assert (await api.get(f"/api/units/{UNIT}", params=position)).status_code == 200
        agent = agent_at(url_of(bridge), UNIT, "--webhook", site.url)
        yield Network(installed, bridge, api, site, agent)


@pytest.fixture
async def network(bridges: Bridges, agent_at: NewAgent) -> AsyncIterator[Network]:
    async with running(bridges, agent_at) as one:
        yield one


async def test_what_expired_while_the_unit_was_away_waits_at_the_desk_and_is_done_once_when_replayed(
    network: Network,
) -> None:
    command_id = await network.queue(seconds=1)
    assert await network.ends(command_id, "expired") == [("logged", 1), ("expired", 1)]
    letter = await network.letter("unit_expired")
    assert (letter["origin"], letter["errorType"], letter["unitId"]) == ("unit", "orders.place", UNIT)
    assert (letter["stream"], letter["blockId"]) == (f"unit_command-{command_id}", None)

    await network.agent.start()
    await eventually(network.agent.is_live, within=30, what="the agent is linked")
    assert network.site.done == []
    shown = await network.carespine("dead-letters", "list", "--reason", "unit_expired", "--unit", UNIT)
    assert letter["letterId"] in shown.stdout
    replayed = await network.carespine(
        "dead-letters", "replay", letter["letterId"], "--reason", "the line is back", "--json"
    )

    assert replayed.returncode == 0, replayed.stderr
    assert [one["status"] for one in json.loads(replayed.stdout)["items"]] == ["applied"]
    witnesses = await network.ends(command_id, "applied", attempt=2)
    assert [one for one in witnesses if one[1] == 2] == [("logged", 2), ("received", 2), ("applied", 2)]
    assert witnesses[:2] == [("logged", 1), ("expired", 1)]
    assert network.site.done == [command_id]
    assert await network.letters("unit_expired", "unit_rejected") == []
    ledger = (await network.api.get("/ops/ledger?verify=true", headers=network.ops)).json()
    assert ledger["firstBreak"] is None
    assert [(one["act"], one["reason"]) for one in ledger["items"]] == [
        ("replay of 1", "the line is back"),
        ("applied", "-"),
        ("replay done", "-"),
    ]


async def test_an_agent_killed_between_doing_and_telling_asks_and_does_not_repeat(network: Network) -> None:
    await network.agent.start()
    network.site.hold.clear()
    network.site.knows = {"applied": True, "result": {"room": "7"}}
    command_id = await network.queue()
    await eventually(lambda: network.site.done, what="the site is at it")

    network.agent.end()
    network.site.hold.set()
    await network.agent.start()

    assert await network.ends(command_id, "applied") == [("logged", 1), ("received", 1), ("applied", 1)]
    found = await network.delivery(command_id)
    assert found["witnesses"][1]["epoch"] >= 1
    assert network.site.done == [command_id]
    assert network.site.asked == 1


async def test_what_may_have_been_done_runs_again_only_when_an_operator_confirms_it(network: Network) -> None:
    await network.agent.start()
    network.site.hold.clear()
    command_id = await network.queue()
    await eventually(lambda: network.site.done, what="the site is at it")
    network.agent.end()
    network.site.hold.set()
    await network.agent.start()
    await network.ends(command_id, "rejected")
    letter = await network.letter("unit_rejected")
    assert letter["errorType"] == "orders.place/outcome_unknown"
    again = {"letterIds": [letter["letterId"]], "reason": "asked at the site"}

    planned = await network.api.post("/ops/replays", json={**again, "dryRun": True}, headers=network.ops)
    refused = await network.api.post("/ops/replays", json=again, headers=network.ops)
    by_hand = await network.carespine("dead-letters", "replay", letter["letterId"], "--reason", "asked at the site")

    assert [one["inDoubt"] for one in planned.json()["items"]] == [True]
    assert (refused.status_code, refused.json()["code"]) == (409, "outcome_unknown")
    assert by_hand.returncode == 6, by_hand
    assert network.site.done == [command_id]
    confirmed = await network.api.post("/ops/replays", json={**again, "confirm": True}, headers=network.ops)
    assert confirmed.status_code == 201, confirmed.text
    await network.ends(command_id, "applied", attempt=2)
    assert network.site.done == [command_id] * 2
    assert await network.letters("unit_rejected") == []


async def test_a_replay_that_a_rule_refuses_leaves_the_letter_open_for_another_day(network: Network) -> None:
    command_id = await network.queue(seconds=1)
    letter = await network.letter("unit_expired")
    again = {"letterIds": [letter["letterId"]], "reason": "the line is back"}
    settings = f"/api/units/{UNIT}/settings"
    assert (await network.api.put(settings, json={"mailboxLimit": 1})).status_code == 200
    blocking = await network.queue()

    full = (await network.api.post("/ops/replays", json=again, headers=network.ops)).json()
    assert await settled(network, full["runId"]) == ["refused"]
    assert [one["letterId"] for one in await network.letters("unit_expired")] == [letter["letterId"]]
    await network.api.post(f"/api/units/{UNIT}/commands/{blocking}/cancel", json={})
    room = (await network.api.post("/ops/replays", json=again, headers=network.ops)).json()
    assert await settled(network, room["runId"]) == ["applied"]
    assert (await network.delivery(command_id))["attempt"] == 2


async def test_a_letter_survives_handlers_that_die_before_the_broker_has_it(network: Network) -> None:
    """Written with the fact it tells of, and sent afterwards; killed in between, the next owner sends it."""
    handlers = network.installed.started["command-handlers-1"]
    with psycopg.connect(network.installed.postgres_url, autocommit=True) as database:
        database.execute("CREATE RULE kept AS ON DELETE TO letters_out DO INSTEAD NOTHING")
        await network.queue(seconds=0.5)
        letter = await network.letter("unit_expired")  # sent, but its row is still there, as if it had died just then
        handlers.kill()
        discarded = await network.api.post(
            f"/ops/dead-letters/{letter['letterId']}/discard", json={"reason": "not needed"}, headers=network.ops
        )
        assert discarded.status_code == 200, discarded.text
        database.execute("DROP RULE kept ON letters_out")
        handlers.start()
        await handlers.ready()
        await eventually(
            lambda: database.execute("SELECT count(*) FROM letters_out").fetchone() == (0,), what="it is sent again"
        )
        await eventually(lambda: handlers.log_text().count("desk.filed") >= 2, what="and filed again")
    after = (await network.api.get(f"/ops/dead-letters/{letter['letterId']}", headers=network.ops)).json()
    assert (after["status"], after["attempts"]) == ("discarded", 1)


async def test_a_letter_is_closed_when_somebody_else_has_it_tried_again(network: Network) -> None:
    command_id = await network.queue(seconds=1)
    letter = await network.letter("unit_expired")
    await network.agent.start()
    answer = await network.api.post(f"/api/units/{UNIT}/commands/{command_id}/retry")
    assert answer.status_code == 200, answer.text
    await network.ends(command_id, "applied", attempt=2)

    async def closed() -> Json | None:
        path = f"/ops/dead-letters/{letter['letterId']}"
        found: Json = (await network.api.get(path, headers=network.ops)).json()
        return found if found["status"] != "open" else None

    found = await eventually(closed, what="the letter is closed")
    assert found is not None
    assert (found["status"], found["resolution"], found["reason"]) == ("replayed", "tried again", "unit_expired")
    assert network.site.done == [command_id]


async def settled(network: Network, run_id: str) -> list[str]:
    """What became of each letter of a replay, once it is over."""

    async def over() -> Any:  # Any: JSON
        run = (await network.api.get(f"/ops/replays/{run_id}", headers=network.ops)).json()
        return run["items"] if run["status"] == "done" else None

    return [str(one["status"]) for one in await eventually(over, what="the replay is over")]
