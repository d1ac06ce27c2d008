"""What a FHIR R4 Organization or Patient means here: the command that registers it, and the ids that follow from it.

Pure: the same record gives the same command, ids and key each time, which makes an import repeatable. The rules:

- A unit's id is its name in lower case, everything but letters and digits as one dash, cut to 28 characters, then a
  dash and the first 8 hex digits of the SHA-256 of the organization's id.
- A patient's id is the name-based UUID (version 5, RFC 9562) of unit and source id.
- A patient belongs to the managing organization; one without any to the unit at `SHA-256(patient's id) % number of
  units` of the imported units, sorted by id.
- The medical record number is the identifier of type `MR`, as it is.
- The official name counts, else the first that is not old, maiden or a nickname: first given name and family name.
- Somebody who has died needs the moment (`deceasedDateTime`); a day without a time is that day's beginning in the zone.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TypeVar
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from contracts.envelope import Json
from contracts.ids import PatientId
from contracts.model import Command, Model
from contracts.patient import Contact, RegisterPatient
from contracts.unit import RegisterUnit, UnitAddress, UnitSettings
from infra.fhir.ndjson import NotUsable

FHIR_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
PARTIAL_DATE = re.compile(r"\d{4}(-\d{2})?")
REFERENCE = re.compile(r"(?:.*/)?Organization/([A-Za-z0-9.-]{1,64})(?:/_history/.*)?|urn:uuid:([0-9a-fA-F-]{36})")
SLUG_LENGTH = 28
NAMES_PASSED_BY = frozenset({"old", "maiden", "nickname", "anonymous"})

_WHERE = {
    "firstName": "name.given",
    "lastName": "name.family",
    "dateOfBirth": "birthDate",
    "medicalRecordNumber": "identifier",
    "sourceId": "id",
    "contact.phone": "telecom",
    "contact.email": "telecom",
    "kind": "type",
}
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Record:
    """One source record as a command for one unit."""

    unit_id: str
    source_id: str
    command: Command

    @property
    def key(self) -> str:
        """The Idempotency-Key: the same for the same content, another once the source record has changed."""
        return f"import-{hashlib.sha256(self.command.to_json()).hexdigest()[:40]}"


class Units:
    """The imported units: whose organization is which, and where a patient without one belongs."""

    def __init__(self, by_organization: Mapping[str, str], *, stray: str | None = None) -> None:
        """`stray`: the one unit for all patients without a managing organization, instead of spreading them."""
        self._by_organization = dict(by_organization)
        self._sorted = [stray] if stray else sorted(set(by_organization.values()))

    def of(self, organization_id: str) -> str | None:
        """The unit of an organization, or None when it is not among the imported ones."""
        return self._by_organization.get(organization_id)

    def for_stray(self, patient_source_id: str) -> str | None:
        """The unit of a patient without a managing organization; None when there is no unit at all."""
        if not self._sorted:
            return None
        number = int.from_bytes(hashlib.sha256(patient_source_id.encode()).digest(), "big")
        return self._sorted[number % len(self._sorted)]


def unit_id_of(name: str, source_id: str) -> str:
    """`St. Anne's Clinic` with id `…` -> `st-anne-s-clinic-3f2a91c0`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].rstrip("-") or "unit"
    return f"{slug}-{hashlib.sha256(source_id.encode()).hexdigest()[:8]}"


def unit_from(organization: Json, settings: UnitSettings) -> Record:
    """The registration of an Organization as a unit; `NotUsable` says why not."""
    source_id = _source_id(organization)
    if organization.get("active") is False:
        raise NotUsable("not_active", "active")
    name = _text(organization, "name")
    if name is None:
        raise NotUsable("missing_field", "name")
    unit_id = unit_id_of(name, source_id)
    address = next(_objects(organization, "address"), None)
    command = _checked(
        RegisterUnit,
        {
            "name": name,
            "kind": _organization_type(organization),
            "sourceId": source_id,
            "address": None if address is None else _checked(UnitAddress, _address(address), "address.").to_dict(),
            "settings": settings.to_dict(),
        },
    )
    return Record(unit_id, source_id, command)


def patient_from(patient: Json, units: Units, zone: str) -> Record:
    """The registration of a Patient at the unit it belongs to; `NotUsable` says why not."""
    source_id = _source_id(patient)
    if patient.get("active") is False:
        raise NotUsable("not_active", "active")
    unit_id = _unit_of(patient, source_id, units)
    first_name, last_name = _name(patient)
    command = _checked(
        RegisterPatient,
        {
            "patientId": str(PatientId(uuid5(NAMESPACE_URL, f"urn:carespine:unit:{unit_id}:patient:{source_id}"))),
            "medicalRecordNumber": _medical_record_number(patient),
            "firstName": first_name,
            "lastName": last_name,
            "dateOfBirth": _birth_date(patient),
            "gender": _text(patient, "gender") or "unknown",
            "contact": _contact(patient),
            "sourceId": source_id,
            "deceasedAt": _deceased_at(patient, zone),
        },
    )
    return Record(unit_id, source_id, command)


def _unit_of(patient: Json, source_id: str, units: Units) -> str:
    managing = patient.get("managingOrganization")
    unit_id = units.for_stray(source_id) if managing is None else units.of(_organization_named(managing))
    if unit_id is None:
        raise NotUsable("unknown_organization", "managingOrganization")
    return unit_id


def _organization_named(managing: object) -> str:
    """The organization id in a reference; bulk exports also write `Organization?identifier=<system>|<id>`."""
    reference = managing.get("reference") if isinstance(managing, dict) else None
    if isinstance(reference, str):
        if reference.startswith("Organization?identifier="):
            return reference.rpartition("|")[2]
        if named := REFERENCE.fullmatch(reference):
            return named[1] or named[2]
    raise NotUsable("not_valid", "managingOrganization")


def _source_id(resource: Json) -> str:
    source_id = _text(resource, "id")
    if source_id is None:
        raise NotUsable("missing_field", "id")
    if not FHIR_ID.fullmatch(source_id):
        raise NotUsable("not_valid", "id")
    return source_id


def _organization_type(organization: Json) -> str:
    for concept in _objects(organization, "type"):
        for coding in _objects(concept, "coding", "type.coding"):
            if code := _text(coding, "code", "type.coding.code"):
                return code
    return "prov"


def _medical_record_number(patient: Json) -> str | None:
    for identifier in _objects(patient, "identifier"):
        concept = identifier.get("type")
        codings = _objects(concept, "coding", "identifier.type") if isinstance(concept, dict) else iter(())
        if any(coding.get("code") == "MR" for coding in codings):
            return _text(identifier, "value", "identifier.value")
    return None


def _name(patient: Json) -> tuple[str | None, str | None]:
    names = [name for name in _objects(patient, "name") if name.get("use") not in NAMES_PASSED_BY]
    name = next((name for name in names if name.get("use") == "official"), names[0] if names else {})
    given = name.get("given") or []
    if not isinstance(given, list):
        raise NotUsable("not_valid", "name.given")
    return (given[0] if given else None), _text(name, "family", "name.family")


def _birth_date(patient: Json) -> str | None:
    born = _text(patient, "birthDate")
    if born and PARTIAL_DATE.fullmatch(born):
        raise NotUsable("date_not_complete", "birthDate")
    if born and not FULL_DATE.fullmatch(born):
        raise NotUsable("not_valid", "birthDate")
    return born


def _deceased_at(patient: Json, zone: str) -> str | None:
    died = _text(patient, "deceasedDateTime")
    if died is None:
        if patient.get("deceasedBoolean") is True:
            raise NotUsable("moment_of_death_missing", "deceasedBoolean")
        return None
    if PARTIAL_DATE.fullmatch(died):
        raise NotUsable("date_not_complete", "deceasedDateTime")
    try:
        if FULL_DATE.fullmatch(died):
            return datetime.combine(date.fromisoformat(died), time(), ZoneInfo(zone)).isoformat()
        moment = datetime.fromisoformat(died)
    except ValueError:
        raise NotUsable("not_valid", "deceasedDateTime") from None
    if moment.tzinfo is None:
        raise NotUsable("not_valid", "deceasedDateTime")
    return moment.isoformat()


def _contact(patient: Json) -> Json | None:
    points = [point for point in _objects(patient, "telecom") if point.get("use") != "old"]
    addresses = [address for address in _objects(patient, "address") if address.get("use") != "old"]
    contact = _address(addresses[0]) if addresses else {}
    for system, name in (("phone", "phone"), ("email", "email")):
        value = next((_text(point, "value", "telecom") for point in points if point.get("system") == system), None)
        if value:
            contact[name] = value
    return _checked(Contact, contact, "contact.").to_dict() if contact else None


def _address(address: Json) -> Json:
    lines = address.get("line") or []
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise NotUsable("not_valid", "address.line")
    found = {"line": ", ".join(lines) or None}
    for name in ("city", "state", "postalCode", "country"):
        found[name] = _text(address, name, f"address.{name}")
    return {name: value for name, value in found.items() if value}


def _text(resource: Json, name: str, where: str | None = None) -> str | None:
    """A string element; None where it is absent or blank."""
    value = resource.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise NotUsable("not_valid", where or name)
    return value.strip() or None


def _objects(resource: Json, name: str, where: str | None = None) -> Iterator[Json]:
    """The objects of a repeating element; none where it is absent."""
    values = resource.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise NotUsable("not_valid", where or name)
    return iter(values)


def _checked(model: type[M], fields: Json, prefix: str = "") -> M:
    """The value, or `NotUsable` naming the first field that does not fit (and not what stood in it)."""
    try:
        return model.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as trouble:
        first = trouble.errors(include_url=False, include_context=False, include_input=False)[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    code = {"missing": "missing_field", "string_too_long": "too_long", "string_too_short": "missing_field"}
    raise NotUsable(code.get(first["type"], "not_valid"), _WHERE.get(where, where.replace("contact.", "address.")))
