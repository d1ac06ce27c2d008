"""What became of a command, and any command by its name.

A receipt is the answer. Without one, an id that some gateway or agent issued is pending; any other id never existed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field, ValidationError
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
_RECEIVED: Final = """
SELECT attempt, epoch, received_at FROM unit_command_deliveries WHERE unit_id = %s AND unit_command_id = %s
"""

State = Literal["logged", "received", "applied", "rejected", "expired", "cancelled", "superseded"]


class Witness(Model):
    """One step of a command to a unit, when it was, and who says so."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: State
    by: Literal["event store", "agent disk", "unit", "deadline", "caller", "newer command"]
    """event store: the log has it, for the unit to get; agent disk: the unit's agent has acknowledged that it is on
    its disk; unit: the unit has reported it; deadline: nobody had until then.
    """
    attempt: int
    at: Instant | None = None
    """Absent where it is only known that it was, from how far the unit has acknowledged its feed."""
    position: int | None = None
    """Of the log, in the unit's partition; absent for `received`, which is no fact of the log."""
    epoch: int | None = None
    """With `received`: of the session in which the unit acknowledged it."""
    late: Literal[True] | None = None
    """The unit reported it after the command had ended otherwise; that end stands."""
    code: str | None = None
    """With `rejected`: why."""


class Delivery(Model):
    """How far a command to a unit has come, and by whose word."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: State
    """logged: it is in the event store; received: it is on the agent's disk; the rest are final."""
    attempt: int
    """2 and more once it was tried again."""
    witnesses: list[Witness]
    """Every step so far, attempt after attempt."""
    queued_position: int
    acknowledged_position: int
    """Of the unit's feed: received once it is at or beyond where the attempt was logged."""
    received: bool
    deadline: Instant
    settled_at: Instant | None = None
    code: str | None = None
    """Why the unit rejected it."""
    late_report: str | None = None
    """What the unit told after the command had expired, been called off or superseded."""
    superseded_by: UUID | None = None
    """The newer command with the same key that took its place."""


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
    cursor = await connection.execute(_RECEIVED, (unit_id, unit_command_id))
    on_disk = {
        attempt: Witness(state="received", by="agent disk", attempt=attempt, at=at, epoch=epoch)
        for attempt, epoch, at in await cursor.fetchall()
    }
    witnesses = _witnesses([Witness.model_validate(one) for one in found.history], on_disk, acknowledged)
    received = any(one.state == "received" and one.attempt == found.attempt for one in witnesses)
    waiting = "received" if received else "logged"
    return Delivery.model_validate(
        {
            **{name: getattr(found, name) for name in Delivery.model_fields.keys() & type(found).model_fields.keys()},
            "status": waiting if found.status == "queued" else found.status,
            "witnesses": witnesses,
            "acknowledged_position": acknowledged,
            "received": received,
        }
    )


def _witnesses(logged: list[Witness], on_disk: Mapping[int, Witness], acknowledged: int) -> list[Witness]:
    """What the log and the link say, in one order: the log's, with each receipt where its time puts it."""
    told: list[Witness] = []
    for attempt in sorted({one.attempt for one in logged}):
        steps = [one for one in logged if one.attempt == attempt]
        receipt = on_disk.get(attempt)
        if receipt is None and acknowledged >= (steps[0].position or 0):
            receipt = Witness(state="received", by="agent disk", attempt=attempt)
        if receipt is not None:
            at = receipt.at
            before = sum(1 for one in steps[1:] if at is not None and one.at is not None and one.at < at)
            steps.insert(1 + before, receipt)
        told += steps
    return told


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
