"""How the desk's records look in JSON: camelCase, hashes as hex; and their shapes, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, get_args, get_origin, get_type_hints

from fastapi.responses import Response
from pydantic import Field, create_model
from pydantic.alias_generators import to_camel

from contracts.envelope import Json
from contracts.model import Model
from gateway.answers import json_answer
from gateway.asking import PageOf
from infra.dead_letters import ledger, replays, store
from projections.questions import cursor_of


def as_json(record: Any) -> Json:  # Any: one of the desk's records, a dataclass
    """A record as a JSON object."""
    return {to_camel(field.name): _plain(getattr(record, field.name)) for field in fields(record)}


def page(found: Sequence[Any], limit: int, key: str, **more: object) -> Response:  # Any: one of the desk's records
    """A page of records, of which one more than `limit` was looked for; `key` names the field that cursors hold."""
    items = found[:limit]
    cursor = cursor_of(getattr(items[-1], key)) if len(found) > limit else None
    return json_answer({"items": [as_json(item) for item in items], "nextCursor": cursor, "total": None, **more})


def shows(model: type[Model], status: int = 200) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type
    """The documented answer of a route that shows one record."""
    return {status: {"model": model}}


def shows_page(model: type[Model]) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type
    """The documented answer of a route that shows a page of records."""
    return {200: {"model": PageOf.__class_getitem__(model)}}


def _plain(value: Any) -> Any:  # Any: a field of a record
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


def _shape(record: type[Any], name: str, **more: Any) -> type[Model]:  # Any: one of the desk's records; types
    hints = get_type_hints(record)
    shape: dict[str, Any] = {field.name: (_type(hints[field.name]), ...) for field in fields(record)}
    return create_model(name, __base__=Model, __doc__=record.__doc__, **shape, **more)


def _type(hint: Any) -> Any:  # Any: types
    if hint is bytes:
        return str
    if get_origin(hint) is list and is_dataclass(get_args(hint)[0]):
        return list.__class_getitem__(_shape(get_args(hint)[0], get_args(hint)[0].__name__))
    return hint


LETTER: Final = _shape(store.Letter, "DeadLetter")
REVEALED: Final = _shape(store.Letter, "RevealedDeadLetter", payload=(Json | None, ...))
REPLAY: Final = _shape(replays.Replay, "PlannedReplay")
RUN: Final = _shape(replays.Run, "ReplayRun")
RUN_WITH_ITEMS: Final = _shape(replays.Run, "ReplayRunWithItems", items=(_type(list[replays.RunItem]), ...))
ENTRY: Final = _shape(ledger.Entry, "LedgerEntry")
LEDGER: Final = create_model(
    "LedgerPage",
    __base__=Model,
    __doc__="A page of the ledger.",
    items=(_type(list[ledger.Entry]), ...),
    next_cursor=(str | None, None),
    total=(int | None, None),
    first_break=(int | None, Field(None, description="Only with `verify`: the first entry that breaks the chain.")),
)
