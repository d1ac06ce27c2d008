"""The protocol's document is what the code speaks, and every frame fits its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from contracts import frames
from contracts.catalogue import COMMANDS
from contracts.envelope import Outcome, Status
from contracts.identity import Role
from contracts.model import Model
from tests.ws_bridge.facts import NOON, fact
from ws_bridge.asyncapi import document, main

DOCS = Path(__file__).parents[2] / "docs" / "protocol"
ID = UUID("01996a2e-3c40-7a51-8b1e-5d2f7c9e0a11")

SAID: list[Model] = [
    frames.Hello(unit_id="north", position=0, agent_version="1"),
    frames.Ack(epoch=1, position=5),
    frames.Submit(epoch=1, command_id=ID, command="queue.CallNext", payload={"department": "intake"}, issued_at=NOON),
    frames.Answer(epoch=1, call_id=ID, ok=True, body={"a": 1}),
    frames.Ask(epoch=1, command_ids=[ID]),
    frames.Renew(epoch=1, assertion="a.b.c"),
    frames.Ping(),
    frames.Pong(),
    frames.Welcome(epoch=1, head=7, heartbeat_seconds=20, max_frame_bytes=1, server_time=datetime.now(UTC)),
    frames.Facts(epoch=1, after=0, through=2, facts=[fact(1), fact(2)]),
    frames.Snapshot(
        epoch=1, position=9, part=0, last=True, records=[frames.SnapshotRecord(kind="patient", body={"a": 1})]
    ),
    frames.Check(epoch=1, position=9),
    frames.Renewed(epoch=1, expires_at=NOON, token="a.b.c"),
    frames.Accepted(epoch=1, command_id=ID),
    frames.Refused(epoch=1, command_id=ID, code="not_allowed", detail="No."),
    frames.Retry(epoch=1, command_id=ID, after_seconds=2),
    frames.Outcomes(
        epoch=1,
        outcomes=[Outcome(command_id=ID, type="queue.CallNext", unit_id="north", status=Status.ACCEPTED, partition=1)],
    ),
    frames.Call(epoch=1, call_id=ID, name="ping", deadline=NOON),
    frames.Bye(code=1001, reason="leaving", retry_after_seconds=2),
]


def validator(schema: str) -> jsonschema.protocols.Validator:
    return jsonschema.Draft7Validator({**document(), "$ref": f"#/components/schemas/{schema}"})


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_the_document_in_docs_is_the_one_the_code_writes() -> None:
    assert main([str(DOCS / "unit-link.asyncapi.json"), "--check"]) == 0


def test_the_protocol_page_names_every_command_a_unit_may_give_and_no_other() -> None:
    page = (DOCS / "README.md").read_text()
    told = set(re.findall(r"`([a-z_]+\.[A-Z][A-Za-z]+)`", page)) & COMMANDS.keys()
    assert told == {name for name, word in COMMANDS.items() if Role.UNIT in word.may}


def test_a_document_that_is_out_of_date_is_found_out(tmp_path: Path) -> None:
    stale = tmp_path / "stale.json"
    stale.write_text("{}")
    assert main([str(stale), "--check"]) == 7
    assert main([str(stale)]) == 0
    assert main([str(stale), "--check"]) == 0


@pytest.mark.parametrize("frame", SAID, ids=lambda frame: frame.type)
def test_every_frame_fits_its_schema(frame: Model) -> None:
    validator(type(frame).__name__).validate(json.loads(frame.to_json()))


@pytest.mark.parametrize("frame", SAID, ids=lambda frame: frame.type)
def test_a_frame_of_another_type_or_with_something_unknown_in_it_does_not_fit(frame: Model) -> None:
    said = json.loads(frame.to_json())
    check = validator(type(frame).__name__)
    assert not check.is_valid({**said, "type": "else"})
    assert not check.is_valid({**said, "unheardOf": 1})
    assert not check.is_valid({name: value for name, value in said.items() if name != "type"})


def test_every_frame_stands_in_the_document_and_belongs_to_an_operation() -> None:
    whole = document()
    messages = set(whole["components"]["messages"])
    assert messages == {frame.type for frame in SAID}  # type: ignore[attr-defined]  # frames have a type
    used = {reference.rpartition("/")[2] for reference in references(whole["operations"]) if "messages" in reference}
    assert used == messages


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    for reference in references(whole):
        found: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_every_close_code_is_explained() -> None:
    assert {closing["code"] for closing in document()["x-close-codes"]} == {int(code) for code in frames.CloseCode}
    page = (DOCS / "README.md").read_text(encoding="utf-8")
    for code in frames.CloseCode:
        assert f"| {int(code)} {code.name} |" in page
