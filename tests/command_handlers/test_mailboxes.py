"""Mailboxes under load: what is counted and who holds a key stays right within a batch and from one to the next."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from contracts.envelope import Status
from contracts.ids import UnitCommandId
from contracts.unit import ConfigureUnit, UnitSettings
from contracts.unit_command import CancelUnitCommand, QueueUnitCommand
from tests.kit.care import REGISTER_UNIT
from tests.kit.commands import Caller, new_id
from tests.kit.processes import Installation
from tests.kit.waiting import eventually

Database = psycopg.Connection[tuple[Any, ...]]  # Any: whatever is looked at


def order(*, key: str | None = None, seconds: float = 300) -> QueueUnitCommand:
    return QueueUnitCommand(
        unit_command_id=UnitCommandId(new_id()),
        type="ping",
        deadline=datetime.now(UTC) + timedelta(seconds=seconds),
        supersede_key=key,
    )


def tally(database: Database) -> int:
    """How many open commands the unit is said to have."""
    (found,) = database.execute("SELECT amount FROM unit_tallies WHERE unit_id = 'u1'").fetchone() or (0,)
    return int(found)


def timers(database: Database) -> int:
    """How many deadlines are watched."""
    (found,) = database.execute("SELECT count(*) FROM timers").fetchone() or (0,)
    return int(found)


def really_open(database: Database) -> int:
    """How many it has by the log."""
    (found,) = database.execute(
        "SELECT count(*) FILTER (WHERE type LIKE '%Queued' OR type LIKE '%Retried') "
        "- count(*) FILTER (WHERE type LIKE '%Cancelled' OR type LIKE '%Superseded' OR type LIKE '%Expired') "
        "FROM events WHERE type LIKE 'unit_command.%'"
    ).fetchone() or (0,)
    return int(found)


async def test_of_many_under_one_key_at_once_one_is_left(
    installed: Installation, caller: Caller, database: Database
) -> None:
    await installed.start("command_handlers").ready()
    await caller.tell("u1", REGISTER_UNIT)
    outcomes = await asyncio.gather(*(caller.tell("u1", order(key="rota")) for _ in range(40)))
    assert {outcome.status for outcome in outcomes} == {Status.ACCEPTED}
    assert tally(database) == really_open(database) == 1
    assert timers(database) == 1, "nobody waits for the deadline of what has ended"


async def test_a_full_mailbox_is_full_for_a_crowd_and_across_owners(
    installed: Installation, caller: Caller, database: Database
) -> None:
    handlers = installed.start("command_handlers")
    await handlers.ready()
    await caller.tell("u1", REGISTER_UNIT)
    await caller.tell("u1", ConfigureUnit(settings=UnitSettings(mailbox_limit=10)))
    orders = [order() for _ in range(30)]
    outcomes = await asyncio.gather(*(caller.tell("u1", one) for one in orders))
    taken = [one for one, outcome in zip(orders, outcomes, strict=True) if outcome.status is Status.ACCEPTED]
    assert [outcome.code for outcome in outcomes].count("mailbox_full") == 20
    assert tally(database) == really_open(database) == 10

    handlers.kill()
    handlers.start()
    await handlers.ready()
    assert (await caller.tell("u1", order())).code == "mailbox_full"
    assert (await caller.tell("u1", CancelUnitCommand(unit_command_id=taken[-1].unit_command_id))).result
    assert (await caller.tell("u1", order(seconds=1))).status is Status.ACCEPTED
    await eventually(lambda: tally(database) == 9, what="the one with a short deadline has expired")
    assert really_open(database) == 9
