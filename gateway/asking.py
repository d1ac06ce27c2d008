"""Asking the read side: who asks, which unit's rows are visible, and how fresh the answer must be.

Each question runs in one read-only transaction whose unit is set for row-level security, so a forgotten condition in a
query cannot show another unit's data. What can be asked is in `projections`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg
from fastapi import Query, Request
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.responses import Response

from contracts.identity import Actor, Role
from contracts.model import Model
from gateway.answers import JSON
from gateway.callers import Callers, allow, one_unit, unit_for, unit_named
from gateway.passage import passage
from gateway.positions import Position, Positions, position_named
from gateway.problems import RETRY_AFTER, Problem, invalid_field
from infra.database import Connection, Pool, connected
from projections.questions import CursorNotValid, Page

M = TypeVar("M", bound=Model)

STATEMENT_TIMEOUT_MS: Final = 10_000
WHOLE_NETWORK: Final = "*"

CURSOR: Final = Query(None, max_length=400, description="`nextCursor` of the page before; opaque.")
LIMIT: Final = Query(50, ge=1, le=200, description="Items on a page.")
TOTAL: Final = Query(False, description="Count all items exactly; costs more the longer the list.")


class PageOf(Model, Generic[M]):
    """One page of a list."""

    items: list[M]
    next_cursor: str | None = Field(None, description="Pass it as `cursor` for the next page; null on the last one.")
    total: int | None = Field(None, description="Exact number of items; null unless `total=true`.")


@dataclass(frozen=True, slots=True)
class Asking:
    """One question about to be asked."""

    actor: Actor
    unit: str | None
    """The one unit it is about; None: all that a network-wide caller may see."""
    position: Position | None
    _pool: Pool
    _positions: Positions

    def one_unit(self) -> str:
        """The unit, where a question makes no sense without one; Problem when none is named."""
        return one_unit(self.actor, self.unit)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees what the caller may see, as fresh as the caller demands."""
        if self.position is not None:
            await self._positions.reach(self.position)
        try:
            async with connected(self._pool) as connection, _in_time(), connection.transaction():
                await connection.execute(
                    "SELECT set_config('transaction_read_only', 'on', true), set_config('carespine.unit', %s, true), "
                    "set_config('statement_timeout', %s, true)",
                    (self.unit or WHOLE_NETWORK, str(STATEMENT_TIMEOUT_MS)),
                )
                yield connection
        except CursorNotValid:
            raise Problem("cursor_invalid", "Start again from the first page.") from None


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    # Inside `connected`, for which a cancelled statement is one more kind of an unreachable database.
    try:
        yield
    except psycopg.errors.QueryCanceled:
        detail = f"It took more than {STATEMENT_TIMEOUT_MS // 1000} s; narrow the question or ask again."
        raise Problem("question_too_slow", detail, headers=RETRY_AFTER) from None


class Questions:
    """Makes the dependency that each reading route begins with."""

    def __init__(
        self, callers: Callers, pool: Pool, positions: Positions, *, partitions: int, signing: str | None = None
    ) -> None:
        """`signing`: what reports are signed with; None: this process may not sign."""
        self.signing: Final = signing
        self._callers = callers
        self._pool = pool
        self._positions = positions
        self._partitions = partitions

    def by(self, roles: Set[Role]) -> Callable[..., Awaitable[Asking]]:
        """A FastAPI dependency: the caller has one of these roles, and its unit is the one asked about."""

        async def asking(
            request: Request,
            unit: str | None = Query(None, description="The unit, for callers that work for the whole network."),
            position: str | None = Query(None, description="Wait until this position is visible."),
        ) -> Asking:
            asked = passage(request)
            actor = self._callers.actor(asked)
            allow(actor, roles)
            # A path that names a unit is about that unit; a unit's own token stays within it.
            named = request.path_params.get("unit_id") or unit_named(asked, unit)
            token = asked.text(b"carespine-position") or position
            return Asking(
                actor,
                unit_for(actor, named),
                position_named(token, self._partitions) if token else None,
                self._pool,
                self._positions,
            )

        return asking


class Reading(APIRoute):
    """A FastAPI route that tells the edge its template, for the metrics."""

    def get_route_handler(self) -> Callable[[Request], Any]:  # Any: FastAPI's own signature
        """The handler, with the template noted first."""
        handle = super().get_route_handler()

        async def noted(request: Request) -> Response:
            passage(request).route = self.path_format
            if b"%00" in request.scope["query_string"] or "\x00" in request.scope["path"]:
                raise invalid_field("(address)", "must not hold the character U+0000")
            answer: Response = await handle(request)
            return answer

        return noted


def one(found: Model | None, what: str, *, version: int | None = None) -> Response:
    """The one thing asked for, with its version as ETag; Problem 404 when it is not there or not visible."""
    if found is None:
        raise Problem("not_found", f"There is no such {what}, or it is not this unit's.")
    headers = {"ETag": f'"{version}"'} if version is not None else None
    return Response(found.model_dump_json(by_alias=True), 200, headers, JSON)


def many(page: Page[M]) -> Response:
    """A page of them."""
    items = ",".join(item.model_dump_json(by_alias=True) for item in page.items)
    cursor = "null" if page.next_cursor is None else f'"{page.next_cursor}"'
    total = "null" if page.total is None else str(page.total)
    return Response(f'{{"items":[{items}],"nextCursor":{cursor},"total":{total}}}', media_type=JSON)
