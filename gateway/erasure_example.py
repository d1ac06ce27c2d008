"""What the report of an erasure looks like, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from contracts.envelope import Json
from gateway.commands import PATIENT

COMMAND: Final = "01996a35-52c8-7b1e-9d40-3f6a8c2e7b91"
AT: Final = "2026-11-20T08:15:30.412Z"

REPORT: Final[Json] = {
    "patientId": PATIENT,
    "unitId": "clinic-001",
    "basis": "person-asked",
    "requestedBy": "admin-2",
    "commandId": COMMAND,
    "partition": 7,
    "position": 4821,
    "erasedAt": AT,
    "keysDestroyed": 1,
    "status": "complete",
    "completedAt": AT,
    "awaits": [],
    "places": [{"place": "read_patients", "instance": "", "count": 1, "purgedAt": AT}],
    "signature": {"algorithm": "EdDSA", "keyId": "3k2vV0mQJ8aYd1xg", "value": "mR0c9o2wq5yV1T3fB7"},
}
