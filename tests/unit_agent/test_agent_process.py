"""The agent as it runs at a site: killed, cut off, taken over; what it keeps and what it does not do twice."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
from pathlib import Path

import psutil

from contracts.envelope import CommandEnvelope
from contracts.ids import keyed_command_id
from contracts.live_call import LiveAnswer
from infra.broker.replies import ReplyBox
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent, NewAgent
from tests.unit_agent.site import site_system
from tests.ws_bridge.centre import Centre, patient, queued
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.test_submissions import with_the_handlers

UNIT = "north"


def holds(agent: Agent, position: int) -> bool:
    """It has everything up to this position."""
    return agent.position() >= position


def has_a_store(agent: Agent) -> bool:
    """Its tables are there: the file comes first."""
    return (agent.folder / "agent.db").exists() and bool(agent.rows("PRAGMA user_version")[0][0])


async def test_a_killed_agent_goes_on_where_its_disk_ends_and_takes_nothing_twice(
    bridge: Started, centre: Centre, agent_at: NewAgent
) -> None:
    await centre.unit(UNIT)
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()
    last = 0
    for _ in range(4):
        for _ in range(10):
            last = await centre.happens(UNIT, *(patient() for _ in range(20)))
        agent.end()
        last = await centre.happens(UNIT, *(patient() for _ in range(20)))
        await agent.start()
    final = last
    await eventually(lambda: holds(agent, final), within=20)
    [(count, first, highest)] = agent.rows("SELECT count(*), min(position), max(position) FROM facts")
    assert (count, first, highest) == (final, 1, final)
    assert dict(agent.rows("SELECT key, value FROM state"))["facts_applied"] == final
    status = await agent.status()
    assert status["link"]["epoch"] == 5


async def test_a_unit_command_is_done_once_and_reported_though_the_agent_is_killed(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    async with site_system() as site:
        agent = agent_at(url_of(bridge), UNIT, "--webhook", site.url)
        await agent.start()
        site.hold.clear()
        command = queued(UNIT, seconds=120)
        await centre.happens(UNIT, command)
        await eventually(lambda: site.done, within=20, what="the site is asked to do it")
        agent.end()
        site.hold.set()
        site.knows = {"applied": True, "result": {"room": "4"}}
        await agent.start()
        [report] = await with_the_handlers(rabbitmq, 1)
    assert len(site.done) == 1
    assert report.type == "unit_command.ReportUnitCommand"
    assert report.command_id == keyed_command_id("agent", UNIT, f"report:{command.unit_command_id}")
    assert report.payload == {
        "unitCommandId": str(command.unit_command_id), "applied": True, "result": {"room": "4"}, "attempt": 1,
    }  # fmt: skip


async def test_commands_made_at_the_site_survive_the_agent_and_reach_the_centre_in_order(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    agent = agent_at("ws://127.0.0.1:1/unit", UNIT)  # nobody listens there
    await agent.start()
    made = []
    for number in range(50):
        answer = await agent.ask(
            "POST",
            "/commands",
            {"type": "encounter.CheckIn", "payload": {"patientId": str(new_id()), "department": "intake"}},
            Idempotency_Key=str(number),
        )
        assert answer.status_code == 202
        made.append(answer.json()["commandId"])
    agent.end()
    agent.command[agent.command.index("--url") + 1] = url_of(bridge)
    await agent.start()
    sent: list[CommandEnvelope] = await with_the_handlers(rabbitmq, 50)
    assert [str(one.command_id) for one in sent] == made

    async def accepted() -> bool:
        return bool((await agent.status())["store"]["outboxWaiting"] == 0)

    await eventually(accepted, what="the outbox is empty")
    assert (await agent.ask("GET", f"/commands/{made[0]}")).json()["status"] == "accepted"


async def test_an_agent_follows_its_unit_from_a_bridge_that_leaves_to_the_next(
    bridge: Started, bridges: Bridges, centre: Centre, agent_at: NewAgent
) -> None:
    await centre.unit(UNIT)
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()
    await eventually(agent.is_live, within=20)
    await asyncio.to_thread(bridge.stop)
    last = await centre.happens(UNIT, patient(), patient())
    bridge.start()
    await eventually(lambda: holds(agent, last), within=40)
    assert (await agent.status())["link"]["sessions"] == 2


async def test_two_agents_with_one_identity_do_not_both_hold_the_unit(
    bridge: Started, centre: Centre, agent_at: NewAgent
) -> None:
    await centre.unit(UNIT)
    first, second = agent_at(url_of(bridge), UNIT), agent_at(url_of(bridge), UNIT)
    await first.start()
    await eventually(first.is_live, within=20)
    await second.start()
    await eventually(second.is_live, within=20)
    link = (await first.status())["link"]
    assert not link["connected"]
    assert "one agent per unit" in link["remedy"]


async def test_a_unit_that_is_not_registered_is_told_so_loudly_and_rarely(
    bridge: Started, centre: Centre, agent_at: NewAgent
) -> None:
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()

    async def stopped() -> bool:
        return bool((await agent.status())["link"]["state"] == "stopped")

    await eventually(stopped, within=20)
    assert (await agent.status())["link"]["remedy"] == "register the unit first"


async def test_a_live_call_is_answered_from_the_agent_s_own_disk(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    somebody = patient("Ottoline")
    last = await centre.happens(UNIT, somebody)
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()
    await eventually(lambda: holds(agent, last), within=20)
    async with ReplyBox(rabbitmq, instance="asker") as box:
        await box.until_up()

        async def asked(name: str, body: dict[str, object]) -> LiveAnswer:
            assert box.queue is not None
            call_id = new_id()
            with box.expect(str(call_id)) as answer:
                await centre.call(UNIT, name, body, box.queue, call_id=call_id)
                async with asyncio.timeout(5):
                    return LiveAnswer.model_validate_json(await answer)

        summary = await asked("patient-summary", {"patientId": str(somebody.patient_id)})
        assert (summary.ok, summary.body["firstName"]) == (True, "Ottoline")
        assert (await asked("ping", {})).body["position"] == last
        assert (await asked("waiting-room", {"department": "Intake"})).body["entries"] == []
        assert (await asked("statistics", {})).body["factsApplied"] == last
        assert (await asked("make-coffee", {})).code == "unknown_call"
        assert (await asked("patient-summary", {"patientId": "nobody"})).code == "patient_not_found"


async def test_the_local_api_wants_its_token_and_tells_what_the_feed_has_told(
    bridge: Started, centre: Centre, agent_at: NewAgent
) -> None:
    await centre.unit(UNIT)
    somebody = patient("Ottoline")
    last = await centre.happens(UNIT, somebody)
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()
    await eventually(lambda: holds(agent, last), within=20)
    assert (await agent.ask("GET", "/patients", Authorization="Bearer wrong")).status_code == 401
    assert (await agent.ask("GET", "/health", Authorization="")).status_code == 200
    assert "carespine_agent_connected 1.0" in (await agent.ask("GET", "/metrics", Authorization="")).text
    [found] = (await agent.ask("GET", "/patients?search=otto")).json()["items"]
    assert found["id"] == str(somebody.patient_id)
    assert (await agent.ask("GET", f"/patients/{found['id']}")).json()["encounters"] == []
    assert (await agent.ask("GET", "/patients/nobody")).status_code == 404
    assert (await agent.ask("GET", "/queues/General%20Medicine")).json()["department"] == "general-medicine"
    assert (await agent.ask("GET", "/unit-commands")).json() == {"items": []}
    assert "Ottoline" not in (agent.folder.parent / f"{agent.folder.name}.log").read_text()


async def test_the_local_api_refuses_what_is_no_command_and_repeats_what_is_the_same(
    bridge: Started, agent_at: NewAgent
) -> None:
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()

    async def make(type_name: str, payload: dict[str, object], key: str | None = None) -> tuple[int, dict[str, str]]:
        headers = {} if key is None else {"Idempotency_Key": key}
        answer = await agent.ask("POST", "/commands", {"type": type_name, "payload": payload}, **headers)
        return answer.status_code, answer.json()

    arrival: dict[str, object] = {"patientId": str(patient().patient_id), "department": "intake"}
    status, first = await make("encounter.CheckIn", arrival, "walk-in-7")
    assert status == 202
    assert {"encounterId", "queueEntryId", "commandId"} <= set(first)
    assert await make("encounter.CheckIn", arrival, "walk-in-7") == (202, first)
    assert (await make("encounter.CheckIn", {**arrival, "department": "xray"}, "walk-in-7"))[1]["code"] == (
        "idempotency_key_reused"
    )
    assert (await make("queue.DoMagic", {}))[1]["code"] == "command_unknown"
    assert (await make("unit.RetireUnit", {"reason": "x"}))[0] == 403
    assert (await make("unit_command.ReportUnitCommand", {}))[0] == 403
    status, wrong = await make("queue.CallNext", {"department": "Not A Department!"})
    assert (status, wrong["code"], wrong["detail"]) == (422, "content_invalid", "Not valid: department")
    assert (await make("queue.CallNext", {"department": "er", "counter": "a\x00"}))[1]["code"] == "content_invalid"


async def test_several_units_can_share_one_process(
    bridge: Started, bridges: Bridges, centre: Centre, tmp_path: Path
) -> None:
    units = [f"unit-{number}" for number in range(5)]
    members = []
    for unit_id in units:
        await centre.unit(unit_id)
        members.append({"credential": bridges.token(unit_id), "data": str(tmp_path / unit_id)})
    (tmp_path / "fleet.json").write_text(json.dumps(members))
    fleet = bridges.installed.start("unit_agent", "--url", url_of(bridge), "--fleet", str(tmp_path / "fleet.json"))
    try:
        for unit_id in units:
            last = await centre.happens(unit_id, patient())
            agent = Agent(tmp_path / unit_id, [])
            await eventually(functools.partial(has_a_store, agent), within=20)
            await eventually(functools.partial(holds, agent, last), within=20)
    finally:
        assert fleet.stop() == 0


async def test_an_agent_stays_small(bridge: Started, centre: Centre, agent_at: NewAgent) -> None:
    await centre.unit(UNIT)
    agent = agent_at(url_of(bridge), UNIT)
    await agent.start()
    last = 0
    for _ in range(4):
        last = await centre.happens(UNIT, *(patient() for _ in range(500)), pushed=False)
    await eventually(lambda: holds(agent, last), within=30)
    assert agent.process is not None
    assert psutil.Process(agent.process.pid).memory_info().rss < 80 * 1024 * 1024
    assert agent.end(signal.SIGTERM) == 0
