"""Answers to questions as the documentation shows them; a test holds each against its schema. Nobody here exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from contracts.envelope import Json
from gateway.commands import ENCOUNTER, ENTRY, PATIENT, SETTINGS, TASK, UNIT_COMMAND
from gateway.erasure_example import REPORT

_AT: Final = "2026-11-20T09:00:00Z"
_LETTER_ID: Final = "01996a40-2b6d-5e11-a0c9-1d77f2b94e60"
_RUN_ID: Final = "01996a41-90c2-7b3f-8a55-e04d6c19f7a3"
COMMAND_ID: Final = "01996a2f-0b11-8c4e-9d3a-6f70c2a915d8"


def _page(item: Json) -> Json:
    return {"items": [item], "nextCursor": "YXwwMTk5NmEyZQ", "total": None}


_PATIENT: Final[Json] = {
    "id": PATIENT,
    "unitId": "clinic-001",
    "medicalRecordNumber": "MRN-20481",
    "firstName": "Ana",
    "lastName": "Example",
    "dateOfBirth": "1984-02-29",
    "gender": "female",
    "contact": {"city": "Berlin", "country": "DE"},
    "roomNumber": "12A",
    "sourceId": None,
    "status": "active",
    "deceasedAt": None,
    "erased": False,
    "version": 3,
    "registeredAt": _AT,
    "updatedAt": _AT,
}
_ENCOUNTER: Final[Json] = {
    "id": ENCOUNTER,
    "unitId": "clinic-001",
    "patientId": PATIENT,
    "queueEntryId": ENTRY,
    "department": "general-medicine",
    "priority": "urgent",
    "encounterClass": "AMB",
    "status": "triaged",
    "open": True,
    "practitionerId": None,
    "reason": "persistent cough",
    "acuity": 3,
    "triageNote": "stable",
    "room": "3",
    "closingNote": None,
    "erased": False,
    "version": 4,
    "arrivedAt": _AT,
    "startedAt": None,
    "endedAt": None,
}
_ENTRY: Final[Json] = {
    "id": ENTRY,
    "patientId": PATIENT,
    "encounterId": ENCOUNTER,
    "ticket": 17,
    "priority": "urgent",
    "status": "waiting",
    "place": 1,
    "waitedSeconds": 312.5,
    "counter": None,
    "calls": 0,
    "arrivedAt": _AT,
    "calledAt": None,
    "startedAt": None,
    "endedAt": None,
    "transferredFrom": None,
    "transferredTo": None,
    "firstName": None,
    "lastName": None,
    "medicalRecordNumber": None,
}
_UNIT: Final[Json] = {
    "id": "clinic-001",
    "name": "Example Clinic",
    "kind": "prov",
    "sourceId": None,
    "address": {"city": "Berlin", "country": "DE"},
    "settings": SETTINGS,
    "status": "active",
    "statusReason": None,
    "reachable": True,
    "unreachableSince": None,
    "version": 2,
    "registeredAt": _AT,
    "updatedAt": _AT,
}
_UNIT_COMMAND: Final[Json] = {
    "id": UNIT_COMMAND,
    "unitId": "clinic-001",
    "type": "orders.place",
    "patientId": PATIENT,
    "deadline": "2026-11-21T09:00:00Z",
    "onReconnect": "revalidate",
    "status": "applied",
    "code": None,
    "result": {"orderNumber": "7731"},
    "lateReport": None,
    "erased": False,
    "version": 2,
    "queuedPosition": 4711,
    "queuedAt": _AT,
    "settledAt": _AT,
    "attempt": 1,
    "supersedeKey": "blood-count",
    "supersededBy": None,
}
_TASK: Final[Json] = {
    "id": TASK,
    "unitId": "clinic-001",
    "kind": "conflict",
    "status": "requested",
    "open": True,
    "title": None,
    "description": None,
    "patientId": PATIENT,
    "encounterId": ENCOUNTER,
    "department": "general-medicine",
    "priority": "routine",
    "assignee": None,
    "dueAt": None,
    "overdue": False,
    "businessStatus": None,
    "cause": {
        "commandId": COMMAND_ID,
        "commandType": "queue.CallNext",
        "code": "entry_not_waiting",
        "issuedAt": _AT,
    },
    "outcome": None,
    "lastWords": None,
    "erased": False,
    "version": 1,
    "createdPosition": 4711,
    "createdAt": _AT,
    "startedAt": None,
    "endedAt": None,
}
_LETTER: Final[Json] = {
    "letterId": _LETTER_ID,
    "commandId": COMMAND_ID,
    "unitId": "clinic-001",
    "partition": 11,
    "stream": f"encounter-{ENCOUNTER}",
    "blockId": _LETTER_ID,
    "seq": 0,
    "type": "encounter.Triage",
    "reason": "bug",
    "errorType": "KeyError",
    "errorStack": "encounter.py:140 decide",
    "fingerprint": "5f0c1b9e",
    "origin": "commands.p11",
    "attempts": 1,
    "codeVersion": "0.1.0",
    "status": "open",
    "resolution": None,
    "envelope": {"commandId": COMMAND_ID, "type": "encounter.Triage", "unitId": "clinic-001"},
    "firstFailedAt": _AT,
    "lastFailedAt": _AT,
    "filedAt": _AT,
    "followers": 2,
}
_RUN: Final[Json] = {
    "runId": _RUN_ID,
    "requestedBy": "operator-1",
    "reason": "the handler was repaired in 0.1.1",
    "status": "done",
    "requestedAt": _AT,
    "finishedAt": _AT,
    "letters": 1,
    "settled": 1,
}

_STAFF: Final[Json] = {
    "id": "01996a37-2b84-7c19-8e53-7f0d4c6a1b25",
    "status": "active",
    "roles": ["nurse"],
    "invitedAt": _AT,
    "expiresAt": _AT,
    "activatedAt": _AT,
    "suspendedAt": None,
    "suspendedBecause": None,
}

ANSWERS: Final[Mapping[str, Any]] = {  # Any: JSON
    "GET /api/patients": _page(_PATIENT),
    "POST /api/patients/search": _page(_PATIENT),
    "GET /api/patients/{patient_id}": _PATIENT,
    "GET /api/patients/{patient_id}/erasure": REPORT,
    "GET /api/patients/{patient_id}/encounters": _page(_ENCOUNTER),
    "GET /api/patients/{patient_id}/tasks": _page(_TASK),
    "GET /api/tasks": _page(_TASK),
    "GET /api/tasks/{task_id}": _TASK,
    "GET /api/encounters": _page(_ENCOUNTER),
    "GET /api/encounters/{encounter_id}": _ENCOUNTER,
    "GET /api/notifications": _page(
        {
            "position": 4712,
            "unitId": "clinic-001",
            "department": "general-medicine",
            "encounterId": ENCOUNTER,
            "patientId": PATIENT,
            "queueEntryId": ENTRY,
            "priority": "urgent",
            "practitionerId": None,
            "notifiedAt": _AT,
        }
    ),
    "GET /api/queues": {
        "unitId": "clinic-001",
        "serviceDay": "2026-11-20",
        "at": _AT,
        "departments": [
            {
                "department": "general-medicine",
                "display": "General Medicine",
                "waiting": 4,
                "called": 1,
                "inService": 2,
                "noShow": 0,
                "done": 9,
                "longestWaitSeconds": 1260.0,
            }
        ],
    },
    "GET /api/queues/{department}": {
        "unitId": "clinic-001",
        "department": "general-medicine",
        "serviceDay": "2026-11-20",
        "at": _AT,
        "entries": [_ENTRY],
        "counts": {"waiting": 1, "called": 0, "in-service": 0, "no-show": 0, "done": 9, "left": 1, "transferred": 0},
        "longestWaitSeconds": 312.5,
        "meanWaitSeconds": 312.5,
        "nowCalling": [],
    },
    "GET /api/queues/{department}/entries/{entry_id}": _ENTRY,
    "GET /api/units": _page(_UNIT),
    "GET /api/units/{unit_id}": {
        **_UNIT,
        "departments": [{"department": "general-medicine", "display": "General Medicine"}],
    },
    "GET /api/units/{unit_id}/commands": _page(_UNIT_COMMAND),
    "GET /api/units/{unit_id}/credentials": {
        "unitId": "clinic-001",
        "keys": [
            {
                "keyId": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                "publicKey": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
                "replaces": None,
                "registeredAt": _AT,
                "validUntil": None,
                "revokedAt": None,
                "revokedBecause": None,
            }
        ],
        "enrolmentCodes": [
            {
                "codeHash": "5f" * 32,
                "issuedAt": _AT,
                "expiresAt": _AT,
                "keyId": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                "usedAt": _AT,
                "voidAt": None,
            }
        ],
    },
    "GET /api/commands/{command_id}": {
        "commandId": UNIT_COMMAND,
        "type": "unit_command.QueueUnitCommand",
        "unitId": "clinic-001",
        "status": "accepted",
        "result": {"id": UNIT_COMMAND, "status": "queued"},
        "partition": 11,
        "position": 4711,
        "issuedAt": _AT,
        "recordedAt": _AT,
        "delivery": {
            "status": "received",
            "attempt": 1,
            "witnesses": [
                {"state": "logged", "at": _AT, "by": "event store", "position": 4711, "attempt": 1},
                {"state": "received", "at": _AT, "by": "agent disk", "epoch": 3, "attempt": 1},
            ],
            "queuedPosition": 4711,
            "acknowledgedPosition": 4713,
            "received": True,
            "deadline": "2026-11-21T09:00:00Z",
        },
    },
    "GET /ops/units": _page(
        {
            "unitId": "clinic-001",
            "name": "Example Clinic",
            "status": "active",
            "connected": True,
            "bridge": "ws-bridge-1",
            "epoch": 3,
            "agentVersion": "0.1.0",
            "instance": "01996a44-5e2b-4c1f-9d03-7ab1c2d3e4f5",
            "acknowledgedPosition": 4713,
            "partition": 11,
            "lagEvents": 0,
            "lagSeconds": 0.0,
            "contested": False,
            "connectedAt": _AT,
            "seenAt": _AT,
            "disconnectedAt": None,
            "unreachableSince": None,
        }
    ),
    "GET /api/staff": _page(_STAFF),
    "GET /api/staff/{account_id}": _STAFF,
    "GET /ops/projections": {
        "lagEvents": 0,
        "partitions": [
            {
                "partition": 11,
                "head": 4713,
                "position": 4713,
                "lagEvents": 0,
                "projectedAt": _AT,
                "owner": "projections-1",
            }
        ],
        "faults": [],
    },
    "GET /ops/refusals": _page(
        {
            "commandId": COMMAND_ID,
            "type": "queue.CallNext",
            "unitId": "clinic-001",
            "code": "queue_empty",
            "recordedAt": _AT,
        }
    ),
    "GET /ops/dead-letters": _page(_LETTER),
    "GET /ops/dead-letters/{letter_id}": _LETTER,
    "POST /ops/dead-letters/{letter_id}/reveal": {**_LETTER, "payload": {"encounterId": ENCOUNTER, "acuity": 3}},
    "POST /ops/dead-letters/{letter_id}/discard": {**_LETTER, "status": "discarded", "resolution": "a test system"},
    "POST /ops/replays": {
        "runId": _RUN_ID,
        "items": [
            {
                "letterId": _LETTER_ID,
                "stream": f"encounter-{ENCOUNTER}",
                "seq": 0,
                "askedFor": True,
                "alreadyApplied": False,
                "inDoubt": False,
            }
        ],
    },
    "GET /ops/replays": _page(_RUN),
    "GET /ops/replays/{run_id}": {
        **_RUN,
        "items": [{"letterId": _LETTER_ID, "ord": 0, "status": "applied", "sentAt": _AT, "settledAt": _AT}],
    },
    "GET /ops/ledger": _page(
        {
            "entry": 1,
            "at": _AT,
            "actor": "operator-1",
            "act": "replay of 1",
            "letterId": None,
            "runId": _RUN_ID,
            "reason": "the handler was repaired in 0.1.1",
            "previousHash": "00" * 32,
            "hash": "9f" * 32,
        }
    ),
}
"""By `METHOD /path`, as the routes have it."""
BODIES: Final[Mapping[str, Json]] = {
    "POST /api/patients/search": {"search": "exam", "status": "active", "limit": 20},
    "POST /ops/dead-letters/{letter_id}/reveal": {"reason": "looking for the cause"},
    "POST /ops/dead-letters/{letter_id}/discard": {"reason": "sent by a test system"},
    "POST /ops/replays": {"letterIds": [_LETTER_ID], "reason": "the handler was repaired in 0.1.1"},
}
