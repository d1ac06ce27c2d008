"""PID and what we know of a person, both ways: in this one file, so that a round trip changes nothing.

An empty field says nothing and leaves what is known; `""` takes it away (HL7 v2, chapter 2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from contracts.envelope import Json
from unit_agent.hl7v2.message import DATA_TYPE, NULL, REQUIRED_MISSING, Message, Unacceptable, escaped

PLACES: Final = {
    "medicalRecordNumber": "PID-3",
    "firstName": "PID-5.2",
    "lastName": "PID-5.1",
    "dateOfBirth": "PID-7",
    "gender": "PID-8",
    "contact.line": "PID-11.1",
    "contact.city": "PID-11.3",
    "contact.state": "PID-11.4",
    "contact.postalCode": "PID-11.5",
    "contact.country": "PID-11.6",
    "contact.phone": "PID-13.1",
    "contact.email": "PID-13.4",
    "department": "PV1-3.1",
    "reason": "PV2-3",
    "note": "DG1-4",
}
"""Where a command's field comes from, for answers that say what is wrong."""

_GENDERS: Final = {"M": "male", "F": "female", "O": "other", "A": "other", "U": "unknown", "N": "unknown"}
_ADMINISTRATIVE_SEX: Final = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_ADDRESS: Final = {"line": 1, "city": 3, "state": 4, "postalCode": 5, "country": 6}


@dataclass(frozen=True)
class Numbering:
    """How this site numbers patients."""

    authority: str = ""
    """PID-3.4 of the medical record number; empty: whichever has the type MR, else the first."""


def number_of(message: Message, numbering: Numbering) -> str:
    """The medical record number. Raises Unacceptable."""
    typed = first = ""
    for repetition in range(1, message.repetitions("PID", 3) + 1):
        number = message.text("PID", 3, repetition=repetition)
        if number in ("", NULL):
            continue
        authority = message.text("PID", 3, 4, repetition=repetition)
        if numbering.authority and authority == numbering.authority:
            return number
        first = first or number
        if message.text("PID", 3, 5, repetition=repetition) == "MR":
            typed = typed or number
    if numbering.authority or not (typed or first):
        raise Unacceptable("AE", REQUIRED_MISSING, "PID-3 holds no medical record number")
    return typed or first


def demographics(message: Message, known: Json | None) -> Json:
    """Who the person is, as commands say it: the message's fields over what is `known`. Raises Unacceptable."""
    before = known or {}
    asked: Json = {
        "lastName": _over(message.text("PID", 5, 1), before.get("lastName")),
        "firstName": _over(message.text("PID", 5, 2), before.get("firstName")),
        "dateOfBirth": _over(_day(message), before.get("dateOfBirth")),
    }
    for field, value in asked.items():
        if value is None:
            raise Unacceptable("AE", REQUIRED_MISSING, f"{PLACES[field]} is missing")
    sex = message.text("PID", 8).upper()
    asked["gender"] = _GENDERS.get(sex, "unknown") if sex else before.get("gender", "unknown")
    contact = _contact(message, before.get("contact") or {})
    return asked | ({"contact": contact} if contact else {})


def segment(patient: Json, patient_id: str, numbering: Numbering) -> dict[int, str]:
    """PID of a person as this unit's caches or facts have them."""
    numbers = [f"{escaped(patient_id)}^^^CARESPINE^PI"]
    if patient.get("medicalRecordNumber"):
        numbers.insert(0, f"{escaped(patient['medicalRecordNumber'])}^^^{escaped(numbering.authority)}^MR")
    contact = patient.get("contact") or {}
    address = "^".join(
        escaped(contact.get(name)) if name else "" for name in ("line", "", "city", "state", "postalCode", "country")
    )
    ways = []
    if contact.get("phone"):
        ways.append(f"{escaped(contact['phone'])}^PRN^PH")
    if contact.get("email"):
        ways.append(f"^NET^Internet^{escaped(contact['email'])}")
    fields = {
        1: "1",
        3: "~".join(numbers),
        5: f"{escaped(patient.get('lastName'))}^{escaped(patient.get('firstName'))}",
        7: str(patient.get("dateOfBirth") or "").replace("-", ""),
        8: _ADMINISTRATIVE_SEX.get(str(patient.get("gender")), "U"),
        11: address if address.strip("^") else "",
        13: "~".join(ways),
    }
    if patient.get("deceasedAt"):
        fields[30] = "Y"
    return fields


def _over(told: str, before: object) -> object:
    return before if told == "" else None if told == NULL else told


def _day(message: Message) -> str:
    told = message.text("PID", 7)
    if told in ("", NULL):
        return told
    try:
        if not re.fullmatch(r"\d{8}(?:\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,4})?)?)?)?(?:[+-]\d{4})?", told):
            raise ValueError
        return date(int(told[:4]), int(told[4:6]), int(told[6:8])).isoformat()
    except ValueError:
        raise Unacceptable("AE", DATA_TYPE, "PID-7 is not a date as YYYYMMDD") from None


def _contact(message: Message, before: Json) -> Json:
    told = {name: _over(message.text("PID", 11, place), before.get(name)) for name, place in _ADDRESS.items()}
    told["phone"], told["email"] = _ways(message, before)
    return {name: value for name, value in told.items() if value is not None}


def _ways(message: Message, before: Json) -> tuple[object, object]:
    """Phone and mail address of PID-13: the first of each."""
    count = message.repetitions("PID", 13)
    if count and message.text("PID", 13) == NULL:
        return None, None
    phone, email = "", ""
    for repetition in range(1, count + 1):
        number, _, equipment, mail = (message.text("PID", 13, part, repetition=repetition) for part in (1, 2, 3, 4))
        if mail or "@" in number or equipment in ("Internet", "X.400"):
            email = email or mail or number
            continue
        parts = [message.text("PID", 13, part, repetition=repetition) for part in (5, 6, 7)]
        spelled = " ".join(part for part in [f"+{parts[0]}" if parts[0] else "", *parts[1:]] if part)
        phone = phone or number or message.text("PID", 13, 12, repetition=repetition) or spelled
    return _over(phone, before.get("phone")), _over(email, before.get("email"))
