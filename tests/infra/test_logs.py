"""Logs carry event names, ids and numbers; whatever else is handed to them stays out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
import structlog

from infra.telemetry import logs

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Lines]:
    """What has been logged since it was last asked."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure(level="info", process="gateway", instance="gateway-1")
    yield lambda: [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    structlog.reset_defaults()
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_an_event_with_ids(lines: Lines) -> None:
    structlog.get_logger().info("appended", command_id=UUID(int=1), partition=3, position=9, count=2)
    (line,) = lines()
    assert line.pop("timestamp")
    assert line == {
        "event": "appended", "level": "info", "process": "gateway", "instance": "gateway-1",
        "command_id": "00000000-0000-0000-0000-000000000001", "partition": 3, "position": 9, "count": 2,
    }  # fmt: skip


def test_what_is_not_on_the_list_does_not_get_through(lines: Lines) -> None:
    log = structlog.get_logger()
    log.info("registered", patient="Ana Souza", payload={"firstName": "Ana"}, unit_id="north")
    log.bind(name="Ana Souza").warning("Ana Souza was not found", code={"Ana": "Souza"})
    structlog.contextvars.bind_contextvars(note="Ana Souza", trace_id="t")
    log.info("found")
    structlog.contextvars.clear_contextvars()
    first, second, third = lines()
    assert (first["unit_id"], first["dropped"]) == ("north", 2)
    assert second["event"] == "unnamed_event"
    assert third["trace_id"] == "t"
    assert "Ana" not in json.dumps([first, third])
    assert "Ana" not in json.dumps(second)


def test_an_exception_is_its_type_and_where_it_was(lines: Lines) -> None:
    def fails(name: str) -> None:
        raise ValueError(f"{name} is wrong")

    try:
        try:
            fails("Ana Souza")
        except ValueError as error:
            raise RuntimeError("Ana Souza") from error
    except RuntimeError:
        structlog.get_logger().exception("refused")
    (line,) = lines()
    assert line["error_type"] == "RuntimeError"
    assert line["causes"] == ["ValueError"]
    assert any("test_an_exception" in frame for frame in line["frames"])  # type: ignore[attr-defined]
    assert "Ana" not in json.dumps(line)


def test_libraries_log_their_templates_and_never_their_arguments(lines: Lines) -> None:
    logging.getLogger("psycopg.pool").warning("discarding %s", "Ana Souza")
    logging.getLogger("somebody.else").error("Ana Souza %s", "Ana Souza", exc_info=ValueError("Ana Souza"))
    logging.getLogger("asyncio").error("Task exception: ValueError('Ana Souza')")
    first, second, third = lines()
    assert (first["logger"], first["template"]) == ("psycopg.pool", "discarding %s")
    assert (second["logger"], second["template"], second["error_type"]) == ("somebody.else", None, "ValueError")
    assert third["template"] is None
    assert "Ana" not in json.dumps([first, second, third])


def test_a_group_of_exceptions_is_told_one_by_one() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail(ValueError("a")))
            tasks.create_task(fail(KeyError("b")))

    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(both())
    assert {type(leaf) for leaf in logs.leaves(group.value)} == {ValueError, KeyError}
