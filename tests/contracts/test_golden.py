"""Every word is read as it was written at any version, and written today as its golden file says."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from contracts.catalogue import COMMANDS, EVENTS, command_from, event_from
from contracts.frames import DOWN, UP, AnyDown, AnyUp
from contracts.model import Model, sealed_fields
from tests.contracts.examples import example, version_of, words
from tests.contracts.golden import FOLDER, golden, golden_file, kept, write_missing


def read(name: str, version: int) -> Model:
    """The golden file as today's code reads it."""
    content = golden(name, version)
    if name in COMMANDS:
        return command_from(name, version, content)
    if name in EVENTS:
        return event_from(name, version, content)
    return words()[name].model_validate(content)


@pytest.mark.parametrize("name", words())
def test_every_word_has_a_golden_file_of_its_version(name: str) -> None:
    assert golden_file(name, version_of(words()[name])).exists(), "run: python -m tests.contracts.golden"


@pytest.mark.parametrize("name", words())
def test_a_golden_file_exists_for_every_version_there_ever_was(name: str) -> None:
    versions = [version for kept_name, version in kept() if kept_name == name]
    assert sorted(versions) == list(range(1, version_of(words()[name]) + 1))


def test_no_golden_file_is_of_a_word_that_is_gone() -> None:
    """What was written stays in logs and queues, so its class has to stay to read it."""
    assert {name for name, _ in kept()} == set(words())


@pytest.mark.parametrize(("name", "version"), kept())
def test_a_word_of_any_version_is_read(name: str, version: int) -> None:
    assert isinstance(read(name, version), words()[name])


@pytest.mark.parametrize(("name", "version"), [row for row in kept() if row[1] == version_of(words()[row[0]])])
def test_a_word_is_written_as_its_golden_file_says(name: str, version: int) -> None:
    word = read(name, version)
    assert word.to_dict() == golden(name, version)
    assert json.loads(word.to_json()) == golden(name, version)


@pytest.mark.parametrize("name", words())
def test_a_golden_file_leaves_no_field_out(name: str) -> None:
    fields = {field.alias for field in words()[name].model_fields.values()}
    assert set(golden(name, version_of(words()[name]))) == fields


@pytest.mark.parametrize(("name", "version"), [row for row in kept() if row[0] in EVENTS])
def test_an_event_is_still_read_when_its_sealed_fields_are_gone(name: str, version: int) -> None:
    content = golden(name, version)
    hidden = sealed_fields(EVENTS[name])
    event = event_from(name, version, {key: value for key, value in content.items() if key not in hidden})
    assert not hidden & set(event.to_dict())


@pytest.mark.parametrize("name", words())
def test_a_misspelt_field_is_an_error_and_never_silence(name: str) -> None:
    with pytest.raises(ValidationError):
        words()[name].model_validate({**golden(name, version_of(words()[name])), "misspelt": 1})


@pytest.mark.parametrize("frame", [*AnyUp.__args__, *AnyDown.__args__], ids=lambda frame: frame.__name__)
def test_a_frame_is_told_by_its_type(frame: type[Model]) -> None:
    content = golden(f"frames.{frame.__name__}", 1)
    adapter = UP if frame in AnyUp.__args__ else DOWN
    assert isinstance(adapter.validate_json(json.dumps(content)), frame)


def test_examples_are_only_written_where_none_is() -> None:
    before = {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()}
    assert write_missing() == []
    assert {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()} == before
    assert all(example(word) for word in words().values() if word.model_fields)
