"""A hospital's ADT feed and the whole centre: what HL7 says happens there, and what happens there is said in HL7."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from contracts.encounter import Discharge
from contracts.envelope import Json, Status
from contracts.ids import EncounterId, PatientId, UnitCommandId
from contracts.unit_command import QueueUnitCommand
from tests.kit.care import REGISTER_UNIT
from tests.kit.commands import Caller, new_id
from tests.kit.processes import Installation
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent, NewAgent
from tests.unit_agent.hl7v2.adt import PID, PV1, adt
from tests.unit_agent.hl7v2.test_mllp_peers import receiving
from tests.ws_bridge.conftest import Bridges, url_of

UNIT = "north"
PERSON = PID.replace("4711", "MRN-77")


async def says(agent: Agent, *messages: bytes) -> list[str]:
    """The hospital's system sends these; the answers' codes."""
    port = (await agent.status())["hl7"]["listen"]["port"]
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        codes = []
        for message in messages:
            writer.write(b"\x0b" + message + b"\x1c\r")
            codes.append((await reader.readuntil(b"\x1c\r")).partition(b"MSA|")[2][:2].decode())
        writer.close()
        return codes


async def test_hl7_becomes_what_happens_and_what_happens_becomes_hl7(
    bridges: Bridges, installed: Installation, agent_at: NewAgent, rabbitmq: str, postgres: str, tmp_path: Path
) -> None:
    for module in ("command_handlers", "projections"):
        await installed.start(module).ready()
    bridge = await bridges.start()
    async with Caller(rabbitmq) as caller, receiving() as receiver:
        assert (await caller.tell(UNIT, REGISTER_UNIT)).status is Status.ACCEPTED
        with psycopg.connect(postgres, autocommit=True) as database:
            await eventually(
                lambda: database.execute("SELECT 1 FROM read_units").fetchone(), what="the unit is visible"
            )
        (tmp_path / "agent.toml").write_text(
            f'[hl7.listen]\nport = 0\n[hl7.send]\nport = {receiver.port}\ncommands = {{ "record.push" = "A31" }}\n'
        )
        agent = agent_at(url_of(bridge), UNIT, "--config", str(tmp_path / "agent.toml"))
        await agent.start()
        await eventually(agent.is_live, within=30)

        arrival = adt("A04", PERSON, PV1, control_id="1")
        renamed = adt("A08", PERSON.replace("Nyberg", "Nyberg-Holm"), PV1, control_id="2")
        assert await says(agent, arrival, renamed, arrival) == ["AA", "AA", "AA"]

        async def known() -> Json | None:
            found = (await agent.ask("GET", "/patients?search=nyberg-holm")).json()["items"]
            summary: Json = (await agent.ask("GET", f"/patients/{found[0]['id']}")).json() if found else {}
            told = summary.get("queueEntries", [])
            return summary if [entry.get("ticket") for entry in told] == [1] else None

        person = await eventually(known, within=30, what="the centre has told of the arrival")
        assert person is not None
        assert (person["medicalRecordNumber"], person.get("provisional")) == ("MRN-77", None)
        [visit] = person["encounters"]

        order = QueueUnitCommand(
            unit_command_id=UnitCommandId(new_id()), type="record.push", patient_id=PatientId(UUID(person["id"])),
            deadline=datetime.now(UTC) + timedelta(minutes=5),
        )  # fmt: skip
        assert (await caller.tell(UNIT, order)).status is Status.ACCEPTED
        await eventually(lambda: len(receiver.got) == 1, what="the hospital is told of the person")
        over = Discharge(encounter_id=EncounterId(UUID(visit["id"])))
        assert (await caller.tell(UNIT, over)).status is Status.ACCEPTED
        await eventually(lambda: len(receiver.got) == 2, what="the hospital is told of the discharge")

        async def is_reported() -> bool:
            listed = (await agent.ask("GET", "/unit-commands")).json()["items"]
            return [(one["state"], one["reported"]) for one in listed] == [("applied", True)]

        await eventually(is_reported, what="the unit command was done and reported")
    # What the hospital had told itself was not told back to it.
    kinds = [str(message.segment("MSH")[9]) for message in receiver.got]
    assert kinds == ["ADT^A31^ADT_A05", "ADT^A03^ADT_A03"]
    assert str(receiver.got[0].segment("PID")[5]) == "Nyberg-Holm^Ottoline"
    assert str(receiver.got[1].segment("PV1")[19]).split("^")[0] == visit["id"]
    [(made,)] = agent.rows("SELECT count(*) FROM outbox WHERE subject = 'hl7'")
    assert made == 3
