"""Words by their names, what they take and refuse, and how a refusal answers."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from contracts import refusals as refusals_of_no_aggregate
from contracts.catalogue import COMMANDS, EVENTS, UPCASTS, UnknownWord, command_from, command_named, event_from
from contracts.encounter import CheckIn
from contracts.frames import CLOSINGS, CloseCode, closing
from contracts.identity import SYSTEM, Role
from contracts.model import Refusal
from contracts.patient import PatientDied, RegisterPatient
from contracts.queue import RANK, ChangePriority, Enqueue, PriorityCode
from contracts.text import holds_odd_number, kept
from contracts.unit import RegisterUnit, UnitSettings
from contracts.unit_command import QueueUnitCommand, ReportUnitCommand
from tests.contracts.golden import golden

REFUSALS = [refusal for refusal in Refusal.__subclasses__() if refusal.__module__.startswith("contracts.")]
DIED = {"patientId": str(UUID(int=1)), "deceasedAt": "2025-03-03T08:00:00Z"}


def test_commands_and_events_are_found_by_the_name_they_travel_under() -> None:
    assert command_named("patient.RegisterPatient") is RegisterPatient
    assert EVENTS["patient.PatientDied"] is PatientDied
    assert not set(COMMANDS) & set(EVENTS)
    for name in (*COMMANDS, *EVENTS):
        assert re.fullmatch(r"[a-z_]+\.[A-Z][A-Za-z]+", name), "stands in routing keys"
    assert PatientDied.type_name() == "patient.PatientDied"


def test_what_this_release_does_not_know_is_said_to_be_unknown() -> None:
    for name, version in (("patient.Nothing", 1), ("patient.PatientDied", 1), ("patient.RegisterPatient", 2)):
        with pytest.raises(UnknownWord):
            command_named(name, version)
    for name, version in (("patient.Nothing", 1), ("patient.RegisterPatient", 1), ("patient.PatientDied", 2)):
        with pytest.raises(UnknownWord):
            event_from(name, version, DIED)


def test_a_word_of_an_older_version_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientDied, "version", 3)
    monkeypatch.setitem(UPCASTS, ("patient.PatientDied", 1), lambda old: {**old, "deceasedAt": old["at"], "of": 2})
    monkeypatch.setitem(UPCASTS, ("patient.PatientDied", 2), lambda old: {name: old[name] for name in DIED})
    event = event_from("patient.PatientDied", 1, {"patientId": DIED["patientId"], "at": DIED["deceasedAt"]})
    assert event.to_dict() == {"patientId": DIED["patientId"], "deceasedAt": "2025-03-03T08:00:00Z"}
    assert event_from("patient.PatientDied", 3, DIED) == event


def test_a_command_is_read_under_its_name() -> None:
    content = golden("encounter.CheckIn", 1)
    assert isinstance(command_from("encounter.CheckIn", 1, content), CheckIn)


def test_only_the_system_asks_for_what_no_role_may() -> None:
    inner = {command.__name__ for command in COMMANDS.values() if not command.may}
    assert inner == {
        *("Enqueue", "CloseEntry", "MoveToDepartment", "ExpireUnitCommand", "SupersedeUnitCommand"),
        *("NoteUnitUnreachable", "NoteUnitBack", "RaiseConflict", "NoteTaskOverdue"),
        *("IssueEnrolmentCode", "EnrolUnit", "RotateUnitKey"),  # what they carry is the gateway's to make and to prove
        *("AppointFirstAdmin", "InviteStaff", "ActivateStaff"),  # likewise
    }
    assert not any(Role.SYSTEM in command.may for command in COMMANDS.values())
    assert SYSTEM.role is Role.SYSTEM


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)
def test_a_refusal_answers_with_a_code_for_programs_and_a_sentence_for_people(refusal: type[Refusal]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", refusal.code())
    assert refusal.__doc__
    assert refusal.message().endswith(".")
    assert str(refusal()) == refusal.message()


def test_no_two_refusals_have_one_code() -> None:
    assert len({refusal.code() for refusal in REFUSALS}) == len(REFUSALS)
    assert refusals_of_no_aggregate.VersionConflict in REFUSALS


def test_a_refusal_tells_ids_and_codes_in_camel_case() -> None:
    refusal = REFUSALS[0](entry_id=str(UUID(int=1)), ticket=7)
    assert refusal.about == {"entryId": str(UUID(int=1)), "ticket": "7"}


@pytest.mark.parametrize(
    ("said", "priority"),
    [
        ("normal", "routine"),
        ("low", "routine"),
        ("HIGH", "urgent"),
        ("emergency", "stat"),
        ("critical", "stat"),
        ("asap", "asap"),
    ],
)
def test_priorities_are_read_as_people_say_them(said: str, priority: str) -> None:
    change = ChangePriority.model_validate({**golden("queue.ChangePriority", 1), "priority": said})
    assert change.priority is PriorityCode(priority)


def test_every_priority_has_a_rank_and_each_another() -> None:
    assert sorted(RANK.values()) == list(range(len(PriorityCode)))


def test_an_instant_without_a_zone_is_refused() -> None:
    content = golden("queue.Enqueue", 1)
    with pytest.raises(ValidationError):
        Enqueue.model_validate({**content, "arrivedAt": "2025-03-03T08:00:00"})
    east = Enqueue.model_validate({**content, "arrivedAt": "2025-03-03T09:00:00+01:00"})
    assert east.arrived_at == datetime(2025, 3, 3, 8, tzinfo=UTC)


@pytest.mark.parametrize("name", ["", " ", "x" * 51, "a\nb", "a\x00b"])
def test_a_name_is_printable_and_not_empty(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterPatient.model_validate({**golden("patient.RegisterPatient", 1), "firstName": name})


def test_text_is_kept_as_typed_but_for_the_spaces_around_it() -> None:
    content = {**golden("patient.RegisterPatient", 1), "firstName": "  Zoë ", "lastName": "O'Brien <b>"}
    patient = RegisterPatient.model_validate(content)
    assert (patient.first_name, patient.last_name) == ("Zoë", "O'Brien <b>")


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../etc/passwd", "x" * 60])
def test_a_zone_has_to_be_known(zone: str) -> None:
    with pytest.raises(ValidationError):
        UnitSettings(zone=zone)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+",
        r"(a|aa){20}",
        r"a?a?a?a?a?b",
        r"a*a*a*a*a*b",
        r"(a)\1",
        r"(?=a)",
        r"a(",
        r"(|)(|)(|)(|)(|)(|)(|)(|)(|)",
    ],
)
def test_a_number_pattern_that_could_keep_a_handler_busy_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        UnitSettings(mrn_pattern=pattern)


@pytest.mark.parametrize("pattern", [r"MRN-[A-Za-z0-9-]{1,60}", r"\d{6,10}", r"(KH|MVZ)?-?[0-9]+", r"[(?+*]{2}[0-9]*"])
def test_a_number_pattern_that_a_unit_would_want_is_taken(pattern: str) -> None:
    assert UnitSettings(mrn_pattern=pattern).mrn_pattern == pattern


def test_the_worst_number_pattern_that_is_taken_is_quick() -> None:
    worst = UnitSettings(mrn_pattern=r"[a-z]{0,60}[a-z]{0,60}[a-z]{0,60}[a-z]{0,60}[0-9]").mrn_pattern
    begun = time.perf_counter()
    assert not re.fullmatch(worst, "a" * 64)
    assert time.perf_counter() - begun < 0.25


def test_a_rejection_code_is_no_sentence() -> None:
    with pytest.raises(ValidationError):
        ReportUnitCommand.model_validate({**golden("unit_command.ReportUnitCommand", 1), "code": "Anaba was not there"})


def test_the_payload_of_a_unit_command_arrives_as_it_was_given() -> None:
    given = {"empty": None, "list": [None, {"deep": None}], "camelCase": 1, "snake_case": 2.5}
    content = {**golden("unit_command.QueueUnitCommand", 1), "payload": given}
    command = QueueUnitCommand.model_validate(content)
    assert command.to_dict()["payload"] == given
    assert QueueUnitCommand.model_validate_json(command.to_json()).payload == given


def test_words_are_frozen() -> None:
    unit = RegisterUnit(name="North Clinic")
    with pytest.raises(ValidationError):
        unit.name = "South Clinic"  # type: ignore[misc]  # frozen is what is tested


def test_every_close_code_says_what_it_means_and_whether_to_come_back() -> None:
    assert set(CLOSINGS) == set(CloseCode)
    for code in CloseCode:
        found = closing(code)
        assert found is not None
        assert found.meaning
        assert found.remedy
        assert len(found.meaning.encode()) <= 123, "what a close frame can carry"
    assert closing(1006) is None


def test_what_a_site_answers_is_kept_whatever_numbers_it_holds() -> None:
    least, most = -(2**63), 2**64 - 1
    found = kept({"least": least, "most": most, "large": [10**30], "odd": [float("nan"), float("inf")], "yes": True})
    assert found == {"least": least, "most": most, "large": ["1" + "0" * 30], "odd": [None, None], "yes": True}
    assert not holds_odd_number(found)
