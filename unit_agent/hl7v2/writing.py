"""ADT messages of our own: what the centre tells of a person or a visit, as a receiver at the site reads it. Pure."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.envelope import Json
from unit_agent.hl7v2 import person
from unit_agent.hl7v2.message import escaped, stamp, written
from unit_agent.hl7v2.options import Send

CHARSET: Final = "UNICODE UTF-8"
_CLASSES: Final = {"EMER": "E", "IMP": "I", "AMB": "O"}
_ADMISSION: Final = {"stat": "E", "urgent": "U", "asap": "U", "routine": "R"}
_ABOUT_A_VISIT: Final = frozenset({"A01", "A02", "A03", "A04", "A08", "A11", "A12", "A13"})


def control_id_of_fact(position: int) -> str:
    """MSH-10 of a fact: the same whenever it is sent, also by a store that began anew."""
    return f"F{position}"


def control_id_of_order(order_id: UUID, attempt: int = 1) -> str:
    """MSH-10 of a unit command, the same however often it is sent; 20 characters, which every version allows.

    Another only when the centre has it tried again after a no: a receiver that knows the old one would say no again.
    """
    salt = b"" if attempt == 1 else str(attempt).encode()
    return "C" + base64.b32encode(hashlib.sha256(order_id.bytes + salt).digest()).decode("ascii")[:19]


def adt(
    event: str,
    patient: Json,
    encounter: Json | None,
    *,
    control_id: str,
    occurred_at: datetime,
    now: datetime,
    unit_id: str,
    options: Send,
) -> str:
    """The message. `patient` and `encounter` are as the caches have them (`id` and further fields, camelCase).

    An arrival of an inpatient is A01 where A04 is asked for.
    """
    visit = encounter or {}
    if event == "A04" and visit.get("encounterClass") == "IMP":
        event = "A01"
    header = {
        3: escaped(options.application),
        4: escaped(options.facility or unit_id),
        5: escaped(options.to_application),
        6: escaped(options.to_facility),
        7: stamp(now),
        9: f"ADT^{event}^{_structure(event)}" if options.version >= "2.3.1" else f"ADT^{event}",
        10: control_id,
        11: "P",
        12: options.version,
        18: CHARSET,
    }
    happened = {1: event, 2: stamp(now), 6: stamp(occurred_at)}
    segments: list[tuple[str, dict[int, str]]] = [
        ("MSH", header),
        ("EVN", happened),
        ("PID", person.segment(patient, str(patient["id"]), options.numbering)),
        ("PV1", _visit(event, visit, patient, occurred_at)),
    ]
    if visit.get("reason"):
        segments.append(("PV2", {3: f"^{escaped(visit['reason'])}"}))
    return written(*segments)


def _visit(event: str, visit: Json, patient: Json, occurred_at: datetime) -> dict[int, str]:
    if event not in _ABOUT_A_VISIT or not visit:
        return {1: "1", 2: "N"}
    room = visit.get("room") or patient.get("roomNumber")
    fields = {
        1: "1",
        2: _CLASSES.get(str(visit.get("encounterClass")), "O"),
        3: f"{escaped(visit.get('department'))}^{escaped(room)}".rstrip("^"),
        4: _ADMISSION.get(str(visit.get("priority")), ""),
        19: f"{escaped(visit.get('id'))}^^^CARESPINE^VN",
    }
    if visit.get("arrivedAt"):
        fields[44] = stamp(datetime.fromisoformat(str(visit["arrivedAt"])))
    if event == "A03":
        fields[45] = stamp(occurred_at)
    return fields


def _structure(event: str) -> str:
    return {"A01": "ADT_A01", "A04": "ADT_A01", "A08": "ADT_A01", "A13": "ADT_A01", "A28": "ADT_A05", "A31": "ADT_A05",
            "A11": "ADT_A09", "A12": "ADT_A09"}.get(event, f"ADT_{event}")  # fmt: skip
