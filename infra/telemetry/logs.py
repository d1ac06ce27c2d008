"""Logs: an event name plus ids, as JSON lines on stdout (coloured lines on a terminal).

Nothing gets through but the keys listed here, so no patient text can: not from our own lines, not from a library's,
not from an exception, of which only the type and the stack's places are kept, never its message, arguments or local
variables.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

LIBRARY_EVENT: Final = "library"
UNNAMED_EVENT: Final = "unnamed_event"
EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}")
LONGEST_VALUE: Final = 300
DEEPEST_STACK: Final = 12

ALLOWED: Final = frozenset(
    {
        "event", "level", "timestamp", "process", "instance", "version", "mode", "command_id", "causation_id",
        "correlation_id", "letter_id", "run_id", "unit_id", "unit_command_id", "partition", "partitions", "position",
        "after", "through", "stream", "stream_version", "type", "epoch", "session", "trace_id", "code", "status",
        "outcome", "reason", "origin", "check", "stage", "read_model", "queue", "exchange", "connection", "url",
        "port", "pid", "signal", "variables", "count", "total", "accepted", "refused", "seconds", "attempt", "bytes",
        "lag", "pending", "redelivered", "error_type", "causes", "frames", "logger", "template", "dropped",
    }
)  # fmt: skip
"""Every key a log line may have. `url` is for addresses of our own servers: no credentials, no query."""

LIBRARIES: Final = ("aiormq", "alembic", "psycopg", "sqlalchemy", "uvicorn", "websockets")
"""Libraries whose message templates (never the arguments) are constants, known to hold no data."""

EventDict = MutableMapping[str, Any]  # Any: structlog's own definition


def configure(
    *,
    level: str,
    process: str,
    instance: str,
    to: Callable[..., Any] | None = None,  # Any: structlog's own definition
) -> None:
    """Set logging up for the whole process: ours and the libraries'.

    `to` makes what writes lines of bytes (structlog's logger factory); None: standard output.
    """
    terminal = to is None and sys.stdout.isatty()

    def who(logger: object, method: str, event: EventDict) -> EventDict:
        event["process"] = process
        event["instance"] = instance
        return event

    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            who,
            only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=to or (structlog.PrintLoggerFactory() if terminal else structlog.BytesLoggerFactory()),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Libraries()]
    root.setLevel(max(_number(level), logging.WARNING))
    logging.captureWarnings(True)


def only_allowed(logger: object, method: str, event: EventDict) -> EventDict:
    """The last word before rendering: drops every key that is not in ALLOWED and counts what it dropped."""
    error = event.pop("exc_info", None)
    if error:
        event.update(describe(_the_error(error)))
    name = event.get("event")
    if not isinstance(name, str) or not EVENT_NAME.fullmatch(name):
        event["event"] = UNNAMED_EVENT
    foreign = [key for key in event if key not in ALLOWED]
    for key in foreign:
        del event[key]
    if foreign:
        event["dropped"] = len(foreign)
    for key, value in event.items():
        event[key] = _plain(value)
    return event


def describe(error: BaseException | None) -> dict[str, object]:
    """An exception as a log may show it: its type, the types that caused it, the places of its stack."""
    if error is None:
        return {}
    causes = [_type_name(cause) for cause in _causes(error)]
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    described: dict[str, object] = {"error_type": _type_name(error), "frames": frames[-DEEPEST_STACK:]}
    if causes:
        described["causes"] = causes
    return described


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single exceptions in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


class _Libraries(logging.Handler):
    """Brings what libraries log into the same form, without their arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        known = record.name.split(".")[0] in LIBRARIES
        template = record.msg if known and isinstance(record.msg, str) else None
        log = structlog.get_logger()
        log.log(record.levelno, LIBRARY_EVENT, logger=record.name, template=template, **describe(error))


def _the_error(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        kind_error_trace: tuple[object, object, TracebackType | None] = exc_info
        return kind_error_trace[1] if isinstance(kind_error_trace[1], BaseException) else None
    return sys.exc_info()[1]


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    seen = {id(error)}
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:50]]
    if not isinstance(value, str | UUID | Path):
        return f"<{type(value).__name__}>"  # no repr of a thing whose fields nobody has looked at
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _json(event: object, **_: object) -> bytes:
    return orjson.dumps(event)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
