"""The API's description: what FastAPI knows of the questions, the command rows, and what is true of every operation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from contracts.model import Model
from gateway.command_routes import UNIT, CommandRoute, body_of
from gateway.examples import ANSWERS, BODIES, COMMAND_ID
from gateway.problems import MEDIA_TYPE

Json = dict[str, Any]  # Any: JSON
SCHEMAS: Final = "#/components/schemas/{model}"

DESCRIPTION: Final = """
Commands and questions of a health network.

**Commands** answer with their outcome when it comes within `Prefer: wait=N` seconds (5 unless said otherwise), else
with 202 and a `Location` to ask; `Prefer: respond-async` does not wait. `Idempotency-Key` makes a repeat harmless: it
gets the first answer again. `Carespine-Position` of an answer, sent with a question, makes that question wait until it
can see what was written.

`x-offline` says of each command whether a unit's agent takes it while its link is down: `never`, `later` (kept until
the link is back) or `local` (kept likewise, and shown at the unit at once).

**Errors** are problem+json with a stable `code`. **Lists** page by an opaque cursor.
"""


class FieldProblem(Model):
    """What is wrong with one field."""

    field: str = Field(examples=["dateOfBirth"])
    problem: str = Field(examples=["must be a date, YYYY-MM-DD"])


class ProblemDocument(Model):
    """RFC 9457 problem+json. `code` is stable; the texts are for people."""

    type: str = Field(examples=["urn:carespine:problem:queue_empty"])
    title: str
    status: int
    code: str
    detail: str
    instance: str
    trace_id: str
    errors: list[FieldProblem] | None = None
    about: dict[str, str] | None = None
    command_id: str | None = None
    dead_letter_id: str | None = None
    reason: str | None = Field(
        None, description="With `dead_lettered`: `poison`, or `parked` behind another letter of its stream."
    )
    server_time: str | None = Field(None, description="With refused assertions: our clock.")
    limit: int | None = Field(None, description="With `body_too_large`: how many bytes are taken.")
    unit_code: str | None = Field(None, description="With `unit_call_failed`: why, in the unit's words.")


class Pending(Model):
    """The command is safe; how it ends is not known yet."""

    command_id: str = Field(examples=[COMMAND_ID])
    status: str = Field(examples=["pending"])


_PROBLEMS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("The request does not have the expected shape.", "validation_failed"),
    401: ("No bearer token, or one that is not valid.", "token_invalid"),
    403: ("The role, or the unit of the token, does not allow it.", "not_allowed"),
    404: ("What the path names does not exist, or is another unit's.", "not_found"),
    409: ("The present state does not allow it.", "conflict"),
    412: ("It has changed since `If-Match` was read.", "version_conflict"),
    413: ("The body is too large.", "body_too_large"),
    415: ("The body is not application/json.", "unsupported_media_type"),
    422: ("The content is not acceptable, or the Idempotency-Key was used for another request.", "content_invalid"),
    429: ("Too many were refused; wait as long as `Retry-After` says.", "too_many_attempts"),
    500: ("The command cannot be handled and is kept for an operator.", "dead_lettered"),
    502: ("The unit could not answer.", "unit_call_failed"),
    503: ("Something of ours is away; repeat in a moment.", "broker_unavailable"),
    504: ("The unit did not answer in time.", "unit_call_timeout"),
}
_ALSO: Final[Mapping[tuple[str, str], Sequence[int]]] = {
    ("post", "/ops/dead-letters/{letter_id}/discard"): [409],
    ("post", "/ops/replays"): [404, 409],
    ("post", "/api/units/{unit_id}/enrol"): [409, 422, 429],
    ("post", "/api/units/{unit_id}/keys"): [409, 422, 429],
    ("post", "/api/units/{unit_id}/token"): [429],
    ("post", "/api/auth/register"): [404, 409, 422, 429, 500],
    ("post", "/api/auth/login"): [429],
    ("post", "/api/auth/refresh"): [429],
    ("post", "/api/auth/logout"): [404],
    ("get", "/api/auth/profile"): [404],
}
"""Problems that only these operations have."""

_HEADERS: Final[Json] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "1 to 200 visible characters; a repeat with the same key gets the first answer again.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N` (seconds, at most 30) or `respond-async`.",
        "schema": {"type": "string"},
        "example": "wait=5",
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "The version (`ETag`) it must still have.",
        "schema": {"type": "string"},
    },
    "X-Unit-Id": {
        "name": "X-Unit-Id",
        "in": "header",
        "description": "The unit, for callers that work for the whole network.",
        "schema": {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"},
    },
    "Carespine-Position": {
        "name": "Carespine-Position",
        "in": "header",
        "description": "As a command's answer gave it: the question waits until that is visible.",
        "schema": {"type": "string", "pattern": r"^\d{1,2}:\d{1,18}$"},
    },
}
_ANSWER_HEADERS: Final[Json] = {
    "Carespine-Command": {"description": "The command's id.", "schema": {"type": "string", "format": "uuid"}},
    "Carespine-Outcome": {
        "description": "`accepted`; `unchanged`: it was so already, or this is the first answer again.",
        "schema": {"type": "string", "enum": ["accepted", "unchanged"]},
    },
    "Carespine-Position": {
        "description": "Where the last of what was written stands; send it with a question to see it.",
        "schema": {"type": "string"},
    },
    "Preference-Applied": {"description": "The preference that was followed.", "schema": {"type": "string"}},
}
_LOCATION: Final[Json] = {"Location": {"description": "Where to look.", "schema": {"type": "string"}}}


def describe(app: FastAPI, rows: Sequence[CommandRoute], others: Mapping[str, Json], version: str) -> Json:
    """The whole document. `others`: operations described by hand, by `METHOD /path`."""
    document = get_openapi(
        title="Carespine", version=version, openapi_version="3.1.0", description=DESCRIPTION, routes=app.routes
    )
    paths: Json = document.setdefault("paths", {})
    schemas: Json = document.setdefault("components", {}).setdefault("schemas", {})
    bodies = [(row, body_of(row)) for row in rows]
    models: list[type[Model]] = [*(body for _, body in bodies), ProblemDocument, Pending]
    _, defined = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMAS)
    schemas.update(defined["$defs"])
    for row, body in bodies:
        paths.setdefault(row.path, {})[row.method.lower()] = _command(row, body)
    for name, operation in others.items():
        method, path = name.split(" ")
        paths.setdefault(path, {})[method.lower()] = deepcopy(operation)
    for path, operations in paths.items():
        for method, operation in operations.items():
            _illustrate(f"{method.upper()} {path}", operation)
            _complete(path, method, operation, is_command=operation.pop("x-command", False))
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["paths"] = {_camel_path(path): operations for path, operations in sorted(paths.items())}
    document["components"]["parameters"] = _HEADERS
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "EdDSA (Ed25519)."}
    }
    document["security"] = [{"bearer": []}]
    return document


def command_answers(result: Json, *, created: bool) -> Json:
    """The answers of a command: its result, or 202."""
    done = "201" if created else "200"
    content = {"application/json": {"schema": {"type": "object"}, "example": result}}
    already = {"description": "It is so already.", "headers": _ANSWER_HEADERS, "content": content}
    return {
        **({"200": already} if created else {}),
        done: {
            "description": "Done.",
            "headers": {**_ANSWER_HEADERS, **(_LOCATION if created else {})},
            "content": content,
        },
        "202": {
            "description": "Taken; the outcome is not known yet.",
            "headers": {**_ANSWER_HEADERS, **_LOCATION},
            "content": {
                "application/json": {
                    "schema": {"$ref": SCHEMAS.format(model="Pending")},
                    "example": {"commandId": COMMAND_ID, "status": "pending"},
                }
            },
        },
    }


def json_body(schema: Json, example: Json, *, required: bool = True) -> Json:
    """A request body."""
    return {"required": required, "content": {"application/json": {"schema": schema, "example": example}}}


def path_parameters(names: Iterable[str]) -> list[Json]:
    """Parameters of a path, by the names the code gives them."""
    return [{"name": name, "in": "path", "required": True, "schema": _parameter(name)} for name in names]


def _command(row: CommandRoute, body: type[Model]) -> Json:
    summary, _, more = (" ".join(part.split()) for part in (row.command.__doc__ or "").partition("\n\n"))
    is_required = any(info.is_required() for info in body.model_fields.values()) or row.into is not None
    roles = ", ".join(sorted(role.value for role in row.command.may))
    return {
        "x-command": True,
        "tags": [row.path.split("/")[2].replace("check-in", "encounters")],
        "summary": summary,
        "description": f"Command `{row.command.type_name()}`. Roles: {roles}. {more}".rstrip(),
        "x-offline": row.command.offline.value,
        "operationId": to_camel(_snake(row.command.__name__)),
        "parameters": path_parameters(row.parameters),
        "requestBody": json_body({"$ref": SCHEMAS.format(model=body.__name__)}, row.example, required=is_required),
        "responses": command_answers(row.result, created=row.created is not None),
    }


def _illustrate(name: str, operation: Json) -> None:
    """Add the examples of what FastAPI describes, and a summary that is a sentence."""
    if name in BODIES:
        operation["requestBody"]["content"]["application/json"]["example"] = BODIES[name]
    if name in ANSWERS:
        for done in (answer for status, answer in operation["responses"].items() if status.startswith("2")):
            done["description"] = "The answer."
            done["content"]["application/json"]["example"] = ANSWERS[name]
        operation["summary"] = operation["description"].partition(";")[0].partition(". ")[0].rstrip(".") + "."


def _complete(path: str, method: str, operation: Json, *, is_command: bool) -> None:
    """Add what is true of every operation: headers, problems, the names of path parameters in camelCase."""
    parameters: list[Json] = operation.setdefault("parameters", [])
    for parameter in parameters:
        if parameter.get("in") == "path":
            parameter["name"] = to_camel(parameter["name"])
    headers = ["Idempotency-Key", "Prefer", "If-Match"] if is_command else ["Carespine-Position"]
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        headers = []  # it begins where it is told to
    if path.startswith("/api/auth/") and not is_command:
        headers = []  # it reads no unit's rows
    elif path.startswith("/api/") and "{unit_id}" not in path:
        headers.append("X-Unit-Id")
    if path.startswith("/api/"):
        parameters.extend({"$ref": f"#/components/parameters/{name}"} for name in headers)
    responses: Json = operation["responses"]
    for own in [name for name in responses if name.startswith(("4", "5"))]:
        del responses[own]  # FastAPI's 422
    if path.startswith("/health") or path == "/metrics":
        operation["security"] = []
        return
    wanted = [400, 401, 403, 503]
    if "{" in path:
        wanted.append(404)
    if method != "get":
        wanted += [413, 415]
    if is_command:
        wanted += [404, 409, 412, 422, 500]
    if "/calls/" in path:
        wanted += [502, 504]
    for status in sorted({*wanted, *_ALSO.get((method, path), ())}):
        responses[str(status)] = _problem(status)


def _problem(status: int) -> Json:
    description, code = _PROBLEMS[status]
    example: Json = {
        "type": f"urn:carespine:problem:{code}",
        "title": description.rstrip("."),
        "status": status,
        "code": code,
        "detail": "What to do about it.",
        "instance": "/api/…",
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    if code == "validation_failed":
        example["errors"] = [{"field": "dateOfBirth", "problem": "must be a date, YYYY-MM-DD"}]
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS.format(model="ProblemDocument")}, "example": example}},
    }


def _parameter(name: str) -> Json:
    if name == UNIT:
        return {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"}
    if name.endswith("_id"):
        return {"type": "string", "format": "uuid"}
    return {"type": "string"}


def _camel_path(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda match: "{" + to_camel(match[1]) + "}", path)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
