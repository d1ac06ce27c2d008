"""A command in, an answer and facts out: receipts, idempotency, atomic check-in, isolation between units."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from contracts.encounter import EncounterClass
from contracts.envelope import Status
from contracts.ids import partition_of
from contracts.patient import DeactivatePatient
from contracts.queue import CallNext
from tests.kit.care import REGISTER_UNIT, check_in, new_name, registration
from tests.kit.commands import PARTITIONS, Caller, new_id
from tests.kit.processes import Installation

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for


async def test_a_check_in_is_one_transaction_with_one_answer(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)

    outcome = await caller.tell("u1", check_in(patient.patient_id))

    assert outcome.status is Status.ACCEPTED
    assert outcome.result is not None
    assert outcome.result["ticket"] == 1
    rows = database.execute("SELECT type, position FROM events WHERE command_id = %s", (outcome.command_id,)).fetchall()
    assert [row[0] for row in rows] == [
        "encounter.PatientArrived",
        "encounter.ClinicianNotified",
        "queue.PatientEnqueued",
    ]
    assert outcome.position == rows[-1][1]


async def test_a_refused_reaction_refuses_the_whole_command(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    await caller.tell("u1", check_in(patient.patient_id))
    before = database.execute("SELECT count(*) FROM events").fetchone()

    # Another class of encounter may be open beside the first, but the queue has the patient already.
    again = check_in(patient.patient_id).model_copy(update={"encounter_class": EncounterClass.EMERGENCY})
    outcome = await caller.tell("u1", again)

    assert (outcome.status, outcome.code) == (Status.REFUSED, "already_in_queue")
    assert database.execute("SELECT count(*) FROM events").fetchone() == before


async def test_the_same_id_gets_the_first_answer_and_another_body_is_refused(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    envelope = caller.envelope("u1", registration())
    first = await caller.ask(envelope)

    again = await caller.ask(envelope)
    other = await caller.ask(envelope.model_copy(update={"request_hash": "something else"}))

    assert again == first.model_copy(update={"repeated": True})
    assert (other.status, other.code) == (Status.REFUSED, "command_id_reused")
    assert database.execute("SELECT count(*) FROM events WHERE stream LIKE 'patient-%'").fetchone() == (1,)
    assert database.execute("SELECT count(*) FROM command_receipts").fetchone() == (2,)


async def test_the_same_id_twice_in_one_batch_is_handled_once(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    envelope = caller.envelope("u1", registration())

    outcomes = await asyncio.gather(*(caller.ask(envelope) for _ in range(20)))

    assert {outcome.status for outcome in outcomes} == {Status.ACCEPTED}
    assert database.execute("SELECT count(*) FROM events WHERE stream LIKE 'patient-%'").fetchone() == (1,)


async def test_two_commands_racing_for_one_mrn_have_one_winner(installed: Installation, caller: Caller) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)

    outcomes = await asyncio.gather(*(caller.tell("u1", registration(mrn="MRN-1")) for _ in range(30)))

    assert sorted(outcome.code or "" for outcome in outcomes) == [""] + ["mrn_taken"] * 29


async def test_another_units_patient_does_not_exist_for_this_unit(installed: Installation, caller: Caller) -> None:
    await installed.start("command_handlers").ready()
    same = partition_of("u1", PARTITIONS)
    neighbour = next(f"n{n}" for n in range(1000) if partition_of(f"n{n}", PARTITIONS) == same)
    stranger = next(f"s{n}" for n in range(1000) if partition_of(f"s{n}", PARTITIONS) != same)
    patient = registration()
    for unit in ("u1", neighbour, stranger):
        await caller.tell(unit, REGISTER_UNIT)
    await caller.tell("u1", patient)

    answers = [await caller.tell(unit, check_in(patient.patient_id)) for unit in (neighbour, stranger)]
    claimed = await caller.tell(neighbour, patient)

    assert [answer.code for answer in answers] == ["patient_not_found", "patient_not_found"]
    assert claimed.status is Status.REFUSED


async def test_what_cannot_be_is_refused_with_its_reason(installed: Installation, caller: Caller) -> None:
    await installed.start("command_handlers").ready()

    unknown_unit = await caller.tell("nowhere", CallNext(department="general"))
    await caller.tell("u1", REGISTER_UNIT)
    empty = await caller.tell("u1", CallNext(department="general"))
    nobody = await caller.tell("u1", DeactivatePatient(patient_id=new_id()))
    patient = registration()
    await caller.tell("u1", patient)
    stale = await caller.ask(caller.envelope("u1", new_name(patient.patient_id, "Zora"), expected_version=7))

    assert [one.code for one in (unknown_unit, empty, nobody, stale)] == [
        "unit_not_found",
        "queue_empty",
        "patient_not_found",
        "version_conflict",
    ]


async def test_no_identity_is_readable_in_the_log_the_receipts_or_what_processes_say(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers", CARESPINE_LOG_LEVEL="debug")
    await handlers.ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration(mrn="MRN-SECRET-77", first_name="Xanthippe")
    await caller.tell("u1", patient)
    await caller.tell("u1", check_in(patient.patient_id))
    await caller.tell("u1", new_name(patient.patient_id, "Wilhelmina"))
    await caller.tell("u1", registration(mrn="MRN-SECRET-77"))

    kept = ""
    for table in ("events", "command_receipts", "claims", "subject_keys", "command_attempts"):
        kept += "\n".join(str(row) for row in database.execute(f"SELECT * FROM {table}"))  # noqa: S608 - our own names
    said = handlers.log_text()

    for secret in ("Xanthippe", "Wilhelmina", "Quillfeather", "MRN-SECRET-77", "1984-02-29", "a cough that stays"):
        assert secret not in kept
        assert secret not in said
