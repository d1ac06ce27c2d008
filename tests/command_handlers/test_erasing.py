"""Erasure at the write side: the key goes in the transaction of the fact, and nothing brings it back."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from contracts.encounter import Discharge
from contracts.envelope import Status
from contracts.patient import ErasureBasis, RequestErasure
from infra.database import pool
from tests.kit.care import REGISTER_UNIT, check_in, new_name, registration
from tests.kit.commands import Caller
from tests.kit.processes import Installation

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for


def keys(database: Database, patient_id: object) -> int:
    row = database.execute("SELECT count(*) FROM subject_keys WHERE subject = %s", (str(patient_id),)).fetchone()
    assert row is not None
    return int(row[0])


async def test_the_key_is_destroyed_with_the_fact_and_the_number_is_free(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    gone, other = registration(mrn="MRN-1"), registration(mrn="MRN-2")
    for person in (gone, other):
        await caller.tell("u1", person)
        await caller.tell("u1", check_in(person.patient_id))
    events = database.execute("SELECT * FROM events ORDER BY partition, position").fetchall()

    outcome = await caller.tell("u1", RequestErasure(patient_id=gone.patient_id, basis=ErasureBasis.PERSON_ASKED))

    assert (outcome.status, outcome.result) == (Status.ACCEPTED, {"id": str(gone.patient_id), "status": "erased"})
    assert (keys(database, gone.patient_id), keys(database, other.patient_id)) == (0, 1)
    assert database.execute("SELECT * FROM events ORDER BY partition, position").fetchall()[:-1] == events
    found = database.execute(
        "SELECT patient_id, position, keys_destroyed, basis, requested_by FROM erasures"
    ).fetchall()
    assert found == [(gone.patient_id, outcome.position, 1, "person-asked", "test-caller")]
    # The next one is decided from the log, since memory was emptied; the erased record takes nothing more.
    changed = await caller.tell("u1", new_name(gone.patient_id, "Zora"))
    assert (changed.status, changed.code) == (Status.REFUSED, "patient_erased")
    again = await caller.tell("u1", RequestErasure(patient_id=gone.patient_id, basis=ErasureBasis.COURT_ORDER))
    assert again.status is Status.UNCHANGED
    renamed = await caller.tell("u1", new_name(other.patient_id, "Zora"))
    reused = await caller.tell("u1", registration(mrn="MRN-1"))
    assert (renamed.status, reused.status) == (Status.ACCEPTED, Status.ACCEPTED)
    assert keys(database, gone.patient_id) == 0


async def test_what_is_said_of_somebody_after_their_erasure_is_not_kept(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    person = registration()
    visit = check_in(person.patient_id)
    await caller.tell("u1", person)
    await caller.tell("u1", visit)
    await caller.tell("u1", RequestErasure(patient_id=person.patient_id, basis=ErasureBasis.PERSON_ASKED))

    ended = await caller.tell("u1", Discharge(encounter_id=visit.encounter_id, note="she went home"))

    assert ended.status is Status.ACCEPTED
    sealed = "SELECT sealed FROM events WHERE type = 'encounter.PatientDischarged'"
    assert database.execute(sealed.encode()).fetchall() == [(None,)]
    assert keys(database, person.patient_id) == 0


async def test_handlers_may_destroy_the_key_of_nobody_who_is_not_being_erased(postgres: str) -> None:
    async with pool(postgres, role="handlers") as some, some.connection() as connection:
        with pytest.raises(psycopg.errors.RaiseException):
            await connection.execute("SELECT destroy_subject_key('p1')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DELETE FROM subject_keys")
