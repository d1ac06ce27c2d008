"""What an ADT message asks for: its event, PID and PV1 as commands of this unit. Pure but for what it is told is known.

| event | commands |
|---|---|
| A01, A04 | RegisterPatient (or UpdateDemographics when the person is known and PID differs), CheckIn |
| A08, A31 | UpdateDemographics |
| A28 | RegisterPatient (or UpdateDemographics) |
| A03 | Discharge |
| A11 | CancelVisit |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from contracts.encounter import CancelVisit, CheckIn, Discharge
from contracts.envelope import Json
from contracts.patient import RegisterPatient, UpdateDemographics
from unit_agent.hl7v2 import message as hl7v2
from unit_agent.hl7v2 import person
from unit_agent.hl7v2.message import NULL, Message, Unacceptable
from unit_agent.hl7v2.options import Listen

_CLASSES: Final = {"E": "EMER", "I": "IMP"}
_PRIORITIES: Final = {"E": "stat", "U": "urgent"}
"""PV1-4, HL7 table 0007; anything else is routine."""


@dataclass(frozen=True)
class Asked:
    """One command that a message brings about."""

    type: str
    payload: Json


@dataclass(frozen=True)
class Visit:
    """A visit that an earlier message opened."""

    encounter_id: str
    ended: bool


class Known(Protocol):
    """What this unit knows already."""

    def patient(self, number: str) -> str | None:
        """The id of the patient with this medical record number."""
        ...

    def demographics(self, patient_id: str) -> Json | None:
        """The patient as the feed has told; None when it has not yet."""
        ...

    def visit(self, number: str) -> Visit | None:
        """The visit with this number of the site's."""
        ...

    def open_encounters(self, patient_id: str) -> list[str]:
        """Ids of a patient's open visits, as far as the feed has told."""
        ...


@dataclass(frozen=True)
class Understood:
    """A message's commands in their order, and which numbers of the site's now mean which ids."""

    asked: tuple[Asked, ...]
    patient: tuple[str, str] | None = None
    """(medical record number, patient id)"""
    opened: tuple[str, str] | None = None
    """(visit number, encounter id)"""
    ended: str | None = None
    """A visit's number."""


NewId = Callable[[str], str]
"""An id for a purpose (`patient`, `encounter`, `entry`), the same whenever this message is read."""


def understood(message: Message, known: Known, options: Listen, new_id: NewId) -> Understood:
    """What the message asks for. Raises Unacceptable."""
    kind, event = message.header.kind
    if kind != "ADT":
        raise Unacceptable("AR", hl7v2.UNSUPPORTED_TYPE, "only ADT messages are taken here")
    reading = _EVENTS.get(event)
    if reading is None:
        raise Unacceptable("AR", hl7v2.UNSUPPORTED_EVENT, f"events taken here: {', '.join(_EVENTS)}")
    message.require("PID")
    return reading(_Reading(message, known, options, new_id))


class _Reading:
    """One message being read."""

    def __init__(self, message: Message, known: Known, options: Listen, new_id: NewId) -> None:
        self.message = message
        self.known = known
        self.options = options
        self.new_id = new_id
        self.number = person.number_of(message, options.numbering)
        self.patient_id = known.patient(self.number)

    def registered(self) -> tuple[str, list[Asked]]:
        """The patient's id, and what makes the record be as PID says."""
        if self.patient_id is None:
            patient_id = self.new_id("patient")
            payload = {"patientId": patient_id, "medicalRecordNumber": self.number}
            payload |= person.demographics(self.message, None)
            return patient_id, [Asked(RegisterPatient.type_name(), payload)]
        before = self.known.demographics(self.patient_id)
        if before is None:  # registered a moment ago: what the feed has not told yet is what PID said
            return self.patient_id, []
        told = person.demographics(self.message, before)
        if all(told.get(name) == before.get(name) for name in ("firstName", "lastName", "dateOfBirth", "gender")) and (
            told.get("contact", {}) == (before.get("contact") or {})
        ):
            return self.patient_id, []
        return self.patient_id, [_updated(self.patient_id, told, before)]

    def updated(self) -> Understood:
        """A08, A31: the person is known and PID says how they are."""
        patient_id = self.known_patient()
        before = self.known.demographics(patient_id)
        asked = _updated(patient_id, person.demographics(self.message, before), before or {})
        return Understood((asked,), patient=(self.number, patient_id))

    def arrived(self) -> Understood:
        """A01, A04: somebody is here."""
        self.message.require("PV1")
        patient_id, asked = self.registered()
        patient = (self.number, patient_id)
        visit_number = self._visit_number()
        visit = self.known.visit(visit_number) if visit_number else None
        if visit is not None and not visit.ended:
            return Understood(tuple(asked), patient=patient)  # the visit is open already: told again
        encounter_id = self.new_id("encounter")
        check_in: Json = {
            "encounterId": encounter_id,
            "patientId": patient_id,
            "queueEntryId": self.new_id("entry"),
            "department": self._department(),
            "encounterClass": _CLASSES.get(self.message.text("PV1", 2).upper(), "AMB"),
            "priority": _PRIORITIES.get(self.message.text("PV1", 4).upper(), "routine"),
        }
        reason = self.message.text("PV2", 3, 2) or self.message.text("PV2", 3, 1)
        if reason not in ("", NULL):
            check_in["reason"] = reason
        asked.append(Asked(CheckIn.type_name(), check_in))
        opened = (visit_number, encounter_id) if visit_number else None
        return Understood(tuple(asked), patient=patient, opened=opened)

    def discharged(self) -> Understood:
        """A03: the visit is over."""
        return self._ended(Discharge.type_name())

    def cancelled(self) -> Understood:
        """A11: the visit does not take place."""
        return self._ended(CancelVisit.type_name())

    def _ended(self, type_name: str) -> Understood:
        number, encounter_id = self._visit()
        patient = None if self.patient_id is None else (self.number, self.patient_id)
        return Understood((Asked(type_name, {"encounterId": encounter_id}),), patient=patient, ended=number or None)

    def known_patient(self) -> str:
        """The patient's id. Raises Unacceptable."""
        if self.patient_id is None:
            raise Unacceptable("AE", hl7v2.UNKNOWN_KEY, "PID-3 is not the number of a patient known here")
        return self.patient_id

    def _visit(self) -> tuple[str, str]:
        number = self._visit_number()
        visit = self.known.visit(number) if number else None
        if visit is not None:
            return number, visit.encounter_id
        open_ones = self.known.open_encounters(self.known_patient())
        if len(open_ones) != 1:
            raise Unacceptable("AE", hl7v2.UNKNOWN_KEY, "PV1-19 names no visit known here, nor is just one visit open")
        return number, open_ones[0]

    def _visit_number(self) -> str:
        number, authority = self.message.text("PV1", 19), self.message.text("PV1", 19, 4)
        return "" if number in ("", NULL) else f"{number}^{authority}"

    def _department(self) -> str:
        told = self.message.text("PV1", 3)
        if told in ("", NULL):
            if self.options.department is None:
                raise Unacceptable("AE", hl7v2.REQUIRED_MISSING, "PV1-3.1 names no department")
            return self.options.department
        return self.options.departments.get(told, told)


def _updated(patient_id: str, told: Json, before: Json) -> Asked:
    room = {"roomNumber": before["roomNumber"]} if before.get("roomNumber") else {}
    return Asked(UpdateDemographics.type_name(), {"patientId": patient_id} | told | room)


def _only_registered(reading: _Reading) -> Understood:
    patient_id, asked = reading.registered()
    return Understood(tuple(asked), patient=(reading.number, patient_id))


_EVENTS: Final[dict[str, Callable[[_Reading], Understood]]] = {
    "A01": _Reading.arrived,
    "A03": _Reading.discharged,
    "A04": _Reading.arrived,
    "A08": _Reading.updated,
    "A11": _Reading.cancelled,
    "A28": _only_registered,
    "A31": _Reading.updated,
}
