"""What units were asked to do, and what became of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from contracts.ids import UnitCommandId
from contracts.unit_command import (
    OnReconnect,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandSuperseded,
)
from projections import unit_commands
from tests.projections.facts import MORNING, NORTH, new_id
from tests.projections.readside import ReadSide


def queued(unit_command_id: UUID | None = None) -> UnitCommandQueued:
    return UnitCommandQueued(
        unit_command_id=UnitCommandId(unit_command_id or new_id()),
        unit_id=NORTH,
        type="orders.place",
        payload={"item": "bandages"},
        deadline=MORNING + timedelta(hours=1),
        on_reconnect=OnReconnect.RUN,
    )


async def shown(side: ReadSide, unit_command_id: UUID) -> unit_commands.UnitCommandWithHistory:
    async with side.asking(NORTH) as connection:
        found = await unit_commands.by_id(connection, unit_command_id)
    assert found is not None
    return found


async def test_a_queued_command_says_from_which_position_on_it_was_received(side: ReadSide) -> None:
    asked = queued()
    _, position = await side.write(NORTH, asked)
    now = await shown(side, asked.unit_command_id)
    assert (now.status, now.queued_position) == ("queued", position)
    assert (now.deadline, now.on_reconnect) == (asked.deadline, "run")


async def test_every_end_of_a_command_is_told(side: ReadSide) -> None:
    done, refused, expired, cancelled = (queued() for _ in range(4))
    await side.write(
        NORTH,
        *(done, refused, expired, cancelled),
        UnitCommandApplied(unit_command_id=done.unit_command_id, unit_id=NORTH, result={"number": 7}),
        UnitCommandRejected(unit_command_id=refused.unit_command_id, unit_id=NORTH, code="out-of-stock"),
        UnitCommandExpired(unit_command_id=expired.unit_command_id, unit_id=NORTH),
        UnitCommandCancelled(unit_command_id=cancelled.unit_command_id, unit_id=NORTH),
    )
    assert (await shown(side, done.unit_command_id)).result == {"number": 7}
    ends = [await shown(side, one.unit_command_id) for one in (done, refused, expired, cancelled)]
    assert [(one.status, one.code) for one in ends] == [
        ("applied", None),
        ("rejected", "out-of-stock"),
        ("expired", None),
        ("cancelled", None),
    ]
    assert all(one.settled_at for one in ends)


async def test_a_report_that_comes_late_leaves_the_final_status(side: ReadSide) -> None:
    asked = queued()
    who = asked.unit_command_id
    await side.write(NORTH, asked, UnitCommandExpired(unit_command_id=who, unit_id=NORTH))
    expired = await shown(side, who)
    await side.write(NORTH, UnitCommandApplied(unit_command_id=who, unit_id=NORTH, result={"number": 7}, late=True))
    late = await shown(side, who)
    assert (late.status, late.late_report, late.settled_at) == ("expired", "applied", expired.settled_at)
    assert late.result == {"number": 7}


async def test_a_units_commands_are_listed_newest_first(side: ReadSide) -> None:
    asked = [queued() for _ in range(5)]
    await side.write(NORTH, *asked, UnitCommandExpired(unit_command_id=asked[0].unit_command_id, unit_id=NORTH))
    async with side.asking(NORTH) as connection:
        first = await unit_commands.of_unit(connection, NORTH, limit=3)
        rest = await unit_commands.of_unit(connection, NORTH, limit=3, cursor=first.next_cursor)
        still = await unit_commands.of_unit(connection, NORTH, status="queued")
    listed = [one.id for one in [*first.items, *rest.items]]
    assert listed == [one.unit_command_id for one in reversed(asked)]
    assert len(still.items) == 4


async def test_one_that_is_tried_again_is_open_again_and_its_history_is_kept(side: ReadSide) -> None:
    asked = queued()
    who = asked.unit_command_id
    until = MORNING + timedelta(hours=9)
    await side.write(
        NORTH,
        asked,
        UnitCommandRejected(unit_command_id=who, unit_id=NORTH, code="no_bed", result={"beds": 0}),
        UnitCommandRetried(unit_command_id=who, unit_id=NORTH, attempt=2, deadline=until),
    )
    again = await shown(side, who)
    assert (again.status, again.attempt, again.deadline) == ("queued", 2, until)
    assert (again.code, again.result, again.settled_at) == (None, None, None)
    await side.write(NORTH, UnitCommandExpired(unit_command_id=who, unit_id=NORTH))
    _, last = await side.write(NORTH, UnitCommandApplied(unit_command_id=who, unit_id=NORTH, late=True))
    history = (await shown(side, who)).history
    assert [(one["state"], one["attempt"], one["by"]) for one in history] == [
        ("logged", 1, "event store"),
        ("rejected", 1, "unit"),
        ("logged", 2, "event store"),
        ("expired", 2, "deadline"),
        ("applied", 2, "unit"),
    ]
    assert [one.get("code") for one in history] == [None, "no_bed", None, None, None]
    assert [one.get("late") for one in history] == [None, None, None, None, True]
    assert history[-1]["position"] == last


async def test_a_superseded_command_names_the_newer_one(side: ReadSide) -> None:
    older, newer = (queued().model_copy(update={"supersede_key": "rota"}) for _ in range(2))
    who, by = older.unit_command_id, newer.unit_command_id
    await side.write(NORTH, older, newer, UnitCommandSuperseded(unit_command_id=who, unit_id=NORTH, by=by))
    found = await shown(side, who)
    assert (found.status, found.superseded_by, found.supersede_key) == ("superseded", by, "rota")
    assert found.history[-1]["by"] == "newer command"
