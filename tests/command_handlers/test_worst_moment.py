"""kill -9 between the commit and the acknowledgement: the message comes again, and nothing happens twice."""

from __future__ import annotations

from typing import Any

import psycopg

from contracts.envelope import Status
from infra.database import pool
from infra.dead_letters import replays
from tests.kit.care import REGISTER_UNIT, check_in, new_name, registration
from tests.kit.commands import Caller
from tests.kit.processes import Installation
from tests.kit.waiting import eventually

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for

SLOW_COMMIT = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON command_receipts DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
"""
COMMITTING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


async def test_a_handler_killed_while_its_commit_is_under_way_leaves_one_effect_and_one_answer(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    database.execute(SLOW_COMMIT.encode())
    envelope = caller.envelope("u1", check_in(patient.patient_id))
    await caller.publish(envelope)
    await eventually(lambda: database.execute(COMMITTING).fetchone() == (1,), what="the commit under way")

    handlers.kill()

    receipt = ("SELECT status FROM command_receipts WHERE command_id = %s", (envelope.command_id,))
    await eventually(lambda: database.execute(*receipt).fetchone() == ("accepted",), what="the commit went through")
    database.execute("DROP TRIGGER linger ON command_receipts")
    handlers.start()
    await handlers.ready()
    again = await caller.ask(envelope)
    after = await caller.tell("u1", check_in(patient.patient_id))

    assert (again.status, again.repeated) == (Status.ACCEPTED, True)
    assert after.code == "encounter_already_open"
    types = database.execute("SELECT type FROM events WHERE command_id = %s", (envelope.command_id,)).fetchall()
    assert sorted(row[0] for row in types) == [
        "encounter.ClinicianNotified",
        "encounter.PatientArrived",
        "queue.PatientEnqueued",
    ]
    await eventually(lambda: database.execute("SELECT count(*) FROM command_attempts").fetchone() == (0,))


async def test_a_desk_killed_in_the_middle_of_a_replay_goes_on_where_it_was(
    installed: Installation, caller: Caller, database: Database
) -> None:
    broken = installed.start("command_handlers", "--rehearse-defect=patient.UpdateDemographics")
    await broken.ready()
    await caller.tell("u1", REGISTER_UNIT)
    patient = registration()
    await caller.tell("u1", patient)
    sent = [await caller.tell("u1", new_name(patient.patient_id, name)) for name in ("Zelda", "Zora", "Zenobia")]
    letters = "SELECT count(*) FROM dead_letters WHERE status = 'open'"
    await eventually(lambda: database.execute(letters).fetchone() == (3,))
    broken.stop()
    database.execute(SLOW_COMMIT.replace("AFTER INSERT", "AFTER UPDATE").encode())
    repaired = installed.start("command_handlers")
    await repaired.ready()
    first = sent[0].dead_letter_id
    assert first is not None
    async with pool(installed.postgres_url, role="desk") as desk, desk.connection() as connection:
        await replays.request_replay(connection, letter_ids=[first], actor="ops-1", reason="fixed")
    await eventually(lambda: database.execute(COMMITTING).fetchone() == (1,), what="the replayed command's commit")

    repaired.kill()
    database.execute("DROP TRIGGER linger ON command_receipts")
    repaired.start()
    await repaired.ready()

    done = "SELECT count(*) FROM dead_letters WHERE status = 'replayed'"
    await eventually(lambda: database.execute(done).fetchone() == (3,), what="all three replayed")
    order = database.execute(
        "SELECT command_id FROM events WHERE type = 'patient.DemographicsUpdated' ORDER BY position"
    )
    assert [row[0] for row in order] == [one.command_id for one in sent]
    await eventually(lambda: database.execute("SELECT count(*) FROM stream_blocks").fetchone() == (0,))
