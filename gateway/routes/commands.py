"""What became of a command, and any command by its name.

A receipt is the answer. Without one, an id that some gateway or agent issued is pending; any other id never existed.
"""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts import ids
from contracts.catalogue import UnknownWord, command_named
from contracts.envelope import Json, Origin, Outcome, Status
from contracts.model import Instant, Model
from contracts.unit_command import QueueUnitCommand
from gateway.answers import POSITION, answer, json_answer
from gateway.asking import Asking, Questions, Reading
from gateway.bodies import parsed
from gateway.callers import NETWORK, Callers, allow, one_unit
from gateway.intake import Intake, request_hash
from gateway.openapi import Pending
from gateway.passage import passage, wishes
from gateway.problems import Problem, invalid
from infra.database import Connection
from projections import receipts, unit_commands

PATH: Final = "/api/commands"

_ACKNOWLEDGED: Final = "SELECT acked_position FROM unit_sessions WHERE unit_id = %s"


class Delivery(Model):
    """How far a command to a unit has come, and by whose word."""

    status: Literal["logged", "received", "applied", "rejected", "expired", "cancelled"]
    """logged: it is in the event store; received: it is on the agent's disk; the rest are final."""
    queued_position: int
    acknowledged_position: int
    """Of the unit's feed: received once it is at or beyond `queuedPosition`."""
    received: bool
    deadline: Instant
    settled_at: Instant | None = None
    code: str | None = None
    """Why the unit rejected it."""
    late_report: str | None = None
    """What the unit told after the command had expired or been called off."""


class CommandStatus(Outcome):
    """An outcome, when it was decided, and for a command to a unit how far that has come."""

    issued_at: Instant | None = None
    recorded_at: Instant | None = None
    delivery: Delivery | None = None


class AnyCommand(Model):
    """Any command that the caller's role may give, by its name; for imports and programs that make their own ids."""

    type: str = Field(max_length=100)
    unit_id: ids.UnitId | None = None
    payload: Json
    origin: Literal[Origin.GATEWAY, Origin.IMPORT] = Origin.GATEWAY


def router(questions: Questions) -> APIRouter:
    """The route of a command's status."""
    routes = APIRouter(route_class=Reading, tags=["commands"])
    anybody = Depends(questions.by(NETWORK))

    @routes.get(f"{PATH}/{{command_id}}", responses={200: {"model": CommandStatus | Pending}})
    async def command_status(command_id: UUID, asking: Asking = anybody) -> Response:
        """How a command ended: `pending` until it has; a command to a unit also tells its delivery."""
        async with asking.connection() as connection:
            receipt = await receipts.by_id(connection, command_id)
            if receipt is None:
                if not ids.is_command_id(command_id):
                    raise Problem("not_found", "No command ever had this id.")
                return json_answer({"commandId": str(command_id), "status": Status.PENDING})
            delivery = None
            if receipt.type == QueueUnitCommand.type_name() and receipt.status is Status.ACCEPTED:
                delivery = await _delivery(connection, command_id, receipt.unit_id)
        status = CommandStatus(
            **dict(receipt.outcome), issued_at=receipt.issued_at, recorded_at=receipt.recorded_at, delivery=delivery
        )
        headers = {} if status.position is None else {POSITION: f"{status.partition}:{status.position}"}
        return json_answer(status.to_dict(), headers=headers)

    return routes


async def _delivery(connection: Connection, unit_command_id: UUID, unit_id: str) -> Delivery | None:
    found = await unit_commands.by_id(connection, unit_command_id)
    if found is None:
        return None  # accepted a moment ago, not projected yet
    cursor = await connection.execute(_ACKNOWLEDGED, (unit_id,))
    (acknowledged,) = await cursor.fetchone() or (0,)
    received = acknowledged >= found.queued_position
    waiting = "received" if received else "logged"
    return Delivery.model_validate(
        {
            "status": waiting if found.status == "queued" else found.status,
            "queued_position": found.queued_position,
            "acknowledged_position": acknowledged,
            "received": received,
            "deadline": found.deadline,
            "settled_at": found.settled_at,
            "code": found.code,
            "late_report": found.late_report,
        }
    )


def any_command(callers: Callers, intake: Intake) -> Route:
    """`POST /api/commands`: the payload is the command's own, ids included."""

    async def take(request: Request) -> Response:
        asked = passage(request)
        asked.route = PATH
        actor = callers.actor(asked)
        wished = wishes(asked)
        body = parsed(AnyCommand, await request.body())
        try:
            word = command_named(body.type)
        except UnknownWord:
            raise Problem("command_unknown", "See the API's documentation for the commands there are.") from None
        allow(actor, word.may)
        order = intake.open(actor, one_unit(actor, asked.text(b"x-unit-id"), body.unit_id), wished, asked)
        # A name of a field in Python is not a name in JSON; the model would take either.
        if strange := [name for name in body.payload if name in word.model_fields and to_camel(name) != name]:
            raise invalid([{"type": "extra_forbidden", "loc": (name,), "msg": ""} for name in strange], "payload")
        try:
            command = word.model_validate(body.payload)
        except ValidationError as why:
            raise invalid(why.errors(include_url=False, include_input=False), "payload") from None
        canonical = body.model_copy(update={"payload": command.to_dict()}).to_json()
        outcome = await intake.submit(order, command, request_hash("POST", PATH, canonical), body.origin)
        return answer(outcome, order, created=None, found_by=frozenset())

    return Route(PATH, take, methods=["POST"], name=f"POST {PATH}")
