"""What identifies a person is sealed in every event: a text is a code, or it is sealed; nothing is left to a habit."""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from contracts.catalogue import COMMANDS, EVENTS
from contracts.model import Instant, Model, SealedField, sealed_fields

IDENTIFYING = {
    "contact",
    "date_of_birth",
    "description",
    "first_name",
    "last_name",
    "medical_record_number",
    "note",
    "notes",
    "reason",
    "result",
    "room_number",
    "title",
}
"""Never clear in an event about a person, whatever its type."""

CLEAR = {
    "assignee": "an account id",
    "business_status": "a code of the department, no sentence (its pattern admits no space)",
    "cause": "the command that led to a task: its id, type, time and why it was refused",
    "code": "a code of the unit's own system, no sentence (its pattern admits no space)",
    "code_hash": "the hash of 125 random bits, which tells nothing of them",
    "counts": "how many of what was purged, by names of our own (their pattern admits little else)",
    "counter": "a desk or room of the unit, told to everybody in the waiting room",
    "department": "a code of the unit",
    "kind": "a code of the caller's choice, no sentence (its pattern admits no space)",
    "outcome": "a code, no sentence (its pattern admits no space)",
    "practitioner_id": "an account id",
    "reason_code": "a code, no sentence (its pattern admits no space)",
    "room": "a room of the unit",
    "service_day": "the day of a queue, not of a person",
    "source_id": "the record's id in the system it came from",
    "supersede_key": "a code the caller chooses, no sentence (its pattern admits no space)",
    "to_department": "a code of the unit",
    "type": "what a connector understands, a code",
    "unit_id": "the unit's id",
}
"""Texts and days that stay clear in events about persons, and why they may."""

HARMLESS = (UUID, bool, int, float, Enum)
"""With instants: ids, numbers and codes from a closed list identify nobody by themselves."""

ABOUT_PEOPLE = {name: event for name, event in EVENTS.items() if event.context != "unit"}
"""A unit is public: its name, address and the reason it was suspended for are nobody's secret."""


def is_sealed(field: FieldInfo) -> bool:
    """Whether the field's type says so."""
    return any(isinstance(mark, SealedField) for mark in field.metadata)


def is_harmless(annotation: Any) -> bool:  # Any: any annotation there is
    """Whether every value the annotation admits is of a harmless type."""
    if annotation in (type(None), Instant, AwareDatetime):
        return True
    if isinstance(annotation, type):
        return issubclass(annotation, HARMLESS)
    if (supertype := getattr(annotation, "__supertype__", None)) is not None:
        return is_harmless(supertype)
    return bool(get_args(annotation)) and all(
        is_harmless(part) for part in get_args(annotation) if part is not Ellipsis
    )


@pytest.mark.parametrize("event", ABOUT_PEOPLE.values(), ids=ABOUT_PEOPLE)
def test_a_text_of_an_event_about_a_person_is_a_known_code_or_sealed(event: type[Model]) -> None:
    open_fields = {
        name for name, field in event.model_fields.items() if not is_sealed(field) and not is_harmless(field.annotation)
    }
    assert open_fields <= set(CLEAR), "seal the field, or say in CLEAR why it identifies nobody"


@pytest.mark.parametrize("event", ABOUT_PEOPLE.values(), ids=ABOUT_PEOPLE)
def test_what_identifies_a_person_is_sealed(event: type[Model]) -> None:
    for name in IDENTIFYING & set(event.model_fields):
        assert is_sealed(event.model_fields[name]), name


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_is_sealed_may_be_gone(event: type[Model]) -> None:
    for name, field in event.model_fields.items():
        if is_sealed(field):
            assert not field.is_required(), f"{name} has to be readable after an erasure"
            assert field.get_default() is None


@pytest.mark.parametrize("event", ABOUT_PEOPLE.values(), ids=ABOUT_PEOPLE)
def test_what_is_sealed_has_a_subject_whose_key_seals_it(event: type[Model]) -> None:
    if sealed_fields(event):
        assert "patient_id" in event.model_fields
        assert "subject" in vars(event) or any("subject" in vars(base) for base in event.__mro__[1:-3])


def test_a_unit_command_about_nobody_is_sealed_under_the_units_own_key() -> None:
    event = EVENTS["unit_command.UnitCommandCancelled"].model_validate(
        {"unitCommandId": UUID(int=1), "unitId": "north-clinic"}
    )
    assert event.subject() == "unit:north-clinic"
    assert event.model_copy(update={"patient_id": UUID(int=2)}).subject() == str(UUID(int=2))


def test_a_field_is_sealed_in_the_command_as_in_the_event() -> None:
    sealed_in_events = {
        (event.context, name)
        for event in EVENTS.values()
        for name, field in event.model_fields.items()
        if is_sealed(field)
    }
    for command in COMMANDS.values():
        for name, field in command.model_fields.items():
            if (command.context, name) in sealed_in_events:
                assert is_sealed(field), f"{command.__name__}.{name}"


def test_units_have_nothing_to_seal() -> None:
    assert not any(sealed_fields(event) for event in EVENTS.values() if event.context == "unit")


def test_sealed_fields_are_named_as_in_json() -> None:
    assert sealed_fields(EVENTS["patient.PatientRegistered"]) == {
        "medicalRecordNumber",
        "firstName",
        "lastName",
        "dateOfBirth",
        "contact",
        "roomNumber",
    }
