"""Messages no handler can read: their content is sealed, the command they name is answered, they are replayed as is."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest

from contracts.envelope import Status
from contracts.ids import partition_of
from contracts.routing import COMMANDS, command_key
from infra.database import pool
from infra.dead_letters import replays
from tests.kit.care import REGISTER_UNIT, registration
from tests.kit.commands import PARTITIONS, Caller
from tests.kit.processes import Installation
from tests.kit.waiting import eventually

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for
KEY = command_key("u1", partition_of("u1", PARTITIONS), "unit.RegisterUnit")


async def the_letter(database: Database) -> UUID:
    """The one that is filed."""
    rows = await eventually(lambda: database.execute("SELECT letter_id FROM dead_letters").fetchall())
    assert len(rows) == 1
    return UUID(str(rows[0][0]))


async def run_of(installed: Installation, letter_id: UUID) -> UUID:
    """Have a letter replayed."""
    async with pool(installed.postgres_url, role="desk") as desk, desk.connection() as connection:
        asked = await replays.request_replay(connection, letter_ids=[letter_id], actor="ops-1", reason="try again")
    assert asked.run_id is not None
    return asked.run_id


async def test_an_envelope_nobody_can_read_is_answered_and_keeps_nothing_in_clear(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    envelope = caller.envelope("u1", registration(first_name="Xanthippe"))
    broken = {**json.loads(envelope.to_json()), "surname": "Quillfeather"}

    await caller.publisher.publish(COMMANDS, KEY, json.dumps(broken).encode(), message_id="x")

    asked = ("SELECT status, code, dead_letter_id FROM command_receipts WHERE command_id = %s", (envelope.command_id,))
    await eventually(lambda: database.execute(*asked).fetchone())
    (status, code, letter_id) = database.execute(*asked).fetchone() or ("", "", None)
    assert (status, code) == ("failed", "poison")
    (kept,) = database.execute("SELECT t::text FROM dead_letters t WHERE letter_id = %s", (letter_id,)).fetchone() or (
        "",
    )
    assert "Xanthippe" not in kept
    assert "Quillfeather" not in kept


@pytest.mark.parametrize("body", [b"not json", b"\xff\xfe", b'{"replay": {"letterId": 7}}', b"[1]", b'"text"'])
async def test_what_stays_unreadable_comes_back_as_the_same_letter(
    installed: Installation, caller: Caller, database: Database, body: bytes
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    await caller.publisher.publish(COMMANDS, KEY, body, message_id="x")
    letter_id = await the_letter(database)

    run = await run_of(installed, letter_id)

    ended = ("SELECT status FROM replays WHERE run_id = %s", (run,))
    await eventually(lambda: database.execute(*ended).fetchone() == ("done",), within=20)
    letters = database.execute("SELECT letter_id, status, attempts FROM dead_letters").fetchall()
    assert letters == [(letter_id, "open", 2)]
    assert database.execute("SELECT status FROM replay_items").fetchall() == [("failed",)]
    assert handlers.running()
    assert (await caller.tell("u1", REGISTER_UNIT)).status is Status.ACCEPTED


async def test_an_unreadable_envelope_with_a_command_id_is_replayed_and_fails_again(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    broken = {**json.loads(caller.envelope("u1", REGISTER_UNIT).to_json()), "fromTheFuture": True}
    await caller.publisher.publish(COMMANDS, KEY, json.dumps(broken).encode(), message_id="x")
    letter_id = await the_letter(database)

    run = await run_of(installed, letter_id)

    ended = ("SELECT status FROM replays WHERE run_id = %s", (run,))
    await eventually(lambda: database.execute(*ended).fetchone() == ("done",), within=20)
    assert database.execute("SELECT letter_id, status, attempts FROM dead_letters").fetchall() == [
        (letter_id, "open", 2)
    ]
    assert handlers.running()


async def test_a_message_in_the_wrong_partition_is_replayed_into_the_right_one(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    envelope = caller.envelope("u1", REGISTER_UNIT)
    wrong = command_key("u1", (partition_of("u1", PARTITIONS) + 1) % PARTITIONS, "unit.RegisterUnit")
    await caller.publisher.publish(COMMANDS, wrong, envelope.to_json(), message_id="y")
    letter_id = await the_letter(database)

    await run_of(installed, letter_id)

    asked = ("SELECT status FROM command_receipts WHERE command_id = %s", (envelope.command_id,))
    await eventually(lambda: database.execute(*asked).fetchone() == ("accepted",), within=20)
    await eventually(lambda: database.execute("SELECT status FROM dead_letters").fetchall() == [("replayed",)])
