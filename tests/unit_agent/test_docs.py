"""docs/agent.md names all that there is."""

from __future__ import annotations

from pydantic import BaseModel

from tests.kit.processes import ROOT
from unit_agent.__main__ import COMMANDS
from unit_agent.configuration import Configuration
from unit_agent.hl7v2.options import FACTS, Listen, Send
from unit_agent.hl7v2.visit import _EVENTS
from unit_agent.program import Said

DOCS = (ROOT / "docs" / "agent.md").read_text()


def fields(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_every_field_of_the_configuration_is_named() -> None:
    for name in fields(Configuration) | fields(Listen) | fields(Send):
        assert f"`{name}" in DOCS or f"{name}." in DOCS, name


def test_every_command_event_and_fact_is_named() -> None:
    for name in (*COMMANDS, *FACTS):
        assert f"`{name}`" in DOCS, name
    for event in {*_EVENTS, *FACTS.values()}:
        assert event in DOCS, event


def test_every_exit_code_of_a_program_is_named() -> None:
    for code in Said:
        assert f"| {code.value} |" in DOCS or code is Said.TRY_LATER
