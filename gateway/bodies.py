"""Bodies: bytes to a model, or a problem that names fields and never values."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import ValidationError

from contracts.envelope import Json
from contracts.model import Model
from contracts.text import ESCAPED_NUL, holds_nul
from gateway.problems import Problem, invalid, invalid_field

M = TypeVar("M", bound=Model)


def parsed(model: type[M], raw: bytes) -> M:
    """The body as `model`. Raises Problem `malformed_json` or `validation_failed`."""
    refuse_nul(raw)
    try:
        found: M = model.__pydantic_validator__.validate_json(raw)
    except ValidationError as why:
        raise invalid(why.errors(include_url=False, include_input=False)) from None
    return found


def parsed_object(raw: bytes) -> Json:
    """The body as any JSON object; an empty one where there is none. Raises Problem."""
    if not raw:
        return {}
    refuse_nul(raw)
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise malformed() from None
    if not isinstance(content, dict):
        raise invalid_field("(body)", "must be an object")
    return content


def malformed() -> Problem:
    """The body is not JSON."""
    return Problem("malformed_json", "The body must be one JSON object, in UTF-8.")


def refuse_nul(raw: bytes) -> None:
    """Problem where a text holds U+0000, which Postgres cannot keep: better told now than dead-lettered later."""
    if ESCAPED_NUL not in raw:
        return
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise malformed() from None
    if holds_nul(content):
        raise invalid_field("(body)", "must not hold the character U+0000")
