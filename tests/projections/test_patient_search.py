"""Finding patients by what was typed: a name, a number or a date of birth; page by page, and quickly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest

from contracts.model import Event
from projections import patient_search
from projections.questions import CursorNotValid
from tests.projections.facts import NORTH, SOUTH, patient, unit
from tests.projections.readside import ReadSide


async def found(side: ReadSide, typed: str | None, unit_id: str | None = NORTH, *, limit: int = 50) -> list[str]:
    """Names of all matches, in order, gathered page by page."""
    names: list[str] = []
    cursor: str | None = None
    async with side.asking(unit_id or "*") as connection:
        while True:
            page = await patient_search.page(connection, unit_id=unit_id, search=typed, cursor=cursor, limit=limit)
            assert len(page.items) <= limit
            names += [f"{each.first_name} {each.last_name}" for each in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return names


@pytest.fixture
async def people(side: ReadSide) -> Sequence[Event]:
    """Six people at one unit, one at another."""
    everybody = [
        patient("Ana", "Lund", mrn="MRN-1", born=date(1990, 1, 1)),
        patient("Martin", "Martinez", mrn="MRN-2", born=date(1990, 1, 1)),
        patient("Maria", "Olsen", mrn="MRN-3"),
        patient("José", "Márquez", mrn="MRN-4"),
        patient("Siobhán", "O’Brien", mrn="MRN-5"),
        patient("Anders", "Lund", mrn="MRN-6"),
    ]
    await side.write(NORTH, unit(), *everybody)
    await side.write(SOUTH, unit(SOUTH, name="South"), patient("Ana", "Lundgren", mrn="MRN-1"))
    return everybody


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("lund", ["Ana Lund", "Anders Lund"]),
        ("LUND AN", ["Ana Lund", "Anders Lund"]),
        ("lund, ana", ["Ana Lund"]),
        ("ana lu", ["Ana Lund"]),
        ("mar", ["José Márquez", "Martin Martinez", "Maria Olsen"]),
        ("marquez", ["José Márquez"]),
        ("jose", ["José Márquez"]),
        ("o'brien", ["Siobhán O’Brien"]),
        ("MRN-3", ["Maria Olsen"]),
        ("1990-01-01", ["Ana Lund", "Martin Martinez"]),
        ("1990-02-31", []),
        ("und", []),
        ("%", []),
    ],
)
async def test_what_was_typed_decides_how_to_look(
    side: ReadSide, people: Sequence[Event], typed: str, names: list[str]
) -> None:
    assert await found(side, typed) == names
    assert await found(side, typed, limit=1) == names, "the same, page by page"


async def test_nothing_typed_lists_everybody_by_name(side: ReadSide, people: Sequence[Event]) -> None:
    everybody = ["Ana Lund", "Anders Lund", "José Márquez", "Martin Martinez", "Siobhán O’Brien", "Maria Olsen"]
    for limit in (1, 2, 6, 50):
        assert await found(side, None, limit=limit) == everybody


async def test_the_whole_network_is_searched_unit_by_unit(side: ReadSide, people: Sequence[Event]) -> None:
    for limit in (1, 2, 50):
        assert await found(side, "lund", None, limit=limit) == ["Ana Lund", "Anders Lund", "Ana Lundgren"]
        assert await found(side, "MRN-1", None, limit=limit) == ["Ana Lund", "Ana Lundgren"]
        assert len(await found(side, None, None, limit=limit)) == 7


async def test_status_narrows_and_totals_are_exact(side: ReadSide, people: Sequence[Event]) -> None:
    async with side.asking(NORTH) as connection:
        nobody = await patient_search.page(connection, unit_id=NORTH, status="inactive", total=True)
        some = await patient_search.page(connection, unit_id=NORTH, search="mar", limit=1, total=True)
    assert (list(nobody.items), nobody.total) == ([], 0)
    assert (len(some.items), some.total) == (1, 3)


async def test_a_cursor_belongs_to_its_search_and_holds_no_name(side: ReadSide, people: Sequence[Event]) -> None:
    async with side.asking(NORTH) as connection:
        first = await patient_search.page(connection, unit_id=NORTH, search="lund", limit=1)
        assert first.next_cursor is not None
        with pytest.raises(CursorNotValid):
            await patient_search.page(connection, unit_id=NORTH, cursor=first.next_cursor)
        with pytest.raises(CursorNotValid):
            await patient_search.page(connection, unit_id=NORTH, search="lund", cursor="rubbish")
    assert len(first.next_cursor) < 60
