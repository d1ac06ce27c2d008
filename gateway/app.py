"""The application: every route, every way of saying no, one document that describes them. Wiring only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.envelope import Json
from gateway import calls, commands, staff_words, unit_proofs
from gateway.answers import json_answer
from gateway.asking import Questions
from gateway.callers import Callers
from gateway.calls import Calls
from gateway.command_routes import Take, route_of, take
from gateway.edge import Edge
from gateway.intake import Intake
from gateway.measures import Measures
from gateway.openapi import command_answers, describe, json_body, path_parameters
from gateway.passage import passage
from gateway.problems import KINDS, Kind, Problem, bug, invalid, trouble
from gateway.routes import commands as command_status
from gateway.routes import (
    dead_letters,
    encounters,
    operations,
    patients,
    queues,
    staff,
    streams,
    tasks,
    unit_credentials,
    units,
)
from gateway.routes.auth import Auth
from gateway.routes.dead_letters import Desk
from gateway.streams import Streams
from infra.broker.errors import BrokerUnavailable
from infra.database import DatabaseUnavailable
from projections.questions import CursorNotValid


@dataclass(frozen=True)
class Parts:
    """What the application is made of."""

    callers: Callers
    intake: Intake
    calls: Calls
    questions: Questions
    desk: Desk
    access: unit_credentials.Access
    measures: Measures
    body_limit: int
    version: str
    health: Sequence[Route]
    streams: Streams
    auth: Auth


def application(parts: Parts) -> ASGIApp:
    """The gateway as an ASGI application."""
    app = FastAPI(
        # Of its own accord it would put query strings and messages of validation failures into spans and logs.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: to_camel(route.name),
    )
    found: list[BaseRoute] = app.router.routes
    found += [route_of(row, parts.callers, parts.intake) for row in commands.ROWS]
    found += [command_status.any_command(parts.callers, parts.intake), calls.route(parts.callers, parts.calls)]
    found += unit_credentials.UnitAccounts(parts.access).routes()
    for place in (patients, encounters, queues, tasks, staff, units, unit_credentials, command_status, operations):
        app.include_router(place.router(parts.questions))
    app.include_router(dead_letters.router(parts.desk))
    app.include_router(streams.router(parts.callers, parts.streams))
    found += parts.auth.routes()
    found += parts.health
    document = describe(app, commands.ROWS, _BY_HAND, parts.version)

    async def openapi(request: Request) -> Response:
        passage(request).route = "/openapi.json"
        return json_answer(document)

    found.append(Route("/openapi.json", openapi))
    for kind, handler in (
        (Problem, _problem),
        (BrokerUnavailable, _trouble),
        (DatabaseUnavailable, _trouble),
        (CursorNotValid, _cursor),
        (RequestValidationError, _invalid),
        (HTTPException, Lost(document)),
        (ClientDisconnect, _gone),
        (Exception, _bug),
    ):
        app.add_exception_handler(kind, handler)
    hot = {(row.method, row.path): take(row, parts.callers, parts.intake) for row in commands.HOT}
    return Edge(Shortcut(app, hot), body_limit=parts.body_limit, served=parts.measures.served)


class Shortcut:
    """Takes what is asked for most straight to its route, past the framework's layers (a third of a command's cost)."""

    def __init__(self, app: ASGIApp, hot: Mapping[tuple[str, str], Take]) -> None:
        self._app = app
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        take = self._hot.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if take is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await take(request)
        except Problem as problem:
            response = _answer(request, problem)
        except (BrokerUnavailable, DatabaseUnavailable) as error:
            response = _answer(request, trouble(error))
        except ClientDisconnect:
            return
        await response(scope, receive, send)


def _answer(request: Request, problem: Problem) -> Response:
    return problem.response(instance=request.scope["path"], trace_id=passage(request).trace_id)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - narrows the type; registered for nothing else
    return _answer(request, error)


async def _trouble(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerUnavailable | DatabaseUnavailable)  # noqa: S101 - as above
    return _answer(request, trouble(error))


async def _cursor(request: Request, error: Exception) -> Response:
    return _answer(request, Problem("cursor_invalid", "Start again from the first page."))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = [
        {
            **one,
            "loc": [to_camel(part) if one["loc"][0] == "path" and "_" in str(part) else part for part in one["loc"]],
        }
        for one in error.errors()
    ]
    return _answer(request, invalid(errors))


class Lost:
    """What the router says no to: no such path, or not with this method."""

    def __init__(self, document: Json) -> None:
        self._paths = [(compile_path(path)[0], list(operations)) for path, operations in document["paths"].items()]

    async def __call__(self, request: Request, error: Exception) -> Response:
        """The answer; a path that exists is told with which methods, those of all its routes together."""
        assert isinstance(error, HTTPException)  # noqa: S101 - narrows the type; registered for nothing else
        match error.status_code:
            case 404:
                return _answer(request, Problem("not_found", "No such path; /openapi.json lists them."))
            case 405:
                path = request.scope["path"]
                methods = {method.upper() for known, own in self._paths if known.fullmatch(path) for method in own}
                allowed = ", ".join(sorted(methods or {"GET"}))
                detail = f"This path takes {allowed}."
                return _answer(request, Problem("method_not_allowed", detail, headers={"Allow": allowed}))
            case status:
                kind = Kind(status, KINDS["bad_request"].title)
                return _answer(request, Problem("bad_request", "The request cannot be read.", kind=kind))


async def _bug(request: Request, error: Exception) -> Response:
    return _answer(request, bug())  # the edge notes it


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


_BY_HAND: Final[Mapping[str, Json]] = {
    **unit_proofs.OPERATIONS,
    **staff_words.OPERATIONS,
    "POST /api/commands": {
        "x-command": True,
        "tags": ["commands"],
        "summary": "Any command that the caller's role may give, by its name.",
        "description": "For imports and programs that make their own ids: `payload` is the whole command, with ids.",
        "operationId": "anyCommand",
        "requestBody": json_body(
            {
                "type": "object",
                "required": ["type", "payload"],
                "properties": {
                    "type": {"type": "string"},
                    "unitId": {"type": "string"},
                    "payload": {"type": "object"},
                    "origin": {"type": "string", "enum": ["gateway", "import"]},
                },
                "additionalProperties": False,
            },
            {"type": "queue.CallNext", "unitId": "clinic-001", "payload": {"department": "general-medicine"}},
        ),
        "responses": command_answers(dict(commands.QUEUES[0].result), created=False),
    },
    f"POST {calls.PATH}": {
        "tags": ["units"],
        "summary": "Ask a connected unit something, now.",
        "description": "Nothing is kept. `Prefer: wait=N` is the deadline. What it takes and answers is the unit's.",
        "operationId": "callUnit",
        "parameters": [
            *path_parameters(["unit_id", "name"]),
            {"$ref": "#/components/parameters/Prefer"},
        ],
        "requestBody": json_body({"type": "object"}, {"department": "general-medicine"}, required=False),
        "responses": {
            "200": {
                "description": "The unit's answer.",
                "content": {"application/json": {"schema": {"type": "object"}, "example": {"waiting": 4}}},
            }
        },
    },
}
