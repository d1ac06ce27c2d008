"""The protocol's document is what the code speaks, and every frame fits its schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from contracts import frames
from contracts.catalogue import COMMANDS
from contracts.identity import Role
from contracts.model import Model
from tests.contracts.golden import golden
from tests.kit.asyncapi import leading_nowhere, used_messages
from ws_bridge.asyncapi import document, main
from ws_bridge.frame_examples import EXAMPLES

DOCS = Path(__file__).parents[2] / "docs" / "protocol"
SAID: list[Model] = list(EXAMPLES.values())


def validator(schema: str) -> jsonschema.protocols.Validator:
    return jsonschema.Draft7Validator({**document(), "$ref": f"#/components/schemas/{schema}"})


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
    assert used_messages(whole) == messages


def test_every_message_has_an_example_that_fits() -> None:
    for message in document()["components"]["messages"].values():
        schema = message["payload"]["$ref"].rpartition("/")[2]
        for example in message["examples"]:
            validator(schema).validate(example["payload"])


@pytest.mark.parametrize("frame", SAID, ids=lambda frame: frame.type)
def test_a_frame_with_every_field_filled_fits_its_schema(frame: Model) -> None:
    name = type(frame).__name__
    validator(name).validate({"type": frame.type, **golden(f"frames.{name}", 1)})  # type: ignore[attr-defined]  # frames have a type


def test_every_reference_leads_somewhere() -> None:
    assert leading_nowhere(document()) == set()


def test_every_close_code_is_explained() -> None:
    assert {closing["code"] for closing in document()["x-close-codes"]} == {int(code) for code in frames.CloseCode}
    page = (DOCS / "README.md").read_text(encoding="utf-8")
    for code in frames.CloseCode:
        assert f"| {int(code)} {code.name} |" in page
