"""Poison: one bad command ends at the desk with its reason and holds up nothing but its own stream."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg

from contracts.dead_letter import MESSAGE_TYPE, DeadLetter, Reason
from contracts.envelope import Status
from contracts.identity import Actor, Role
from contracts.ids import partition_of
from contracts.patient import DeactivatePatient
from contracts.routing import COMMANDS, command_key
from infra.database import pool
from infra.dead_letters import ledger, replays, store
from tests.kit.care import REGISTER_UNIT, check_in, new_name, registration
from tests.kit.commands import PARTITIONS, Caller, new_id
from tests.kit.processes import Installation
from tests.kit.waiting import eventually

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for
DEFECT = "--rehearse-defect=patient.UpdateDemographics"


def filed(database: Database) -> list[tuple[Any, ...]]:  # Any: columns as asked for
    """Letters in the order of their streams."""
    return database.execute(
        "SELECT type, reason, status, seq, resolution FROM dead_letters ORDER BY first_failed_at, seq"
    ).fetchall()


async def replay(installed: Installation, letter_id: UUID) -> UUID:
    """Ask for a replay as an operator would; returns the run."""
    async with pool(installed.postgres_url, role="desk") as desk, desk.connection() as connection:
        asked = await replays.request_replay(connection, letter_ids=[letter_id], actor="ops-1", reason="fixed")
    assert asked.run_id is not None
    return asked.run_id


async def test_a_defect_stops_its_stream_and_nothing_else(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers", DEFECT).ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient, neighbour = registration(), registration()
    await caller.tell("u1", patient)
    await caller.tell("u1", neighbour)

    poison = await caller.tell("u1", new_name(patient.patient_id, "Zora"))
    follower = await caller.tell("u1", DeactivatePatient(patient_id=patient.patient_id))
    other = await caller.tell("u1", DeactivatePatient(patient_id=neighbour.patient_id))

    assert (poison.status, poison.code) == (Status.FAILED, "poison")
    assert (follower.status, follower.code) == (Status.FAILED, "parked")
    assert other.status is Status.ACCEPTED
    await eventually(lambda: len(filed(database)) == 2)
    assert [row[:4] for row in filed(database)] == [
        ("patient.UpdateDemographics", "bug", "open", 0),
        ("patient.DeactivatePatient", "parked", "open", 1),
    ]
    (envelope, sealed) = (
        database.execute("SELECT envelope::text, sealed FROM dead_letters WHERE seq = 0").fetchone() or ()
    )
    assert sealed
    assert "Zora" not in str(envelope)


async def test_a_repaired_release_replays_in_order_and_live_traffic_waits_behind(
    installed: Installation, caller: Caller, database: Database
) -> None:
    broken = installed.start("command_handlers", DEFECT)
    await broken.ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    poison = await caller.tell("u1", new_name(patient.patient_id, "Zora"))
    parked = [await caller.tell("u1", new_name(patient.patient_id, name)) for name in ("Zelda", "Zenobia")]
    broken.stop()
    await installed.start("command_handlers").ready()
    live = await caller.tell("u1", DeactivatePatient(patient_id=patient.patient_id))
    assert live.code == "parked", "live traffic of a held stream waits behind its letters"
    await eventually(lambda: len(filed(database)) == 4)

    assert poison.dead_letter_id is not None
    await replay(installed, poison.dead_letter_id)

    await eventually(lambda: {row[2] for row in filed(database)} == {"replayed"}, what="all letters replayed")
    order = database.execute(
        "SELECT command_id FROM events WHERE stream = %s ORDER BY stream_version", (f"patient-{patient.patient_id}",)
    ).fetchall()
    assert [row[0] for row in order][1:] == [one.command_id for one in (poison, *parked, live)]
    await eventually(lambda: database.execute("SELECT count(*) FROM stream_blocks").fetchone() == (0,))
    free = await caller.tell("u1", check_in(patient.patient_id))
    assert free.code == "patient_not_active", "the stream goes on: decided, not parked"
    async with pool(installed.postgres_url, role="desk") as desk, desk.connection() as connection:
        assert await ledger.first_break(connection) is None
        assert len(await ledger.entries(connection)) >= 5


async def test_a_replay_that_fails_again_leaves_everything_in_its_place(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers", DEFECT).ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    poison = await caller.tell("u1", new_name(patient.patient_id, "Zora"))
    await caller.tell("u1", DeactivatePatient(patient_id=patient.patient_id))
    await eventually(lambda: len(filed(database)) == 2)

    assert poison.dead_letter_id is not None
    run = await replay(installed, poison.dead_letter_id)

    await eventually(
        lambda: database.execute("SELECT status FROM replays WHERE run_id = %s", (run,)).fetchone() == ("done",)
    )
    assert [row[2:4] for row in filed(database)] == [("open", 0), ("open", 1)]
    items = database.execute("SELECT status FROM replay_items WHERE run_id = %s ORDER BY ord", (run,)).fetchall()
    assert items == [("failed",), ("skipped",)]
    await eventually(lambda: database.execute("SELECT attempts FROM dead_letters WHERE seq = 0").fetchone() == (2,))


async def test_a_discarded_letter_lets_its_stream_go_on(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers", DEFECT).ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    poison = await caller.tell("u1", new_name(patient.patient_id, "Zora"))
    await eventually(lambda: len(filed(database)) == 1)

    assert poison.dead_letter_id is not None
    async with pool(installed.postgres_url, role="desk") as desk, desk.connection() as connection:
        await store.discard(connection, letter_id=poison.dead_letter_id, actor="ops-1", reason="entered twice")

    after = await caller.tell("u1", DeactivatePatient(patient_id=patient.patient_id))
    assert after.status is Status.ACCEPTED


async def test_what_is_no_command_at_all_is_filed_and_stops_nothing(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    partition = partition_of("u1", PARTITIONS)
    key = command_key("u1", partition, "queue.CallNext")
    for body in (b"not json", b"\xff\xfe\x00", b'{"schemaVersion": 99}', b"[]", b"{}"):
        await caller.publisher.publish(COMMANDS, key, body, message_id="x")
    misrouted = caller.envelope("u1", REGISTER_UNIT)
    wrong = command_key("u1", (partition + 1) % PARTITIONS, "unit.RegisterUnit")
    await caller.publisher.publish(COMMANDS, wrong, misrouted.to_json(), message_id="y")
    unknown = await caller.ask(caller.envelope("u1", REGISTER_UNIT, type="queue.FromTheFuture"))
    ancient = await caller.ask(caller.envelope("u1", REGISTER_UNIT, type_version=-1))

    assert (unknown.code, ancient.code) == ("poison", "poison")
    assert (await caller.tell("u1", REGISTER_UNIT)).status is Status.ACCEPTED
    await eventually(lambda: len(filed(database)) == 8)
    expected = ["undecodable"] * 5 + ["unknown_command"] * 2 + ["wrong_partition"]
    assert sorted(row[1] for row in filed(database)) == expected


async def test_an_answer_that_cannot_be_addressed_ends_no_handler(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    await caller.publish(caller.envelope("u1", REGISTER_UNIT, reply_to="x" * 300))
    assert (await caller.tell("u1", REGISTER_UNIT)).status is Status.UNCHANGED
    assert handlers.running()


async def test_what_postgres_cannot_keep_is_filed_as_its_bytes_and_ends_no_handler(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    key = command_key("u1", partition_of("u1", PARTITIONS), REGISTER_UNIT.type_name())
    nameless = caller.envelope("u1", REGISTER_UNIT, actor=Actor(subject="a\x00b", role=Role.STAFF))
    await caller.publisher.publish(COMMANDS, key, nameless.to_json(), message_id="x")
    about = DeadLetter(
        letter_id=new_id(),
        reason=Reason.DELIVERY_LIMIT,
        fingerprint="0",
        origin="nowhere",
        code_version="0",
        failed_at=nameless.issued_at,
        message="no envelope",
    )
    too_much = caller.envelope("u1", REGISTER_UNIT).to_json().decode()
    for number, dead in enumerate(
        (
            about.to_json(),
            about.model_copy(update={"origin": "a\x00b"}).to_json(),
            about.model_copy(update={"seq": 2**40, "reason": Reason.BUG, "message": too_much}).to_json(),
        )
    ):
        await caller.publisher.publish("carespine.dead", "commands.x", dead, message_id=str(number), type=MESSAGE_TYPE)
    await caller.publisher.publish("carespine.dead", "commands.x", nameless.to_json(), message_id="y")

    await eventually(lambda: handlers.log_text().count("desk.filed") == 5, what="five messages filed")
    assert len(filed(database)) == 4, "the same bytes are one letter, whichever way they came"
    assert {row[1] for row in filed(database)} == {"undecodable", "delivery_limit"}
    assert (await caller.tell("u1", REGISTER_UNIT)).status is Status.ACCEPTED
    assert handlers.running()


async def test_a_command_whose_answer_cannot_be_written_goes_to_the_desk_and_its_partition_on(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    database.execute("ALTER TABLE command_receipts ADD CHECK (type <> 'patient.RegisterPatient')")
    await caller.publish(caller.envelope("u1", registration()))

    await eventually(lambda: len(filed(database)) == 1)
    assert filed(database)[0][:3] == ("patient.RegisterPatient", "bug", "open")
    assert (await caller.tell("u1", REGISTER_UNIT)).status is Status.UNCHANGED


async def test_a_message_the_broker_gives_up_is_filed_and_its_caller_told(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    envelope = caller.envelope("u1", REGISTER_UNIT)
    await caller.publisher.publish(
        "carespine.dead", "commands.delivery_limit", envelope.to_json(), message_id=str(envelope.command_id)
    )

    await eventually(lambda: filed(database))
    assert filed(database)[0][:2] == ("unit.RegisterUnit", "delivery_limit")
    asked = ("SELECT status FROM command_receipts WHERE command_id = %s", (envelope.command_id,))
    assert await eventually(lambda: database.execute(*asked).fetchone()) == ("failed",)


async def test_a_command_that_kills_its_handler_is_found_out_and_put_aside(
    installed: Installation, caller: Caller, database: Database
) -> None:
    """The handler dies whenever it decides the poison; innocents around it are handled, and it ends at the desk."""
    handlers = [
        installed.start("command_handlers", CARESPINE_REHEARSE_DEFECT="kill:patient.UpdateDemographics") for _ in "ab"
    ]
    for one in handlers:
        await one.ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient, others = registration(), [registration() for _ in range(20)]
    await caller.tell("u1", patient)

    async def keep_them_running() -> None:
        while True:
            for one in handlers:
                if not one.running():
                    one.start()
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        doctor = tasks.create_task(keep_them_running())
        poison = caller.envelope("u1", new_name(patient.patient_id, "Zora"))
        await caller.publish(poison)
        for other in others:
            await caller.publish(caller.envelope("u1", other))
        await eventually(
            lambda: database.execute("SELECT count(*) FROM events WHERE stream LIKE 'patient-%'").fetchone() == (21,),
            within=90,
            what="the innocents handled",
        )
        await eventually(lambda: filed(database), within=30)
        doctor.cancel()

    assert [row[:2] for row in filed(database)] == [("patient.UpdateDemographics", "crashed")]
    outcome = database.execute(
        "SELECT status, code FROM command_receipts WHERE command_id = %s", (poison.command_id,)
    ).fetchone()
    assert outcome == ("failed", "poison")
