"""One example of every word, every field filled: what the golden files were made from (`tests.contracts.golden`).

A field means the same wherever it has the same name, so an example is given once for a name; where it does not, for
`Class.name`.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, Final

from contracts import dead_letter, envelope, frames, live_call
from contracts.catalogue import COMMANDS, EVENTS
from contracts.model import Model

PATIENT = "0195a000-0000-7000-8000-00000000000a"
VISIT = "0195a000-0000-7000-8000-0000000000e1"
ENTRY = "0195a000-0000-7000-8000-0000000000f1"
NEW_ENTRY = "0195a000-0000-7000-8000-0000000000f2"
COMMAND = "0195a000-0000-7000-8000-0000000000c1"
LETTER = "0195a000-0000-7000-8000-0000000000d1"
MORNING = "2025-03-03T08:00:00Z"
LATER = "2025-03-03T09:00:00.250Z"

SETTINGS = {"zone": "Europe/Berlin", "currency": "EUR", "mrnPattern": "[0-9]{6}", "ageingMinutes": 20}
FACT = {
    "position": 42,
    "type": "queue.PatientCalled",
    "version": 1,
    "stream": "queue-north-clinic.general.2025-03-03",
    "streamVersion": 7,
    "commandId": COMMAND,
    "occurredAt": MORNING,
    "recordedAt": LATER,
    "payload": {"ticket": 17},
    "erased": True,
}
OUTCOME = {
    "commandId": COMMAND,
    "type": "queue.CallNext",
    "unitId": "north-clinic",
    "status": "refused",
    "code": "queue_empty",
    "detail": "Nobody is waiting in this queue.",
    "about": {"department": "general"},
    "result": {"ticket": 17},
    "partition": 3,
    "position": 42,
    "deadLetterId": LETTER,
    "repeated": True,
}

BY_NAME: Final[dict[str, Any]] = {  # Any: JSON values, and JSON names where they are objects
    "about": OUTCOME["about"],
    "actor": {"subject": "desk-1", "role": "receptionist", "unit": "north-clinic"},
    "account": "dr-7",
    "account_id": LETTER,
    "acuity": 2,
    "address": {"line": "1 North St", "city": "Northam", "state": "NH", "postal_code": "N1 1NN", "country": "GB"},
    "after": 41,
    "after_seconds": 2.5,
    "agent_version": "0.1.0",
    "assignee": "nurse-4",
    "away_seconds": 480,
    "business_status": "waiting-for-lab",
    "cause": {"commandId": COMMAND, "commandType": "queue.CallNext", "code": "entry_not_waiting", "issuedAt": MORNING},
    "command_type": "queue.CallNext",
    "description": "ask after the cough",
    "draft": True,
    "due_at": LATER,
    "notes": "spoke to her",
    "outcome": "done",
    "since": MORNING,
    "applied": True,
    "arrived_at": MORNING,
    "assertion": "e30.e30.signature",
    "base64": True,
    "attempt": 2,
    "basis": "person-asked",
    "block_id": LETTER,
    "body": {"since": 5},
    "by": ENTRY,
    "call_id": COMMAND,
    "causation_id": COMMAND,
    "code": "out-of-stock",
    "code_hash": "5f" * 32,
    "code_version": "0.1.0",
    "command": "queue.CallNext",
    "command_id": COMMAND,
    "command_ids": [COMMAND, LETTER],
    "confirm": True,
    "confirmed": True,
    "contact": {
        "phone": "+44 20 7946 0000",
        "email": "a@example.org",
        "line": "1 North St",
        "city": "Northam",
        "state": "NH",
        "postal_code": "N1 1NN",
        "country": "GB",
    },
    "correlation_id": "c-1",
    "counter": "Room 3",
    "credential_expires_at": LATER,
    "date_of_birth": "1980-02-29",
    "dead_letter_id": LETTER,
    "deadline": LATER,
    "deceased_at": MORNING,
    "decided_at": MORNING,
    "department": "general",
    "detail": OUTCOME["detail"],
    "display": "Radiology",
    "encounter_class": "EMER",
    "encounter_id": VISIT,
    "ends_at": LATER,
    "entry_id": ENTRY,
    "epoch": 5,
    "erased": True,
    "error_stack": "command_handlers/deciding.py:57 decide",
    "error_type": "KeyError",
    "expected_version": 6,
    "hold_id": LETTER,
    "expires_at": LATER,
    "facts": [FACT],
    "failed_at": LATER,
    "fingerprint": "5f2a",
    "first_name": "Anaba",
    "gender": "female",
    "grace_seconds": 3600,
    "head": 42,
    "heartbeat_seconds": 20.0,
    "instance": LETTER,
    "issued_at": MORNING,
    "key_id": "0123456789abcdef" * 2,
    "kind": "prov",
    "last": True,
    "last_name": "O'Testa",
    "late": True,
    "letter_id": LETTER,
    "max_frame_bytes": 262144,
    "medical_record_number": "MRN-1",
    "message": "{}",
    "name": "North Clinic",
    "new_entry_id": NEW_ENTRY,
    "not_before": LATER,
    "note": "pale",
    "occurred_at": MORNING,
    "ok": True,
    "counts": {"patients": 1},
    "on_reconnect": "revalidate",
    "origin": "unit",
    "outcomes": [OUTCOME],
    "part": 2,
    "partition": 3,
    "patient_id": PATIENT,
    "payload": {"code": "24323-8", "times": [1, 2.5], "sample": None},
    "position": 42,
    "practitioner_id": "dr-7",
    "priority": "urgent",
    "public_key": "A" * 43 + "=",
    "queue_entry_id": ENTRY,
    "reason": "a cough",
    "reason_code": "left",
    "recorded_at": LATER,
    "records": [{"kind": "patient", "body": {"patientId": PATIENT}}],
    "repeated": True,
    "replay": {"letterId": LETTER, "runId": COMMAND},
    "replaced_until": LATER,
    "replaces": "fedcba9876543210" * 2,
    "reply_to": "replies.gateway-1",
    "request_hash": "9f86d081",
    "resolution": "applied late",
    "result": {"order": "A-1"},
    "retry_after_seconds": 3.0,
    "role": "nurse",
    "roles": ["nurse"],
    "room": "12b",
    "room_number": "12b",
    "run_id": COMMAND,
    "schema_version": 1,
    "seq": 2,
    "server_time": LATER,
    "service_day": "2025-03-03",
    "settings": SETTINGS,
    "snapshot_beyond": 50000,
    "source_id": "org-7",
    "starts_at": MORNING,
    "status": "refused",
    "stream": FACT["stream"],
    "stream_version": 7,
    "subject": "desk-1",
    "supersede_key": "price-list",
    "supersedes": ENTRY,
    "task_id": LETTER,
    "through": 42,
    "ticket": 17,
    "title": "Call back",
    "to_department": "radiology",
    "token": "e30.e30.signature",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "transferred_from": ENTRY,
    "type": "orders.place",
    "type_version": 1,
    "unit_command_id": COMMAND,
    "unit_id": "north-clinic",
    "version": 1,
    "window": 500,
}
BY_CLASS: Final[dict[str, Any]] = {  # Any: as above
    "Bye.code": 4429,
    "Bye.reason": "too many connections at once",
    "Call.name": "waiting-room",
    "DeadLetter.origin": "commands.p03",
    "DeadLetter.reason": "bug",
    "LiveCall.name": "waiting-room",
    "SnapshotRecord.kind": "patient",
    "CreateTask.kind": "call-back",
    "TaskCreated.kind": "call-back",
    "TaskCreated.status": "received",
    "TaskResumed.status": "in-progress",
}

WIRE: Final[tuple[ModuleType, ...]] = (envelope, dead_letter, live_call, frames)
"""Modules whose models travel or are kept besides commands and events."""


def words() -> dict[str, type[Model]]:
    """Every class that has golden files, by the name of its files without version."""
    found: dict[str, type[Model]] = {**COMMANDS, **EVENTS}
    for module in WIRE:
        for name, word in inspect.getmembers(module, inspect.isclass):
            if issubclass(word, Model) and word.__module__ == module.__name__:
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = word
    return found


def version_of(word: type[Model]) -> int:
    """The version at which the class is written today."""
    return int(getattr(word, "version", 1))


def example(word: type[Model]) -> dict[str, Any]:  # Any: a JSON object
    """The word as JSON with every field filled; fails with a KeyError for a field that has no example yet."""
    filled = {}
    for name, field in word.model_fields.items():
        own = f"{word.__name__}.{name}"
        if name == "type" and not field.is_required():
            continue  # a frame is named by its type
        filled[name] = BY_CLASS[own] if own in BY_CLASS else BY_NAME[name]
    return word.model_validate(filled).to_dict()
