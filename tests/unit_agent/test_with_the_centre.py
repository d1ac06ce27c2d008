"""A site and the whole centre: what is done at the unit is handled there and comes back, and the other way round."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from contracts.envelope import Json, Status
from contracts.ids import PatientId, UnitCommandId
from contracts.patient import ErasureBasis, RequestErasure
from contracts.unit_command import QueueUnitCommand
from tests.kit.care import REGISTER_UNIT
from tests.kit.commands import Caller, new_id
from tests.kit.processes import Installation
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent, NewAgent
from tests.ws_bridge.conftest import Bridges, url_of

UNIT = "north"
PERSON: Json = {
    "medicalRecordNumber": "MRN-77",
    "firstName": "Ottoline",
    "lastName": "Quillfeather",
    "dateOfBirth": "1984-02-29",
}


async def settled(agent: Agent, type_name: str, payload: Json) -> tuple[Json, Json]:
    """Make a command at the site: what was answered at once, and the outcome when the centre has told it."""
    made = (await agent.ask("POST", "/commands", {"type": type_name, "payload": payload})).json()

    async def outcome() -> Json | None:
        status = (await agent.ask("GET", f"/commands/{made['commandId']}")).json()
        return status["outcome"] if status["status"] == "settled" else None

    found = await eventually(outcome, within=30, what=f"{type_name} settled")
    assert found is not None
    return made, found


async def test_a_visit_that_begins_at_the_site_and_a_command_that_begins_at_the_centre(
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

        registered, outcome = await settled(agent, "patient.RegisterPatient", PERSON)
        assert outcome["status"] == "accepted"
        assert outcome["result"]["id"] == registered["patientId"]
        _, again = await settled(agent, "patient.RegisterPatient", PERSON)
        assert (again["status"], again["code"]) == ("refused", "mrn_taken")

        arrival = {"patientId": registered["patientId"], "department": "intake"}
        checked_in, outcome = await settled(agent, "encounter.CheckIn", arrival)
        assert outcome["result"]["ticket"] == 1
        _, outcome = await settled(agent, "queue.CallNext", {"department": "intake", "counter": "B"})
        assert outcome["result"]["entryId"] == checked_in["queueEntryId"]

        async def is_called() -> bool:
            room = (await agent.ask("GET", "/queues/intake")).json()
            return [(entry["ticket"], entry["status"]) for entry in room["entries"]] == [(1, "called")]

        await eventually(is_called, what="the cached waiting room shows the call")
        _, outcome = await settled(agent, "queue.CallNext", {"department": "intake"})
        assert (outcome["status"], outcome["code"]) == ("refused", "queue_empty")

        order = QueueUnitCommand(
            unit_command_id=UnitCommandId(new_id()),
            type="note",
            payload={"text": "bring the wheelchair"},
            deadline=datetime.now(UTC) + timedelta(minutes=5),
        )
        assert (await caller.tell(UNIT, order)).status is Status.ACCEPTED

        async def is_reported() -> bool:
            listed = (await agent.ask("GET", "/unit-commands")).json()["items"]
            return [(one["state"], one["reported"]) for one in listed] == [("applied", True)]

        await eventually(is_reported, what="the unit command was done and reported")
        with psycopg.connect(postgres, autocommit=True) as database:
            await eventually(
                lambda: database.execute(
                    "SELECT 1 FROM events WHERE type = 'unit_command.UnitCommandApplied' AND unit_id = %s", (UNIT,)
                ).fetchone(),
                what="the log says that it was applied",
            )


async def test_a_person_erased_at_the_centre_is_forgotten_at_the_site_and_the_report_says_so(
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
            registered, _ = await settled(agent, "patient.RegisterPatient", PERSON)
            patient_id = PatientId(UUID(registered["patientId"]))

            async def shown() -> Json:
                found: Json = (await agent.ask("GET", f"/patients/{patient_id}")).json()
                return found

            assert (await shown())["lastName"] == "Quillfeather"
            erase = RequestErasure(patient_id=patient_id, basis=ErasureBasis.PERSON_ASKED)
            assert (await caller.tell(UNIT, erase)).status is Status.ACCEPTED

            complete = "SELECT 1 FROM erasures WHERE completed_at IS NOT NULL"
            await eventually(lambda: database.execute(complete.encode()).fetchone(), what="the erasure")
            record = await shown()
            assert (record.get("lastName"), record["erased"]) == (None, True)
            rows = database.execute("SELECT place, count FROM erasure_places WHERE instance = ''").fetchall()
            places = {str(place): int(count) for place, count in rows}
            assert (places["unit_agent: patients"], places["unit_agent: commands made here"]) == (1, 1)
