"""The list of units: who is there, what each decided for itself, and its departments."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.unit import (
    DepartmentAdded,
    UnitAddress,
    UnitConfigured,
    UnitRegistered,
    UnitResumed,
    UnitRetired,
    UnitSettings,
    UnitSuspended,
)
from contracts.unit_presence import UnitBack, UnitUnreachable
from projections import units
from projections.questions import CursorNotValid
from tests.projections.facts import NORTH, SOUTH, unit
from tests.projections.readside import ReadSide


async def test_a_unit_is_shown_as_it_was_registered(side: ReadSide) -> None:
    settings = UnitSettings(zone="Europe/Berlin", ageing_minutes=45)
    address = UnitAddress(city="Nordstadt", country="DE")
    await side.write(
        NORTH,
        UnitRegistered(unit_id=NORTH, name="North", kind="prov", source_id="o-1", address=address, settings=settings),
    )
    async with side.asking() as connection:
        found = await units.by_id(connection, NORTH)
    assert found is not None
    assert (found.id, found.name, found.status, found.version) == (NORTH, "North", "active", 1)
    assert found.settings == settings.to_dict()
    assert found.address == address.to_dict()


async def test_a_unit_follows_its_suspension_resumption_configuration_and_retirement(side: ReadSide) -> None:
    async def now() -> units.Unit:
        async with side.asking() as connection:
            found = await units.by_id(connection, NORTH)
        assert found is not None
        return found

    await side.write(NORTH, unit(), UnitSuspended(unit_id=NORTH, reason="flood"))
    assert ((await now()).status, (await now()).status_reason) == ("suspended", "flood")
    await side.write(
        NORTH, UnitResumed(unit_id=NORTH), UnitConfigured(unit_id=NORTH, settings=UnitSettings(zone="UTC"))
    )
    assert ((await now()).status, (await now()).status_reason) == ("active", None)
    assert (await now()).settings["zone"] == "UTC"
    await side.write(NORTH, UnitRetired(unit_id=NORTH, reason="closed"))
    assert ((await now()).status, (await now()).version) == ("retired", 5)


async def test_a_unit_is_shown_as_unreachable_until_it_is_back(side: ReadSide) -> None:
    async def shown() -> tuple[bool, object]:
        async with side.asking() as connection:
            found = await units.by_id(connection, NORTH)
        assert found is not None
        return found.reachable, found.unreachable_since

    await side.write(NORTH, unit())
    assert await shown() == (True, None)
    since = datetime(2025, 3, 3, 8, tzinfo=UTC)
    await side.write(NORTH, UnitUnreachable(unit_id=NORTH, since=since))
    assert await shown() == (False, since)
    await side.write(NORTH, UnitBack(unit_id=NORTH, away_seconds=480))
    assert await shown() == (True, None)


async def test_departments_are_listed_by_code_and_may_get_another_name(side: ReadSide) -> None:
    await side.write(
        NORTH,
        unit(),
        DepartmentAdded(unit_id=NORTH, department="lab", display="Labor"),
        DepartmentAdded(unit_id=NORTH, department="er", display="Emergency"),
        DepartmentAdded(unit_id=NORTH, department="lab", display="Laboratory"),
    )
    async with side.asking() as connection:
        found = await units.departments_of(connection, NORTH)
        shown = await units.by_id(connection, NORTH)
    assert [(each.department, each.display) for each in found] == [("er", "Emergency"), ("lab", "Laboratory")]
    assert shown is not None
    assert shown.version == 4, "If-Match needs the stream's version"


async def test_units_are_found_by_the_beginning_of_their_name_page_by_page(side: ReadSide) -> None:
    for number in range(5):
        await side.log.write(f"u-{number}", unit(f"u-{number}", name=f"Clínica {number}"))
    await side.write(SOUTH, unit(SOUTH, name="Hospital"))
    async with side.asking() as connection:
        first = await units.page(connection, search="CLINICA", limit=3, total=True)
        rest = await units.page(connection, search="CLINICA", limit=3, cursor=first.next_cursor)
        everywhere = await units.count(connection)
        active = await units.count(connection, status="active")
    assert [each.id for each in [*first.items, *rest.items]] == [f"u-{number}" for number in range(5)]
    assert (first.total, rest.next_cursor, everywhere, active) == (5, None, 6, 6)


async def test_a_made_up_cursor_is_told_from_a_real_one(side: ReadSide) -> None:
    async with side.asking() as connection:
        for cursor in ("nonsense", "!!", "bm93aGVyZQ"):
            with pytest.raises(CursorNotValid):
                await units.page(connection, cursor=cursor)
