"""How commands ended, as far as the caller may know."""

from __future__ import annotations

from uuid import UUID

from psycopg.types.json import Jsonb

from contracts.envelope import Outcome, Status
from projections import receipts
from tests.projections.facts import MORNING, NORTH, SOUTH, new_id
from tests.projections.readside import ReadSide


async def settled(side: ReadSide, unit_id: str, status: str, **columns: object) -> UUID:
    """A receipt as the handlers write it."""
    command_id = new_id()
    values: dict[str, object] = {
        "command_id": command_id,
        "unit_id": unit_id,
        "partition": 3,
        "type": "queue.CallNext",
        "status": status,
        "request_hash": "abc",
        "actor": Jsonb({"subject": "desk-1", "role": "receptionist", "unit": unit_id}),
        "issued_at": MORNING,
        **columns,
    }
    names = ", ".join(values)
    marks = ", ".join("%s" for _ in values)
    await side.admin.execute(
        f"INSERT INTO command_receipts ({names}) VALUES ({marks})".encode(),  # noqa: S608 - a test's own
        list(values.values()),
    )
    return command_id


async def test_a_receipt_tells_the_outcome_the_caller_heard(side: ReadSide) -> None:
    command_id = await settled(side, NORTH, "accepted", result=Jsonb({"ticket": 4}), position=17)
    async with side.asking(NORTH) as connection:
        receipt = await receipts.by_id(connection, command_id)
        nothing = await receipts.by_id(connection, new_id())
    assert receipt is not None
    assert receipt.outcome == Outcome(
        command_id=command_id,
        type="queue.CallNext",
        unit_id=NORTH,
        status=Status.ACCEPTED,
        result={"ticket": 4},
        partition=3,
        position=17,
    )
    assert receipt.actor.subject == "desk-1"
    assert nothing is None


async def test_refusals_are_listed_latest_first_for_a_unit_or_the_network(side: ReadSide) -> None:
    await settled(side, NORTH, "accepted")
    here = [await settled(side, NORTH, "refused", code="queue_empty") for _ in range(4)]
    there = await settled(side, SOUTH, "refused", code="queue_empty", about=Jsonb({"department": "er"}))
    async with side.asking() as connection:
        first = await receipts.refusals(connection, unit_id=NORTH, limit=3)
        rest = await receipts.refusals(connection, unit_id=NORTH, limit=3, cursor=first.next_cursor)
        everywhere = await receipts.refusals(connection, limit=2)
        more = await receipts.refusals(connection, limit=10, cursor=everywhere.next_cursor)
    assert [one.command_id for one in [*first.items, *rest.items]] == here[::-1]
    assert [one.command_id for one in [*everywhere.items, *more.items]] == [there, *here[::-1]]
    assert everywhere.items[0].about == {"department": "er"}
