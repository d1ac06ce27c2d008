"""Healthcare units and patients nobody has ever been: FHIR R4 NDJSON made of syllables, the same for the same seed.

Used by the demo and by tests. What is made here has the shapes of real exports: names with hyphens, apostrophes and
accents, several given names, maiden names, people who have died, records with and without a managing organization.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import orjson

from contracts.envelope import Json

ONSETS = ("b", "br", "d", "dr", "f", "gl", "h", "j", "k", "kr", "l", "m", "n", "pl", "r", "s", "st", "t", "tr", "v")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "io", "á", "ö")
CODAS = ("", "", "", "l", "m", "n", "r", "s", "th", "nd")
PLACES = ("ford", "mouth", "stead", "wick", "haven", "field", "burgh", "dale")
STREETS = ("Road", "Street", "Lane", "Square", "Avenue", "Walk")
KINDS = ("Clinic", "Community Hospital", "Family Practice", "Health Centre", "Surgery", "Children's Clinic")

V2_IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
ORGANIZATION_TYPE = "http://terminology.hl7.org/CodeSystem/organization-type"
TODAY = date(2026, 1, 1)
"""The day the made-up people's ages count from: fixed, so that the same seed gives the same files for ever."""


def organizations(count: int, *, seed: int = 1) -> Iterator[Json]:
    """`count` FHIR Organizations; the first n of a longer run are the same as a run of n."""
    for number in range(count):
        dice = _dice(seed, "organization", number)
        town = _town(dice)
        yield {
            "resourceType": "Organization",
            "id": _id(dice),
            "active": True,
            "type": [{"coding": [{"system": ORGANIZATION_TYPE, "code": "prov", "display": "Healthcare Provider"}]}],
            "name": f"{town} {dice.choice(KINDS)}",
            "telecom": [{"system": "phone", "value": _phone(dice)}],
            "address": [
                {
                    "line": [f"{dice.randint(1, 240)} {_word(dice).title()} {dice.choice(STREETS)}"],
                    "city": town,
                    "postalCode": f"{dice.randint(0, 99999):05d}",
                    "country": "XX",
                }
            ],
        }


def patients(count: int, *, seed: int = 1, managed_by: Sequence[str] = ()) -> Iterator[Json]:
    """`count` FHIR Patients; every second one names a managing organization of `managed_by`, if there are any."""
    for number in range(count):
        dice = _dice(seed, "patient", number)
        gender = dice.choice(("female", "male", "female", "male", "female", "male", "other", "unknown"))
        born = TODAY - timedelta(days=dice.randint(0, 95 * 365))
        town = _town(dice)
        patient: Json = {
            "resourceType": "Patient",
            "id": _id(dice),
            "active": True,
            "identifier": [
                {
                    "type": {"coding": [{"system": V2_IDENTIFIER_TYPE, "code": "MR"}]},
                    "system": "urn:example:carespine:mrn",
                    "value": f"MRN-{seed:02d}{number:06d}",
                }
            ],
            "name": [{"use": "official", "family": _family(dice), "given": _given(dice)}],
            "telecom": [{"system": "phone", "value": _phone(dice), "use": "home"}],
            "gender": gender,
            "birthDate": born.isoformat(),
            "address": [
                {
                    "use": "home",
                    "line": [f"{dice.randint(1, 240)} {_word(dice).title()} {dice.choice(STREETS)}"],
                    "city": town,
                    "postalCode": f"{dice.randint(0, 99999):05d}",
                    "country": "XX",
                }
            ],
        }
        if dice.random() < 0.3:
            patient["telecom"].append({"system": "email", "value": f"person-{number}@example.org"})
        if dice.random() < 0.15:
            patient["name"].append({"use": "maiden", "family": _family(dice), "given": patient["name"][0]["given"]})
        if dice.random() < 0.05:
            died = datetime.combine(
                born + (TODAY - born) * dice.random(), time(dice.randint(0, 23), dice.randint(0, 59))
            )
            patient["deceasedDateTime"] = died.replace(tzinfo=UTC).isoformat()
        if managed_by and number % 2 == 0:
            patient["managingOrganization"] = {"reference": f"Organization/{dice.choice(managed_by)}"}
        yield patient


def write(folder: Path, *, units: int, people: int, seed: int = 1) -> tuple[Path, Path]:
    """Write `Organization.ndjson` and `Patient.ndjson` into the folder and answer their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    houses = list(organizations(units, seed=seed))
    organization_file, patient_file = folder / "Organization.ndjson", folder / "Patient.ndjson"
    _write_lines(organization_file, houses)
    _write_lines(patient_file, patients(people, seed=seed, managed_by=[house["id"] for house in houses]))
    return organization_file, patient_file


def _write_lines(path: Path, resources: Iterator[Json] | list[Json]) -> None:
    with path.open("wb") as file:
        for resource in resources:
            file.write(orjson.dumps(resource) + b"\n")


def _dice(seed: int, what: str, number: int) -> random.Random:
    """Every record has dice of its own, so asking for more of one kind changes none of the others."""
    return random.Random(f"{seed}/{what}/{number}")  # noqa: S311 - repeatable on purpose; protects nothing


def _id(dice: random.Random) -> str:
    return str(UUID(int=dice.getrandbits(128), version=4))


def _word(dice: random.Random, syllables: int = 2) -> str:
    inner = "".join(dice.choice(ONSETS) + dice.choice(VOWELS) for _ in range(syllables - 1))
    return inner + dice.choice(ONSETS) + dice.choice(VOWELS) + dice.choice(CODAS)


def _given(dice: random.Random) -> list[str]:
    return [_word(dice, dice.choice((2, 2, 3))).title() for _ in range(dice.choice((1, 1, 2)))]


def _family(dice: random.Random) -> str:
    name = _word(dice, dice.choice((2, 3))).title()
    match dice.randint(0, 11):
        case 0:
            return f"O'{name}"
        case 1:
            return f"{name}-{_word(dice).title()}"
        case 2:
            return f"van {name}"
        case _:
            return name


def _town(dice: random.Random) -> str:
    return _word(dice).title() + dice.choice(PLACES)


def _phone(dice: random.Random) -> str:
    return f"555-01{dice.randint(0, 99):02d}"  # the block that is kept free for fiction
