"""What we write and what we read are the same: a person's record survives the way out and in again."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.envelope import Json
from contracts.patient import RegisterPatient
from tests.kit.commands import new_id
from unit_agent.hl7v2 import person
from unit_agent.hl7v2.message import Header, Message, acknowledged, acknowledgement, escaped, header_of
from unit_agent.hl7v2.options import Listen, Send
from unit_agent.hl7v2.visit import Understood, Visit, understood
from unit_agent.hl7v2.writing import adt, control_id_of_order

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SEND = Send(port=2575)
TEXT = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs", "Cc"]))
WORDS = TEXT.map(str.strip).filter(lambda text: text not in ("", '""'))
NAMES = WORDS.filter(lambda text: len(text) <= 50)
PHONES = st.from_regex(r"\+?[0-9 ()-]{3,20}", fullmatch=True).map(str.strip).filter(bool)
CONTACTS = st.dictionaries(
    st.sampled_from(["line", "city", "state", "postalCode", "country"]), WORDS.filter(lambda text: len(text) <= 20)
)


@st.composite
def patients(draw: st.DrawFn) -> Json:
    """As the caches have them."""
    contact = draw(CONTACTS)
    if draw(st.booleans()):
        contact["phone"] = draw(PHONES)
    if draw(st.booleans()):
        contact["email"] = f"{draw(st.from_regex('[a-z0-9.&|^~+]{1,20}', fullmatch=True))}@example.org"
    patient: Json = {
        "id": str(new_id()),
        "medicalRecordNumber": draw(NAMES),
        "firstName": draw(NAMES),
        "lastName": draw(NAMES),
        "dateOfBirth": draw(st.dates(date(1000, 1, 1), date(2026, 1, 1))).isoformat(),
        "gender": draw(st.sampled_from(["male", "female", "other", "unknown"])),
    }
    return patient | ({"contact": contact} if contact else {})


class Nothing:
    """A unit that knows nobody."""

    def patient(self, number: str) -> str | None:
        return None

    def demographics(self, patient_id: str) -> Json | None:
        return None

    def visit(self, number: str) -> Visit | None:
        return None

    def open_encounters(self, patient_id: str) -> list[str]:
        return []


def sent(event: str, patient: Json, encounter: Json | None = None, options: Send = SEND) -> str:
    return adt(event, patient, encounter, control_id="F1", occurred_at=NOW, now=NOW, unit_id="north", options=options)


def read(content: str, options: Listen | None = None) -> Understood:
    message = Message(content.encode(), charset="ascii")  # MSH-18 says what it is
    return understood(message, Nothing(), options or Listen(), lambda purpose: str(new_id()))


@given(patients())
def test_a_person_survives_the_way_out_and_in_again(patient: Json) -> None:
    [registered] = read(sent("A28", patient)).asked
    command = RegisterPatient.model_validate(registered.payload).to_dict()
    assert command | {"id": patient["id"], "patientId": None} == patient | {"patientId": None}


@given(patients(), WORDS, st.sampled_from(["AMB", "EMER", "IMP"]), st.sampled_from(["stat", "urgent", "routine"]))
def test_a_visit_survives_the_way_out_and_in_again(patient: Json, reason: str, kind: str, priority: str) -> None:
    encounter = {
        "id": str(new_id()), "department": "intake", "encounterClass": kind, "priority": priority, "reason": reason,
    }  # fmt: skip
    content = sent("A04", patient, encounter)
    assert Message(content.encode(), charset="ascii").header.kind[1] == ("A01" if kind == "IMP" else "A04")
    _, arrival = read(content).asked
    same = {name: arrival.payload[name] for name in ("department", "encounterClass", "priority", "reason")}
    assert same == {name: encounter[name] for name in same}
    assert read(content).opened is not None


@given(patients())
def test_what_is_written_is_a_message_the_library_takes_apart(patient: Json) -> None:
    message = hl7.parse(sent("A31", patient))
    assert [str(segment[0]) for segment in message] == ["MSH", "EVN", "PID", "PV1"]
    assert str(message.segment("MSH")[9]) == "ADT^A31^ADT_A05"


@given(st.text())
def test_no_value_can_break_out_of_its_field(text: str) -> None:
    assert not set(escaped(text)) & set("|^~&\r\n\x0b\x1c\x00")


def test_an_update_takes_away_nothing_the_receiver_was_not_told() -> None:
    content = sent("A08", {"id": "x", "lastName": "Nyberg"})
    assert person.demographics(Message(content.encode(), charset="ascii"), {"firstName": "Ottoline",
        "dateOfBirth": "1980-02-29", "contact": {"city": "Ystad"}})["contact"] == {"city": "Ystad"}  # fmt: skip


@given(st.sampled_from(["AA", "AE", "AR"]), st.text(max_size=40).filter(lambda text: text.isascii()))
def test_an_acknowledgement_says_what_it_answers_whatever_its_reason(code: str, reason: str) -> None:
    header = header_of(b"MSH|^~\\&|HIS|SITE|CARESPINE|NORTH|20260302||ADT^A04|id 7|P|2.5")
    text = "".join(character for character in reason if character.isprintable())
    content = acknowledgement(header, code, now=NOW, control_id="1", condition="207", text=text)
    assert acknowledged(content) == (code, "id 7", "" if code == "AA" else "207")
    assert header_of(content).at(5) == "HIS"


def test_an_unreadable_header_is_answered_too() -> None:
    content = acknowledgement(Header("|", "^~\\&", ()), "AR", now=NOW, control_id="1", condition="100", text="what")
    assert acknowledged(content) == ("AR", "", "100")


def test_control_ids_of_unit_commands_are_short_and_their_own() -> None:
    ids = {control_id_of_order(UUID(int=number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 20 for one in ids)


def test_only_facts_that_have_a_message_can_be_configured() -> None:
    with pytest.raises(ValueError, match="cannot be sent: queue"):
        Send(port=1, facts={"queue.PatientCalled": "A08"})
