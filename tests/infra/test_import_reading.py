"""FHIR R4 NDJSON as it comes: what a line means, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts.ids import UNIT_ID
from contracts.patient import RegisterPatient
from contracts.unit import RegisterUnit, UnitSettings
from infra import synthetic
from infra.fhir.ndjson import MAX_LINE_BYTES, NotUsable, read
from infra.fhir.records import Units, patient_from, unit_from, unit_id_of

SETTINGS = UnitSettings(mrn_pattern="[A-Za-z0-9][A-Za-z0-9-]{0,63}", zone="Europe/Berlin")
UNITS = Units({"org-1": "north-clinic-0a1b2c3d"})
SECRET = "Xylophonius"


def patient(**changed: Any) -> dict[str, Any]:  # Any: JSON
    whole = {
        "resourceType": "Patient",
        "id": "p-1",
        "identifier": [
            {"system": "urn:example:insurance", "value": "A-1"},
            {"type": {"coding": [{"code": "MR"}]}, "value": "001ea705-d3ba"},
        ],
        "name": [
            {"use": "maiden", "family": "Before", "given": ["Old"]},
            {"use": "official", "family": "O'Beavul", "given": ["Trofiol2", "Mid"]},
        ],
        "birthDate": "1945-01-10",
        "gender": "male",
    }
    return {name: value for name, value in (whole | changed).items() if value is not ...}


def registered(**changed: Any) -> RegisterPatient:  # Any: JSON
    command = patient_from(patient(**changed), UNITS, "Europe/Berlin").command
    assert isinstance(command, RegisterPatient)
    return command


def why_not(**changed: Any) -> tuple[str, str | None]:  # Any: JSON
    with pytest.raises(NotUsable) as no:
        patient_from(patient(**changed), UNITS, "Europe/Berlin")
    return no.value.code, no.value.field


def lines_of(tmp_path: Path, content: bytes) -> list[tuple[int, str | None]]:
    path = tmp_path / "Patient.ndjson"
    path.write_bytes(content)
    return [
        (line.number, line.found.code if isinstance(line.found, NotUsable) else None) for line in read(path, "Patient")
    ]


def test_every_unusable_line_is_named_by_its_number_and_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    whole = orjson.dumps(patient())
    content = b"\n".join(
        [
            b"\xef\xbb\xbf" + whole,
            b"",
            b'{"resourceType": "Pat',
            b"[1]",
            b'{"resourceType": "Group"}',
            b"\xff\xfe",
            whole,
        ]
    )
    assert lines_of(tmp_path, content) == [
        (1, None),
        (3, "not_json"),
        (4, "not_an_object"),
        (5, "wrong_resource_type"),
        (6, "not_json"),
        (7, None),
    ]


def test_a_line_longer_than_the_limit_is_passed_over_without_losing_count(tmp_path: Path) -> None:
    content = b'{"x": "' + b"a" * (3 * MAX_LINE_BYTES) + b'"}\n' + orjson.dumps(patient()) + b"\n"
    assert lines_of(tmp_path, content) == [(1, "line_too_long"), (2, None)]


def test_a_unit_id_is_made_of_the_name_and_a_digest_of_the_source_id() -> None:
    assert unit_id_of("St. Ánne's  CLINIC / north & south wing", "x") == "st-anne-s-clinic-north-south-2d711642"
    assert unit_id_of("日本", "x") == "unit-2d711642"
    assert UNIT_ID.fullmatch(unit_id_of("W" * 300, "x"))


def test_an_organization_becomes_a_unit_with_its_type_address_and_the_settings_asked_for() -> None:
    (house,) = synthetic.organizations(1)
    record = unit_from(house, SETTINGS)
    assert isinstance(record.command, RegisterUnit)
    assert record.command.kind == "prov"
    assert record.command.source_id == house["id"]
    assert record.command.settings == SETTINGS
    assert record.command.address is not None
    assert record.command.address.city == house["address"][0]["city"]


def test_a_patient_keeps_number_first_given_and_official_family_name() -> None:
    command = registered()
    assert command.medical_record_number == "001ea705-d3ba"
    assert (command.first_name, command.last_name) == ("Trofiol2", "O'Beavul")


def test_a_day_of_death_without_a_time_begins_in_the_units_zone() -> None:
    died = registered(deceasedDateTime="2021-07-01").deceased_at
    assert died is not None
    assert died.isoformat() == "2021-07-01T00:00:00+02:00"
    assert registered(deceasedDateTime="2021-07-01T10:00:00Z").deceased_at is not None


def test_telecom_and_address_become_the_contact_but_for_old_ones() -> None:
    contact = registered(
        telecom=[
            {"system": "phone", "use": "old", "value": "1"},
            {"system": "phone", "value": "2"},
            {"system": "email", "value": "p@example.org"},
        ],
        address=[{"use": "old", "city": "Gone"}, {"line": ["1 Lane", "Flat 2"], "city": "Petrafield", "country": "XX"}],
    ).contact
    assert contact is not None
    assert contact.to_dict() == {
        "phone": "2",
        "email": "p@example.org",
        "line": "1 Lane, Flat 2",
        "city": "Petrafield",
        "country": "XX",
    }


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"id": ...}, "missing_field", "id"),
        ({"id": "a b"}, "not_valid", "id"),
        ({"active": False}, "not_active", "active"),
        ({"identifier": ...}, "missing_field", "identifier"),
        ({"name": ...}, "missing_field", "name.given"),
        ({"name": [{"family": SECRET}]}, "missing_field", "name.given"),
        ({"name": [{"family": SECRET * 9, "given": ["A"]}]}, "too_long", "name.family"),
        ({"name": [{"family": "A", "given": SECRET}]}, "not_valid", "name.given"),
        ({"name": SECRET}, "not_valid", "name"),
        ({"birthDate": ...}, "missing_field", "birthDate"),
        ({"birthDate": "1945"}, "date_not_complete", "birthDate"),
        ({"birthDate": "10.01.1945"}, "not_valid", "birthDate"),
        ({"birthDate": "1945-02-30"}, "not_valid", "birthDate"),
        ({"birthDate": 1945}, "not_valid", "birthDate"),
        ({"gender": SECRET}, "not_valid", "gender"),
        ({"telecom": [{"system": "phone", "value": "5" * 41}]}, "too_long", "telecom"),
        ({"address": [{"city": SECRET * 20}]}, "too_long", "address.city"),
        ({"deceasedBoolean": True}, "moment_of_death_missing", "deceasedBoolean"),
        ({"deceasedDateTime": "2021"}, "date_not_complete", "deceasedDateTime"),
        ({"deceasedDateTime": "2021-07-01T10:00:00"}, "not_valid", "deceasedDateTime"),
        ({"managingOrganization": {"reference": "Organization/other"}}, "unknown_organization", "managingOrganization"),
        ({"managingOrganization": {"display": SECRET}}, "not_valid", "managingOrganization"),
    ],
)
def test_what_does_not_fit_is_told_by_field_and_never_by_value(
    changed: dict[str, Any],
    code: str,
    field: str,  # Any: JSON
) -> None:
    assert why_not(**changed) == (code, field)
    with pytest.raises(NotUsable) as no:
        patient_from(patient(**changed), UNITS, "Europe/Berlin")
    assert SECRET not in repr(no.value)
    assert no.value.__cause__ is None


@pytest.mark.parametrize(
    "reference",
    [
        "Organization/org-1",
        "https://fhir.example.org/r4/Organization/org-1/_history/3",
        "Organization?identifier=https://example.org|org-1",
    ],
)
def test_the_managing_organization_is_found_however_it_is_written(reference: str) -> None:
    record = patient_from(patient(managingOrganization={"reference": reference}), UNITS, "UTC")
    assert record.unit_id == "north-clinic-0a1b2c3d"


def test_the_same_record_has_the_same_ids_and_key_and_a_changed_one_another_key() -> None:
    first, again = (patient_from(patient(), UNITS, "UTC") for _ in range(2))
    changed = patient_from(patient(birthDate="1946-01-10"), UNITS, "UTC")
    assert first == again
    assert first.key == again.key != changed.key
    assert first.command.to_dict()["patientId"] == changed.command.to_dict()["patientId"]


def test_patients_without_an_organization_are_spread_by_their_id_and_stay_where_they_are() -> None:
    units = Units({f"org-{number}": f"unit-{number:03d}" for number in range(100)})
    spread = {units.for_stray(f"patient-{number}") for number in range(1000)}
    assert len(spread) == 100
    assert units.for_stray("patient-7") == units.for_stray("patient-7")
    assert Units({}).for_stray("patient-7") is None
    assert Units({}, stray="the-one").for_stray("patient-7") == "the-one"


def test_synthetic_records_are_all_usable_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    organizations, patients = synthetic.write(tmp_path / "a", units=20, people=500, seed=3)
    again = synthetic.write(tmp_path / "b", units=20, people=500, seed=3)
    assert [path.read_bytes() for path in again] == [organizations.read_bytes(), patients.read_bytes()]
    records = [
        unit_from(line.found, SETTINGS) for line in read(organizations, "Organization") if isinstance(line.found, dict)
    ]
    units = Units({record.source_id: record.unit_id for record in records})
    people = [
        patient_from(line.found, units, "UTC") for line in read(patients, "Patient") if isinstance(line.found, dict)
    ]
    assert len(records) == 20
    assert len(people) == 500
    assert {person.unit_id for person in people} == {record.unit_id for record in records}
