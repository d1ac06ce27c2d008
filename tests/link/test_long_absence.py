"""An agent that was away for very long takes the unit's state instead of the events: real processes throughout."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from random import Random

from psycopg import AsyncConnection

from contracts.ids import partition_of
from contracts.model import Event
from contracts.unit import UnitRegistered, UnitSettings
from tests.kit.waiting import eventually
from tests.link.histories import Clinic
from tests.projections.logbook import PARTITIONS
from tests.unit_agent.conftest import Agent, NewAgent
from tests.ws_bridge.centre import Centre, queued
from tests.ws_bridge.conftest import Bridges, url_of

UNIT = "north"


async def written(centre: Centre, *facts: Event) -> int:
    """Facts that the projections make visible and push by themselves; the position of the last."""
    return await centre.happens(UNIT, *facts, visible=False)


async def is_visible(database: AsyncConnection[tuple[object, ...]], position: int) -> bool:
    cursor = await database.execute(
        "SELECT position FROM projection_checkpoints WHERE partition = %s", (partition_of(UNIT, PARTITIONS),)
    )
    row = await cursor.fetchone()
    return row is not None and int(str(row[0])) >= position


async def test_it_has_the_state_at_once_then_what_happens_and_does_what_it_is_still_to_do(
    bridges: Bridges, centre: Centre, agent_at: NewAgent
) -> None:
    clinic = Clinic(UNIT, Random(5))
    await bridges.installed.start("projections").ready()
    bridge = await bridges.start()
    joined = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    known = await written(centre, joined, *clinic.lives(100))
    await eventually(lambda: is_visible(centre.database, known), what="the beginning is visible")

    agent = agent_at(url_of(bridge), UNIT, "--snapshot-beyond", "1000")
    await agent.start()
    await eventually(agent.is_live, what="the agent is up to date")
    assert (await agent.status())["store"]["snapshotsTaken"] == 0
    agent.end(signal.SIGKILL)

    for _ in range(3):
        missed = await written(centre, *clinic.lives(1_500))
    order = queued(UNIT, seconds=3600)
    missed = await written(centre, order)
    await eventually(lambda: is_visible(centre.database, missed), within=60, what="what it missed is visible")
    await agent.start()
    await eventually(agent.is_live, within=60, what="the agent is up to date again")
    store = (await agent.status())["store"]
    assert store["snapshotsTaken"] == 1
    assert store["position"] >= missed
    assert store["factsStored"] < 2_000

    async def is_done() -> bool:
        listed = (await agent.ask("GET", "/unit-commands")).json()["items"]
        return [one["state"] for one in listed if one["id"] == str(order.unit_command_id)] == ["applied"]

    await eventually(is_done, what="the unit command that waited is done")
    last = await written(centre, *clinic.lives(30))
    await eventually(lambda: agent.position() == last, what="what happens now")
    assert_same_records(agent, await records(centre))


async def records(centre: Centre) -> set[tuple[str, str | None, str]]:
    """Patients as the centre has them: id, last name, status."""
    rows = await centre.database.execute(
        "SELECT patient_id::text, last_name, status FROM read_patients WHERE unit_id = %s", (UNIT,)
    )
    return {(str(row[0]), None if row[1] is None else str(row[1]), str(row[2])) for row in await rows.fetchall()}


def assert_same_records(agent: Agent, told: set[tuple[str, str | None, str]]) -> None:
    assert set(agent.rows("SELECT patient_id, last_name, status FROM patients")) == told


async def test_an_agent_killed_in_the_middle_of_it_starts_over_and_one_that_wants_none_gets_the_events(
    bridges: Bridges, centre: Centre, agent_at: NewAgent
) -> None:
    clinic = Clinic(UNIT, Random(6), now=datetime.now(UTC) - timedelta(days=40))
    await bridges.installed.start("projections").ready()
    bridge = await bridges.start()
    joined = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    last = await written(centre, joined, *clinic.lives(4_000))
    await eventually(lambda: is_visible(centre.database, last), within=60, what="all is visible")

    impatient = agent_at(url_of(bridge), UNIT, "--snapshot-beyond", "100")
    await impatient.start()
    impatient.end(signal.SIGKILL)  # before, within or after the snapshot
    await impatient.start()
    await eventually(impatient.is_live, within=60, what="the agent is up to date")
    assert (await impatient.status())["store"]["position"] >= last
    impatient.end()

    diligent = agent_at(url_of(bridge), UNIT, "--snapshot-beyond", "0")
    await diligent.start()
    await eventually(diligent.is_live, within=60, what="every event is there")
    assert (await diligent.status())["store"]["snapshotsTaken"] == 0
    assert diligent.position() == last
    told = await records(centre)
    assert_same_records(impatient, told)
    assert_same_records(diligent, told)
