"""One row makes a route: a command, its path, what the gateway fills in. Body, checks, description and answer follow.

All commands go this one way, which is also the fast one: a plain Starlette route whose body is validated by pydantic
straight from the bytes. The rows are in `gateway.commands`; what happens to a command afterwards is `gateway.intake`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationError, create_model
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.envelope import Json
from contracts.ids import UnitId
from contracts.model import Command, Model
from gateway.answers import addressed, answer
from gateway.bodies import parsed
from gateway.callers import Callers, allow, one_unit
from gateway.intake import Intake, Order, request_hash
from gateway.passage import passage, wishes
from gateway.problems import invalid

Fill = Callable[[Order], object]
Take = Callable[[Request], Awaitable[Response]]
UNIT: Final = "unit_id"


class Body(Model):
    """A command's body: camelCase names only, and none that is not known."""

    model_config = ConfigDict(populate_by_name=False)


def new(purpose: str) -> Fill:
    """A field that is the id of what the command brings into being."""
    return lambda order: order.new_id(purpose)


@dataclass(frozen=True, kw_only=True, eq=False)
class CommandRoute:
    """How one command is asked for over HTTP."""

    command: type[Command]
    path: str
    """Parameters are named as the command's fields; `unit_id` is the command's unit."""
    example: Json
    """A body, for the documentation and its test."""
    result: Json
    """A result, for the documentation."""
    method: str = "POST"
    fills: Mapping[str, Fill] = field(default_factory=dict)
    """Fields that are the gateway's to give, not the caller's."""
    defaults: Mapping[str, Fill] = field(default_factory=dict)
    """Fields that a caller may leave out although the command needs them."""
    created: str | None = None
    """URL template of what comes into being (201 and Location); None: nothing does."""
    into: str | None = None
    """The command's one field that is the whole body; None: the body's fields are the command's."""

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def body_of(row: CommandRoute) -> type[Model]:
    """The body's model: the command's fields without those that the path names or the gateway fills in."""
    fields = row.command.model_fields
    if row.into is not None:
        whole = fields[row.into].annotation
        assert isinstance(whole, type)  # noqa: S101 - narrows the type; a row names a field that is a model
        assert issubclass(whole, Model)  # noqa: S101 - as above
        return whole
    parameters = row.parameters
    shape: dict[str, Any] = {}  # Any: what create_model takes
    for name, info in fields.items():
        if name in parameters or name in row.fills:
            continue
        if name in row.defaults:
            optional = info.annotation | None  # type: ignore[operator]  # a type at run time
            shape[name] = (optional, Field(None, description=info.description))
        else:
            shape[name] = (info.annotation, info)
    if UNIT not in parameters:
        shape[UNIT] = (UnitId | None, None)
    return create_model(f"{row.command.__name__}Body", __base__=Body, __doc__=row.command.__doc__, **shape)


def route_of(row: CommandRoute, callers: Callers, intake: Intake) -> Route:
    """The route of a row."""
    return Route(row.path, take(row, callers, intake), methods=[row.method], name=f"{row.method} {row.path}")


def take(row: CommandRoute, callers: Callers, intake: Intake) -> Take:
    """What a row's route does."""
    body_model = body_of(row)
    is_optional = not any(info.is_required() for info in body_model.model_fields.values())
    not_found = addressed(row.parameters)
    named = [name for name in row.parameters if name != UNIT]

    async def taken(request: Request) -> Response:
        asked = passage(request)
        asked.route = row.path
        actor = callers.actor(asked)
        allow(actor, row.command.may)
        wished = wishes(asked)
        raw = await request.body()
        body = parsed(body_model, raw if raw or not is_optional else b"{}")
        path = request.path_params
        in_body = None if UNIT in path or row.into else getattr(body, UNIT)
        unit_id = one_unit(actor, path.get(UNIT), asked.text(b"x-unit-id"), in_body)
        order = intake.open(actor, unit_id, wished, asked)
        fields: dict[str, object] = {row.into: body} if row.into else dict(body.__dict__)
        if not row.into:
            fields.pop(UNIT, None)
        for parameter in named:
            fields[parameter] = path[parameter]
        for filled, fill in row.fills.items():
            fields[filled] = fill(order)
        for filled, fill in row.defaults.items():
            if fields[filled] is None:
                fields[filled] = fill(order)
        try:
            command = row.command.model_validate(fields)
        except ValidationError as why:
            raise invalid(why.errors(include_url=False, include_input=False)) from None
        outcome = await intake.submit(order, command, request_hash(row.method, request.scope["path"], body.to_json()))
        return answer(outcome, order, created=row.created, found_by=not_found)

    return taken
