"""The operators' desk: what could not be handled, replaying it, giving it up, and the ledger of who did what.

Payloads stay sealed unless somebody asks for one with a reason; that look is itself an entry in the ledger. What the
desk does with a replay is `command_handlers.desk`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field, TypeAdapter, ValidationError

from contracts.dead_letter import Reason
from contracts.envelope import Json
from contracts.identity import Actor
from contracts.model import Model
from gateway.answers import json_answer
from gateway.asking import CURSOR, LIMIT, Reading
from gateway.callers import OPERATORS, Callers, allow
from gateway.passage import passage
from gateway.problems import Kind, Problem
from gateway.routes.desk_records import (
    LEDGER,
    LETTER,
    REPLAY,
    REVEALED,
    RUN,
    RUN_WITH_ITEMS,
    as_json,
    page,
    shows,
    shows_page,
)
from infra.database import Connection, Pool, connected
from infra.dead_letters import ledger, replays, store
from infra.dead_letters.store import LetterNotFound, LetterNotOpen
from infra.sealing import Sealer
from projections.questions import CursorNotValid, cursor_parts

LetterStatus = Literal["open", "replaying", "replayed", "discarded", "any"]
TEXT: Final = r"^[^\x00]*$"
"""What the ledger can keep."""
NO_LETTER: Final = Kind(404, "There is no such dead letter")
NOT_OPEN: Final = Kind(409, "The dead letter is not open")
IN_DOUBT: Final = Kind(409, "Nobody knows whether the unit has done it")


class ReplayRequest(Model):
    """Which letters are to run again; what stands before and behind them in their streams comes along."""

    letter_ids: list[UUID] = Field(min_length=1, max_length=1000, examples=[["01996a40-2b6d-5e11-a0c9-1d77f2b94e60"]])
    reason: str = Field(min_length=3, max_length=500, pattern=TEXT, examples=["the handler was repaired in 0.1.1"])
    dry_run: bool = Field(False, description="Only show what would run.", examples=[False])
    confirm: bool = Field(
        False,
        description="Run unit commands again although they may have been done already (`inDoubt` of a dry run).",
        examples=[False],
    )


class Because(Model):
    """Why something is done to a letter; the ledger keeps it."""

    reason: str = Field(min_length=3, max_length=500, pattern=TEXT, examples=["sent by a test system"])


class Desk:
    """Opens the desk's records to operators."""

    def __init__(self, callers: Callers, pool: Pool, sealer: Sealer | None) -> None:
        self.callers = callers
        self.sealer = sealer
        """None where this gateway was not given the master key: payloads cannot be shown."""
        self._pool = pool

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Connection]:
        """A connection, with the desk's own errors turned into answers."""
        try:
            async with connected(self._pool) as connection:
                yield connection
        except LetterNotFound:
            raise Problem("dead_letter_not_found", "It may never have existed.", kind=NO_LETTER) from None
        except LetterNotOpen:
            detail = "It is being replayed, has been replayed or was discarded."
            raise Problem("dead_letter_not_open", detail, kind=NOT_OPEN) from None
        except replays.NotConfirmed:
            detail = "A dry run says of which (`inDoubt`); with `confirm` they may be done a second time."
            raise Problem("outcome_unknown", detail, kind=IN_DOUBT) from None

    async def operator(self, request: Request) -> Actor:
        """The caller, who must be an operator."""
        actor = self.callers.actor(passage(request))
        allow(actor, OPERATORS)
        return actor


def router(desk: Desk) -> APIRouter:
    """Routes of the desk."""
    routes = APIRouter(route_class=Reading, tags=["operations"], prefix="/ops")
    operator = Depends(desk.operator)

    @routes.get("/dead-letters", responses=shows_page(LETTER))
    async def dead_letters(
        actor: Actor = operator,
        status: LetterStatus = "open",
        reason: list[Reason] | None = Query(None, description="Only letters of this reason; may be given again."),
        unit: str | None = Query(None, max_length=40, description="Only letters of this unit."),
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
    ) -> Response:
        """Dead letters, the oldest first, without their payloads."""
        wanted = None if status == "any" else status
        async with desk.open() as connection:
            found = await store.list_letters(
                connection, status=wanted, reasons=reason, unit_id=unit, cursor=_id(cursor), limit=limit + 1
            )
        return page(found, limit, "letter_id")

    @routes.get("/dead-letters/{letter_id}", responses=shows(LETTER))
    async def dead_letter(letter_id: UUID, actor: Actor = operator) -> Response:
        """One dead letter, without its payload."""
        async with desk.open() as connection:
            return json_answer(as_json(await store.get_letter(connection, letter_id)))

    @routes.post("/dead-letters/{letter_id}/reveal", responses=shows(REVEALED))
    async def reveal(letter_id: UUID, why: Because, actor: Actor = operator) -> Response:
        """One dead letter with its payload (null when its key is gone); who looked, and why, stands in the ledger."""
        async with desk.open() as connection:
            letter = as_json(await store.get_letter(connection, letter_id))
            letter["payload"] = await _payload(desk, connection, letter_id, actor, why.reason)
        return json_answer(letter)

    @routes.post("/dead-letters/{letter_id}/discard", responses=shows(LETTER))
    async def discard(letter_id: UUID, why: Because, actor: Actor = operator) -> Response:
        """Give a dead letter up, for good; its stream goes on when nothing else holds it."""
        async with desk.open() as connection:
            letter = await store.discard(connection, letter_id=letter_id, actor=actor.subject, reason=why.reason)
        return json_answer(as_json(letter))

    @routes.post("/replays", status_code=201, responses={**shows(REPLAY, 201), **shows(REPLAY, 200)})
    async def replay(wanted: ReplayRequest, actor: Actor = operator) -> Response:
        """Freeze a selection and have it run in order; `dryRun` shows it and changes nothing (200)."""
        async with desk.open() as connection:
            planned = await replays.request_replay(
                connection,
                letter_ids=wanted.letter_ids,
                actor=actor.subject,
                reason=wanted.reason,
                dry_run=wanted.dry_run,
                confirmed=wanted.confirm,
            )
        if planned.run_id is None:
            return json_answer(as_json(planned))
        return json_answer(as_json(planned), 201, {"Location": f"/ops/replays/{planned.run_id}"})

    @routes.get("/replays", responses=shows_page(RUN))
    async def list_replays(actor: Actor = operator, cursor: str | None = CURSOR, limit: int = LIMIT) -> Response:
        """Replays, the newest first."""
        async with desk.open() as connection:
            found = await replays.list_replays(connection, before=_id(cursor), limit=limit + 1)
        return page(found, limit, "run_id")

    @routes.get("/replays/{run_id}", responses=shows(RUN_WITH_ITEMS))
    async def show_replay(run_id: UUID, actor: Actor = operator) -> Response:
        """A replay and what became of each letter."""
        async with desk.open() as connection:
            try:
                run, items = await replays.show_replay(connection, run_id)
            except LookupError:
                raise Problem("not_found", "There is no such replay.") from None
        return json_answer({**as_json(run), "items": [as_json(item) for item in items]})

    @routes.get("/ledger", responses=shows(LEDGER))
    async def read_ledger(
        actor: Actor = operator,
        cursor: str | None = CURSOR,
        limit: int = LIMIT,
        verify: bool = Query(False, description="Recompute the whole chain; `firstBreak` is null when it is whole."),
    ) -> Response:
        """Every act on a dead letter, the oldest first; each entry carries the hash of the one before it."""
        async with desk.open() as connection:
            found = await ledger.entries(connection, after=_number(cursor), limit=limit + 1)
            broken = {"firstBreak": await ledger.first_break(connection)} if verify else {}
        return page(found, limit, "entry", **broken)

    return routes


async def _payload(desk: Desk, connection: Connection, letter_id: UUID, actor: Actor, reason: str) -> Json | None:
    if desk.sealer is None:
        raise Problem("not_allowed", "This gateway has no master key (CARESPINE_MASTER_KEY) to open payloads with.")
    shown = await store.reveal(connection, desk.sealer, letter_id, actor=actor.subject, reason=reason)
    return None if shown is None else shown.get("payload")


_UUID: Final = TypeAdapter(UUID)


def _id(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        return _UUID.validate_python(cursor_parts(cursor, 1)[0])
    except ValidationError:
        raise CursorNotValid("not a cursor of this list") from None


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    (text,) = cursor_parts(cursor, 1)
    if not text.isdecimal() or len(text) > 18:
        raise CursorNotValid("not a cursor of this list")
    return int(text)
