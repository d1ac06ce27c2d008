"""What ADT messages become: commands in the outbox, once, or a reason that tells no patient's data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.encounter import PatientArrived
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.patient import PatientRegistered
from contracts.queue import PriorityCode
from tests.kit.commands import new_id
from tests.unit_agent.hl7v2.adt import PID, PV1, UNIT, adt, agent, outbox_of
from tests.unit_agent.told import frame, told
from unit_agent import local_commands
from unit_agent.hl7v2 import inbox
from unit_agent.hl7v2.message import Unacceptable
from unit_agent.hl7v2.options import Listen
from unit_agent.link_state import Shared

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
OPTIONS = Listen()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with agent(tmp_path) as one:
        yield one


def take(shared: Shared, content: bytes, options: Listen = OPTIONS) -> inbox.Taken:
    return inbox.take(shared.store, UNIT, content, options, now=NOW)


def refused(shared: Shared, content: bytes, options: Listen = OPTIONS) -> tuple[str, str, str]:
    with pytest.raises(Unacceptable) as why:
        take(shared, content, options)
    assert outbox_of(shared) == []
    return why.value.code, why.value.condition, why.value.text


def test_an_arrival_registers_the_person_and_checks_them_in(shared: Shared) -> None:
    assert take(shared, adt("A04", PID, PV1, "PV2|||^sore throat")) == inbox.Taken(repeated=False, commands=2)
    (_, person), (_, arrival) = made = outbox_of(shared)
    assert [type_name for type_name, _ in made] == ["patient.RegisterPatient", "encounter.CheckIn"]
    patient_id = person.pop("patientId")
    assert person == {
        "medicalRecordNumber": "4711", "firstName": "Ottoline", "lastName": "Nyberg", "dateOfBirth": "1980-02-29",
        "gender": "female",
        "contact": {"line": "Mill Lane 4", "city": "Ystad", "postalCode": "27140", "country": "SE",
                    "phone": "+46411000000"},
    }  # fmt: skip
    assert arrival["patientId"] == patient_id
    assert (arrival["department"], arrival["encounterClass"], arrival["priority"], arrival["reason"]) == (
        "intake", "AMB", "routine", "sore throat",
    )  # fmt: skip


def test_a_visit_is_updated_discharged_and_cancelled_by_its_number(shared: Shared) -> None:
    take(shared, adt("A01", PID, PV1.replace("|O|", "|E|"), control_id="1"))
    take(shared, adt("A08", PID.replace("Ottoline", "Ottilie"), PV1, control_id="2"))
    take(shared, adt("A03", PID, PV1, control_id="3"))
    take(shared, adt("A04", PID, PV1.replace("V-17", "V-18"), control_id="4"))
    take(shared, adt("A11", PID, PV1.replace("V-17", "V-18"), control_id="5"))
    made = outbox_of(shared)
    assert [type_name for type_name, _ in made] == [
        "patient.RegisterPatient", "encounter.CheckIn", "patient.UpdateDemographics", "encounter.Discharge",
        "encounter.CheckIn", "encounter.CancelVisit",
    ]  # fmt: skip
    payloads = [payload for _, payload in made]
    assert payloads[1]["encounterClass"] == "EMER"
    assert (payloads[2]["patientId"], payloads[2]["firstName"]) == (payloads[0]["patientId"], "Ottilie")
    assert payloads[3]["encounterId"] == payloads[1]["encounterId"]
    assert payloads[5]["encounterId"] == payloads[4]["encounterId"] != payloads[1]["encounterId"]


def test_the_same_control_id_twice_is_one_command(shared: Shared) -> None:
    first = adt("A04", PID, PV1)
    take(shared, first)
    again = first.replace(b"|20260302120000||ADT", b"|20260302120530||ADT")
    assert take(shared, again) == inbox.Taken(repeated=True, commands=2)
    assert len(outbox_of(shared)) == 2


def test_a_control_id_with_another_message_is_refused(shared: Shared) -> None:
    take(shared, adt("A04", PID, PV1))
    with pytest.raises(Unacceptable, match="AR 205"):
        take(shared, adt("A04", PID.replace("4711", "4712"), PV1.replace("V-17", "V-18")))
    assert len(outbox_of(shared)) == 2


def test_another_sender_s_control_id_is_another_message(shared: Shared) -> None:
    take(shared, adt("A04", PID, PV1))
    take(shared, adt("A04", PID, PV1.replace("V-17", "V-18")).replace(b"|HIS|", b"|LAB|"))
    assert len(outbox_of(shared)) == 3


def test_an_arrival_told_again_under_a_new_control_id_opens_no_second_visit(shared: Shared) -> None:
    take(shared, adt("A04", PID, PV1, control_id="1"))
    assert take(shared, adt("A01", PID, PV1, control_id="2")).commands == 0
    assert len(outbox_of(shared)) == 2


def known(shared: Shared) -> tuple[PatientId, EncounterId]:
    """The feed has told of somebody whose visit is open."""
    patient_id, encounter_id = PatientId(new_id()), EncounterId(new_id())
    registered = PatientRegistered(
        patient_id=patient_id, medical_record_number="4711", first_name="Ottoline", last_name="Nyberg",
        date_of_birth=datetime(1980, 2, 29, tzinfo=UTC).date(), room_number="12",
    )  # fmt: skip
    arrived = PatientArrived(
        encounter_id=encounter_id, patient_id=patient_id, department="intake",
        queue_entry_id=QueueEntryId(new_id()), priority=PriorityCode.ROUTINE, encounter_class="AMB",
    )  # fmt: skip
    shared.store.take([frame(told(1, registered), told(2, arrived))], head=2, now=NOW)
    return patient_id, encounter_id


def test_somebody_the_feed_has_told_of_is_found_by_their_number(shared: Shared) -> None:
    patient_id, encounter_id = known(shared)
    take(shared, adt("A08", "PID|1||4711^^^SITE^MR||Nyberg-Holm", control_id="1"))
    take(shared, adt("A03", "PID|1||4711^^^SITE^MR||", "PV1|1|O", control_id="2"))
    assert outbox_of(shared) == [
        (
            "patient.UpdateDemographics",
            {
                "patientId": str(patient_id), "firstName": "Ottoline", "lastName": "Nyberg-Holm",
                "dateOfBirth": "1980-02-29", "gender": "unknown", "roomNumber": "12",
            },
        ),
        ("encounter.Discharge", {"encounterId": str(encounter_id)}),
    ]  # fmt: skip


def test_a_second_arrival_of_somebody_who_is_here_is_left_to_the_centre(shared: Shared) -> None:
    known(shared)
    take(shared, adt("A04", PID, PV1.replace("V-17", ""), control_id="1"))
    assert [type_name for type_name, _ in outbox_of(shared)] == ["patient.UpdateDemographics", "encounter.CheckIn"]


def test_somebody_registered_at_the_desk_while_the_link_is_down_is_known(shared: Shared) -> None:
    desk = {"medicalRecordNumber": "4711", "firstName": "Ottoline", "lastName": "Nyberg", "dateOfBirth": "1980-02-29"}
    made = local_commands.keep(
        shared.store, UNIT, "patient.RegisterPatient", desk, subject="desk", key=None, now=NOW, linked=False
    )
    take(shared, adt("A04", PID, PV1))
    *_, arrival = outbox_of(shared)
    assert arrival[0] == "encounter.CheckIn"
    assert arrival[1]["patientId"] == made.ids["patientId"]
    assert [type_name for type_name, _ in outbox_of(shared)].count("patient.RegisterPatient") == 1


def test_an_empty_field_says_nothing_and_two_quotes_take_away(shared: Shared) -> None:
    take(shared, adt("A28", PID, control_id="1"))
    [(_, registered)] = outbox_of(shared)
    person = PatientRegistered.model_validate(registered)
    shared.store.take([frame(told(1, person))], head=1, now=NOW)
    take(shared, adt("A31", 'PID|1||4711^^^SITE^MR||||||||""^^^^""^NO||""', control_id="2"))
    (_, updated) = outbox_of(shared)[-1]
    assert updated["contact"] == {"city": "Ystad", "country": "NO"}
    assert (updated["firstName"], updated["gender"]) == ("Ottoline", "female")


def test_a_person_who_was_erased_is_no_longer_found_by_their_number(shared: Shared) -> None:
    shared.store.learners.append(inbox.learn)
    take(shared, adt("A28", PID, control_id="1"))
    [(_, registered)] = outbox_of(shared)
    person = PatientRegistered(patient_id=PatientId(registered["patientId"]))
    shared.store.take([frame(told(1, person, erased=True))], head=1, now=NOW)
    with pytest.raises(Unacceptable, match="AE 204"):
        take(shared, adt("A08", PID, control_id="2"))
    [row] = shared.store.db.execute("SELECT content FROM hl7_received")
    assert row["content"] == b""
    assert take(shared, adt("A28", PID, control_id="1")).repeated


def test_a_control_id_that_comes_round_again_later_is_another_command(shared: Shared) -> None:
    take(shared, adt("A28", PID))
    inbox.forget(shared.store, OPTIONS, NOW.replace(year=2027))
    take(shared, adt("A28", PID.replace("4711", "4712")))
    assert [payload["medicalRecordNumber"] for _, payload in outbox_of(shared)] == ["4711", "4712"]


@pytest.mark.parametrize(
    ("content", "code", "condition"),
    [
        (b"", "AR", "100"),
        (b"PID|1||4711", "AR", "100"),
        (b"MSH|^~\\^|HIS", "AR", "102"),
        (adt("A40", PID, PV1), "AR", "201"),
        (adt("A04", PID, PV1).replace(b"ADT^A04", b"ORU^R01"), "AR", "200"),
        (adt("A04", PID, PV1, version="3.0"), "AR", "203"),
        (adt("A04", PID, PV1).replace(b"|P|2.5", b"|T|2.5"), "AR", "202"),
        (adt("A04", PID, PV1, control_id=""), "AR", "101"),
        (adt("A04", PID, PV1, msh="||||||ISO IR87"), "AR", "103"),
        (adt("A04", PV1), "AE", "100"),
        (adt("A04", PID), "AE", "100"),
        (adt("A04", PID.replace("4711", ""), PV1), "AE", "101"),
        (adt("A04", PID.replace("Ottoline", ""), PV1), "AE", "101"),
        (adt("A04", PID.replace("Ottoline", "x" * 51), PV1), "AE", "102"),
        (adt("A04", PID.replace("19800229", "19810229"), PV1), "AE", "102"),
        (adt("A04", PID.replace("19800229", "29.2.80"), PV1), "AE", "102"),
        (adt("A04", PID, PV1.replace("INTAKE", "")), "AE", "101"),
        (adt("A04", PID, PV1.replace("INTAKE", "!")), "AE", "102"),
        (adt("A04", PID.replace("Ottoline", "Otto\x00line"), PV1), "AE", "102"),
        (adt("A04", PID, PV1).replace(b"Ottoline", b"Ot\xfftoline"), "AE", "102"),
        (adt("A08", PID, PV1), "AE", "204"),
        (adt("A03", PID, PV1), "AE", "204"),
        (adt("A11", PID, PV1), "AE", "204"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_reason_and_nothing_is_kept(
    shared: Shared, content: bytes, code: str, condition: str
) -> None:
    said = refused(shared, content)
    assert said[:2] == (code, condition)
    assert "Nyberg" not in said[2]
    assert "4711" not in said[2]
    assert inbox.count(shared.store.db) == 0


def test_a_reason_names_the_field_of_the_message(shared: Shared) -> None:
    assert refused(shared, adt("A04", PID.replace("Ottoline", "x" * 51), PV1))[2] == "Not valid: PID-5.2"
    assert refused(shared, adt("A04", PID, PV1.replace("INTAKE", "!")))[2] == "Not valid: PV1-3.1"


@pytest.mark.parametrize(
    ("msh", "codec"), [("||||||8859/1", "latin-1"), ("||||||UNICODE UTF-8", "utf-8"), ("", "utf-8")]
)
def test_names_keep_their_letters_in_every_encoding(shared: Shared, msh: str, codec: str) -> None:
    content = adt("A28", PID.replace("Nyberg", "Åström\\T\\Søn"), msh=msh).decode().encode(codec)
    take(shared, content)
    assert outbox_of(shared)[0][1]["lastName"] == "Åström&Søn"


def test_other_separators_and_line_ends_are_read(shared: Shared) -> None:
    content = adt("A28", PID).decode().replace("MSH|^~\\&", "MSH|!*%$").replace("^", "!").replace("\r", "\r\n")
    take(shared, content.encode())
    assert outbox_of(shared)[0][1]["firstName"] == "Ottoline"


def test_departments_and_numbers_are_read_as_the_site_says(shared: Shared) -> None:
    options = Listen(departments={"W7": "emergency"}, authority="REGION")
    both = PID.replace("4711^^^SITE^MR", "4711^^^SITE^MR~19800229-0000^^^REGION^NI")
    take(shared, adt("A04", both, PV1.replace("INTAKE", "W7")), options)
    (_, person), (_, arrival) = outbox_of(shared)
    assert (person["medicalRecordNumber"], arrival["department"]) == ("19800229-0000", "emergency")


def test_messages_are_forgotten_when_their_time_is_over(shared: Shared) -> None:
    take(shared, adt("A28", PID))
    assert inbox.forget(shared.store, OPTIONS, NOW) == 0
    assert inbox.forget(shared.store, OPTIONS, NOW.replace(year=2027)) == 1
    assert inbox.count(shared.store.db) == 0


_SHAPES = st.sampled_from([adt("A04", PID, PV1), adt("A08", PID), adt("A03", PID, PV1), b"MSH|^~\\&|", b""])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(_SHAPES, st.integers(0, 300), st.binary(max_size=12), st.integers(0, 20))
def test_a_message_with_any_damage_is_taken_whole_or_not_at_all(
    shared: Shared, content: bytes, place: int, damage: bytes, cut: int
) -> None:
    before = len(outbox_of(shared))
    try:
        taken = take(shared, content[:place] + damage + content[place + cut :])
    except Unacceptable as why:
        assert str(why)[:3] in ("AE ", "AR ")  # noqa: PT017 - either may happen
        assert len(outbox_of(shared)) == before
    else:
        assert len(outbox_of(shared)) == before + (0 if taken.repeated else taken.commands)
