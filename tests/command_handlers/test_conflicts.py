"""What a unit did and cannot stand: its refusal and a task about it in one transaction, once however often it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from contracts.envelope import Origin, Status
from contracts.identity import Actor, Role
from contracts.ids import TaskId, derived
from contracts.queue import CallNext
from contracts.task import ClaimTask, CompleteTask
from contracts.unit import SuspendUnit
from tests.kit.care import REGISTER_UNIT, check_in, registration
from tests.kit.commands import Caller, new_id
from tests.kit.processes import Installation

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for

AGENT = Actor(subject="desk", role=Role.UNIT, unit="u1")
NURSE = Actor(subject="nurse-4", role=Role.NURSE, unit="u1")
_TASKS = (
    "SELECT stream, position, payload, sealed, command_id, causation_id FROM events WHERE type = 'task.TaskCreated'"
)
_RECEIPT = "SELECT type, status, code, position, causation_id FROM command_receipts WHERE command_id = %s"


async def test_a_refused_command_of_a_unit_becomes_one_task(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    arrival = check_in(patient.patient_id)
    await caller.tell("u1", arrival)
    assert (await caller.tell("u1", CallNext(department="general"))).status is Status.ACCEPTED

    late = CallNext(department="general", entry_id=arrival.queue_entry_id)
    envelope = caller.envelope("u1", late, origin=Origin.UNIT, actor=AGENT)
    outcomes = await asyncio.gather(*(caller.ask(envelope) for _ in range(8)))
    outcomes.append(await caller.ask(envelope))

    assert {(one.status, one.code, one.result) for one in outcomes} == {(Status.REFUSED, "entry_not_waiting", None)}
    [(stream, position, payload, sealed, command_id, causation_id)] = database.execute(_TASKS).fetchall()
    task_id = TaskId(derived(envelope.command_id, "conflict", envelope.issued_at))
    assert (stream, causation_id, sealed) == (f"task-{task_id}", envelope.command_id, None)
    assert (payload["kind"], payload["status"]) == ("conflict", "requested")
    assert (payload["patientId"], payload["encounterId"]) == (str(patient.patient_id), str(arrival.encounter_id))
    assert payload["cause"] == {
        "commandId": str(envelope.command_id),
        "commandType": "queue.CallNext",
        "code": "entry_not_waiting",
        "issuedAt": payload["cause"]["issuedAt"],
    }
    assert not {"Zoraida", "Quillfeather"} & set(str(payload).split()), "no name is in clear"
    refused = database.execute(_RECEIPT, (envelope.command_id,)).fetchone()
    assert refused == ("queue.CallNext", "refused", "entry_not_waiting", None, None)
    followed = database.execute(_RECEIPT, (command_id,)).fetchone()
    assert followed == ("task.RaiseConflict", "accepted", None, position, envelope.command_id)

    claimed = await caller.tell("u1", ClaimTask(task_id=task_id), actor=NURSE)
    assert claimed.result == {"id": str(task_id), "status": "accepted", "assignee": "nurse-4"}
    done = CompleteTask(task_id=task_id, outcome="sorted-out", notes="called twice, came once")
    assert (await caller.tell("u1", done, actor=NURSE)).status is Status.ACCEPTED
    [(clear, hidden)] = database.execute(
        "SELECT payload, sealed FROM events WHERE type = 'task.TaskCompleted'"
    ).fetchall()
    assert hidden is not None
    assert "came once" not in str(clear)


async def test_only_what_units_do_leads_to_tasks_and_only_in_units_there_are(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    nobody = check_in(new_id())

    for_a_person = await caller.tell("u1", nobody)
    nowhere = await caller.tell("u9", nobody, origin=Origin.UNIT, actor=AGENT)
    assert (for_a_person.code, nowhere.code) == ("patient_not_found", "unit_not_found")
    empty = await caller.tell("u1", CallNext(department="general"), origin=Origin.UNIT, actor=AGENT)
    assert empty.code == "queue_empty", "nobody was called, so there is nothing to look at"
    assert database.execute(_TASKS).fetchall() == []

    await caller.tell("u1", SuspendUnit(reason="renovation"))
    assert (await caller.tell("u1", nobody, origin=Origin.UNIT, actor=AGENT)).code == "patient_not_found"
    [(_, _, payload, *_)] = database.execute(_TASKS).fetchall()
    assert payload["patientId"] == str(nobody.patient_id)
    keys = "SELECT 1 FROM subject_keys WHERE subject = %s"
    assert database.execute(keys, (str(nobody.patient_id),)).fetchone() is None, "nothing was sealed, so no key is made"
