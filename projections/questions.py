"""How a read model is asked: statements compiled once, answers as frozen values, pages by cursor.

Every question runs on the gateway's connection, inside a transaction that has done `SET LOCAL carespine.unit`:
row-level security decides what is visible. Where a question takes `unit_id`, naming the unit makes it quick (indexes
are led by it); None asks the whole network as far as it is visible.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row
from sqlalchemy.sql import ClauseElement

from contracts.model import Model
from projections.read_model import Compiled

Connection = AsyncConnection[Any]  # Any: rows are shaped by each cursor

M = TypeVar("M", bound=Model)
LAST_CHARACTER = "\U0010ffff"


class CursorNotValid(ValueError):
    """The cursor was not made by this list, or what it stood on is gone; start from the first page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """One page of a list."""

    items: Sequence[M]
    next_cursor: str | None
    """Opaque, free of identity; None on the last page."""
    total: int | None = None
    """Exact number of all items; None unless asked for."""


class Question(Generic[M]):
    """A statement and the shape of its answers. Columns are labelled by the answer's field names."""

    def __init__(self, statement: ClauseElement, answer: type[M]) -> None:
        self._statement = Compiled(lambda: statement)
        self._answer = answer

    async def all(self, connection: Connection, **about: object) -> list[M]:
        """Every answer, in the statement's order."""
        async with connection.cursor(row_factory=class_row(self._answer)) as cursor:
            await cursor.execute(self._statement.text, self._statement.with_values(**about))
            return await cursor.fetchall()

    async def first(self, connection: Connection, **about: object) -> M | None:
        """The first answer, or None."""
        async with connection.cursor(row_factory=class_row(self._answer)) as cursor:
            await cursor.execute(self._statement.text, self._statement.with_values(**about))
            return await cursor.fetchone()


class Number:
    """A statement that answers one whole number."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = Compiled(lambda: statement)

    async def ask(self, connection: Connection, **about: object) -> int:
        """The number; 0 when there is no row."""
        cursor = await connection.execute(self._statement.text, self._statement.with_values(**about))
        row = await cursor.fetchone()
        return int(row[0]) if row and row[0] is not None else 0


def cursor_of(*parts: object) -> str:
    """An opaque cursor. Only ids and codes may go in: cursors stand in URLs and logs."""
    return base64.urlsafe_b64encode("|".join(map(str, parts)).encode()).decode().rstrip("=")


def cursor_parts(cursor: str, count: int) -> list[str]:
    """What `cursor_of` was given, as text; raises `CursorNotValid`."""
    try:
        parts = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode().split("|")
    except (binascii.Error, UnicodeError) as why:
        raise CursorNotValid("not a cursor of ours") from why
    if len(parts) != count:
        raise CursorNotValid("not a cursor of this list")
    return parts


_FROM_THE_NEWEST = (1 << 63) - 1


def position_before(cursor: str | None) -> int:
    """Where a list of log positions, newest first, goes on; raises `CursorNotValid`."""
    if cursor is None:
        return _FROM_THE_NEWEST
    (text,) = cursor_parts(cursor, 1)
    if not (text.isascii() and text.isdecimal()):
        raise CursorNotValid("not a cursor of this list")
    return min(int(text), _FROM_THE_NEWEST)


def page_of(found: Sequence[M], limit: int, mark: Callable[[M], object]) -> Page[M]:
    """The first `limit` of what was found; one more than that means there is a next page, after the last one's mark."""
    items = found[:limit]
    return Page(items, next_cursor=cursor_of(mark(items[-1])) if len(found) > limit else None)
