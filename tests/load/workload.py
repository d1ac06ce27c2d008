"""The work all contestants do: check-ins at 500 units, the same requests in the same order for each.

A check-in wants a registered patient with no open visit of its class and no place in the department's queue, so
patients are many and each is checked in once for each class, each time in another department.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_OID, UUID, uuid5

CLASSES = ("AMB", "EMER", "IMP")
DEPARTMENTS = ("general-medicine", "cardiology", "radiology", "paediatrics")
PRIORITIES = ("routine", "routine", "routine", "urgent", "routine", "asap")
ROLE = "receptionist"


@dataclass(frozen=True)
class Errand:
    """One request to be made: at which unit, with what body."""

    unit: str
    body: bytes


def units(count: int) -> list[str]:
    """Unit ids."""
    return [f"bench-{number:04d}" for number in range(count)]


def person(number: int) -> dict[str, str]:
    """What is registered of a patient; made of numbers, so it is nobody's."""
    return {
        "firstName": f"Given{number}",
        "lastName": f"Family{number}",
        "dateOfBirth": f"19{number % 90 + 10}-0{number % 9 + 1}-1{number % 10}",
        "medicalRecordNumber": f"MRN-{number:06d}",
    }


def stand_in(unit: str, number: int) -> UUID:
    """A patient's id for a contestant that does not know its patients."""
    return uuid5(NAMESPACE_OID, f"{unit}/{number}")


def check_ins(patients: Sequence[tuple[str, UUID]], *, classes: Sequence[str] = CLASSES) -> list[Errand]:
    """One check-in for each patient and class, units taking turns as `patients` do."""
    return [
        Errand(
            unit,
            json.dumps(
                {
                    "patientId": str(patient),
                    "department": DEPARTMENTS[(number // 7 + visit) % len(DEPARTMENTS)],
                    "priority": PRIORITIES[number % len(PRIORITIES)],
                    "reason": "synthetic arrival of the benchmark",
                    "encounterClass": encounter_class,
                },
                separators=(",", ":"),
            ).encode(),
        )
        for visit, encounter_class in enumerate(classes)
        for number, (unit, patient) in enumerate(patients)
    ]


def rendered(
    errands: Sequence[Errand], *, path: str, token: Callable[[str], str], headers: Sequence[str] = ()
) -> list[bytes]:
    """The errands as whole HTTP requests, each with its unit's token."""
    heads: dict[str, bytes] = {}
    requests = []
    for errand in errands:
        head = heads.get(errand.unit)
        if head is None:
            lines = [
                f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token(errand.unit)}",
                "Content-Type: application/json", *headers, "Content-Length: ",
            ]  # fmt: skip
            head = heads[errand.unit] = "\r\n".join(lines).encode()
        requests.append(b"%b%d\r\n\r\n%b" % (head, len(errand.body), errand.body))
    return requests
