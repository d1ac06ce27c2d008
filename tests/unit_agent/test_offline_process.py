"""An agent that is cut off, as a process: killed with its outbox full, brought back to a centre that has moved on."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import aiormq
import psycopg
import pytest

from contracts.envelope import CommandEnvelope, Json, Status
from contracts.ids import fresh_command_id, partition_of
from contracts.queue import CallNext
from contracts.routing import commands_queue
from tests.kit.care import REGISTER_UNIT
from tests.kit.commands import Caller
from tests.kit.processes import Installation, Started
from tests.kit.waiting import eventually
from tests.projections.logbook import PARTITIONS
from tests.unit_agent.conftest import Agent, NewAgent
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from unit_agent import outbox
from unit_agent.store import Store

UNIT = "north"
NOWHERE = "ws://127.0.0.1:1/unit"
COMMANDS = int(os.environ.get("CARESPINE_OFFLINE_COMMANDS", "3000"))
"""Made while cut off; the full measure is 100,000."""
LONG = 120 + COMMANDS / 100
PERSON: Json = {
    "medicalRecordNumber": "MRN-77",
    "firstName": "Ottoline",
    "lastName": "Quillfeather",
    "dateOfBirth": "1984-02-29",
}


def filled(folder: Path, count: int) -> list[str]:
    """An agent's disk on which so many commands wait; their ids in the order they were made."""
    now = datetime.now(UTC)
    made = [fresh_command_id(now, os.urandom(10)) for _ in range(count)]
    with Store(folder, UNIT) as store, store.transaction() as db:
        for command_id in made:
            outbox.add(
                db, command_id=command_id, type_name="queue.CallNext", payload={"department": "intake"},
                subject="desk", issued_at=now,
            )  # fmt: skip
    return [str(command_id) for command_id in made]


async def first_times(rabbitmq: str, count: int, *, within: float) -> list[str]:
    """Command ids as the handlers meet them, each where it came first."""
    met: dict[str, None] = {}
    enough = asyncio.Event()

    async def meet(message: aiormq.abc.DeliveredMessage) -> None:
        met.setdefault(str(CommandEnvelope.model_validate_json(message.body).command_id))
        if len(met) == count:
            enough.set()

    async with aiormq.connect(rabbitmq) as connection, asyncio.timeout(within):
        channel = await connection.channel()
        await channel.basic_consume(commands_queue(partition_of(UNIT, PARTITIONS)), meet, no_ack=True)
        await enough.wait()
    return list(met)


@pytest.mark.timeout(LONG + 60)
async def test_a_full_outbox_survives_kills_and_goes_up_in_order(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str
) -> None:
    await centre.unit(UNIT)
    agent = agent_at(url_of(bridge), UNIT)
    made = filled(agent.folder, COMMANDS)
    handlers = asyncio.create_task(first_times(rabbitmq, COMMANDS, within=LONG))
    try:
        for share in (0.2, 0.5, 0.8):
            await agent.start()

            async def is_so_far(waiting: float = COMMANDS * (1 - share)) -> bool:
                return bool((await agent.status())["store"]["outboxWaiting"] <= waiting)

            await eventually(is_so_far, within=LONG, what=f"{share:.0%} of the outbox is up")
            agent.end()
        await agent.start()
        assert await handlers == made
    finally:
        handlers.cancel()

    async def is_empty() -> bool:
        return bool((await agent.status())["store"]["outboxWaiting"] == 0)

    await eventually(is_empty, within=20)


async def made(agent: Agent, type_name: str, **payload: str) -> Json:
    """A command at the desk, taken."""
    answer = await agent.ask("POST", "/commands", {"type": type_name, "payload": payload})
    assert answer.status_code == 202, answer.text
    told: Json = answer.json()
    return told


async def test_a_day_at_a_cut_off_desk_goes_up_and_the_centre_has_the_last_word(
    bridges: Bridges, installed: Installation, agent_at: NewAgent, rabbitmq: str, postgres: str
) -> None:
    for module in ("command_handlers", "projections"):
        await installed.start(module).ready()
    bridge = await bridges.start()
    async with Caller(rabbitmq) as caller:
        assert (await caller.tell(UNIT, REGISTER_UNIT)).status is Status.ACCEPTED
        with psycopg.connect(postgres, autocommit=True) as database:
            await eventually(
                lambda: database.execute("SELECT 1 FROM read_units").fetchone(), what="the unit is visible"
            )
        agent = agent_at(url_of(bridge), UNIT)
        await agent.start()
        await eventually(agent.is_live, within=30)
        waits = await made(agent, "patient.RegisterPatient", **PERSON)
        theirs = await made(agent, "encounter.CheckIn", patientId=waits["patientId"], department="intake")

        async def line() -> list[tuple[str, str, bool]]:
            entries = (await agent.ask("GET", "/queues/intake")).json()["entries"]
            return [(one["id"], one["status"], one.get("provisional", False)) for one in entries]

        async def is_told() -> bool:
            return await line() == [(theirs["queueEntryId"], "waiting", False)]

        await eventually(is_told, what="the centre knows the first patient")
        await asyncio.to_thread(bridge.stop)

        async def is_cut_off() -> bool:
            return not (await agent.status())["link"]["connected"]

        await eventually(is_cut_off, within=30)
        # At the centre somebody calls the one who waits; the site cannot know, and calls the same one.
        assert (await caller.tell(UNIT, CallNext(department="intake"))).status is Status.ACCEPTED
        taken_twice = await made(agent, "queue.CallNext", department="intake")
        assert (taken_twice["entryId"], taken_twice["provisional"]) == (theirs["queueEntryId"], True)
        person = await made(agent, "patient.RegisterPatient", **{**PERSON, "medicalRecordNumber": "MRN-78"})
        ours = await made(agent, "encounter.CheckIn", patientId=person["patientId"], department="intake")
        called = await made(agent, "queue.CallNext", department="intake")
        assert called["entryId"] == ours["queueEntryId"]
        await made(agent, "queue.StartService", department="intake", entryId=ours["queueEntryId"])
        refused = await agent.ask(
            "POST",
            "/commands",
            {
                "type": "patient.AssignMrn",
                "payload": {"patientId": person["patientId"], "medicalRecordNumber": "MRN-9"},
            },
        )
        assert (refused.status_code, refused.json()["code"]) == (409, "needs_link")
        assert await line() == [
            (ours["queueEntryId"], "in-service", True),
            (theirs["queueEntryId"], "called", True),
        ]
        agent.end()
        await agent.start()
        assert (await agent.status())["store"]["outboxWaiting"] == 5
        bridge.start()

        async def is_settled() -> bool:
            return await line() == [
                (ours["queueEntryId"], "in-service", False),
                (theirs["queueEntryId"], "called", False),
            ]

        await eventually(is_settled, within=60, what="the centre's facts stand where the site's own stood")

        async def has_conflict() -> bool:
            return bool((await agent.status())["conflicts"] == {"open": 1, "total": 1})

        await eventually(has_conflict, within=20, what="the call that came too late is a conflict")
    with psycopg.connect(postgres) as database:
        tasks = database.execute("SELECT payload, causation_id FROM events WHERE type = 'task.TaskCreated'").fetchall()
    [(task, causation_id)] = tasks
    assert (task["kind"], str(causation_id)) == ("conflict", taken_twice["commandId"])
    assert (task["patientId"], task["cause"]["code"]) == (waits["patientId"], "entry_not_waiting")
    listed = (await agent.ask("GET", "/conflicts?open=true")).json()
    [one] = listed["items"]
    assert (one["commandId"], one["code"]) == (taken_twice["commandId"], "entry_not_waiting")
    metrics = (await agent.ask("GET", "/metrics", Authorization="")).text
    assert 'carespine_agent_conflicts_total{code="entry_not_waiting"} 1.0' in metrics
    assert "carespine_agent_conflicts_open 1.0" in metrics
    assert (await agent.ask("POST", f"/conflicts/{one['commandId']}/seen")).status_code == 204
    assert (await agent.status())["conflicts"] == {"open": 0, "total": 1}
    assert (await agent.ask("POST", "/conflicts/nothing/seen")).status_code == 404
    assert (await agent.ask("GET", "/conflicts?cursor=x")).status_code == 400
