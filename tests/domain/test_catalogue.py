"""Every command finds its aggregate, every aggregate its words, and every word its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from command_handlers.domain.catalogue import AGGREGATES, aggregate_for, aggregate_of_stream
from contracts.catalogue import COMMANDS, EVENTS, contexts
from contracts.model import Command, Refusal
from contracts.queue import CallNext
from tests.domain.examples import clinic
from tests.kit.deciding import UNIT_ID, given

ELSEWHERE = {"CommandIdReused", "VersionConflict", "NotOfThisUnit"}
"""Refusals that no rule of an aggregate raises (`contracts.refusals`)."""


def test_there_is_one_aggregate_for_each_context() -> None:
    assert set(AGGREGATES) == contexts() == {event.context for event in EVENTS.values()}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_finds_its_aggregate_by_its_context(command: type[Command]) -> None:
    aggregate = aggregate_for(command)
    assert aggregate.context == command.context
    assert aggregate is aggregate_for(command.context)


def test_a_stream_tells_whose_history_it_is() -> None:
    history = given(clinic).history
    command = CallNext(department="general")
    stream = aggregate_for(command).stream(command, history)
    assert stream == f"queue-{UNIT_ID}.general.{history.at.date()}"
    assert aggregate_of_stream(stream) is aggregate_for(command)
    assert aggregate_of_stream("unit_command-1").context == "unit_command"
    assert aggregate_of_stream(f"unit-{UNIT_ID}").context == "unit"


def test_every_word_is_told_of_in_the_domain_tests() -> None:
    told = {
        node.id
        for file in Path(__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name)
    }
    words = {word.__name__ for words in (COMMANDS, EVENTS) for word in words.values()}
    ours = [refusal for refusal in Refusal.__subclasses__() if refusal.__module__.startswith("contracts.")]
    refusals = {refusal.__name__ for refusal in ours} - ELSEWHERE
    assert sorted((words | refusals) - told) == []
