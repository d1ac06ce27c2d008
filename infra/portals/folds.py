"""What each kind of fact makes of what portals show: a queue's day, a visit, a record, a unit. One function a context.

A fold changes the state of the fact's stream and says what there is to tell, or None; facts come in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from contracts.envelope import Fact, Json
from contracts.portal import (
    BoardEntry,
    EventName,
    Notification,
    PatientStatusChanged,
    QueueUpdated,
    Topic,
    UnitChanged,
    Visit,
)
from contracts.queue import EntryStatus
from contracts.unit import UnitStatus

State = dict[str, Any]  # Any: a stream's state, its context decides
Data = tuple[EventName, Topic, str, QueueUpdated | PatientStatusChanged | Notification | UnitChanged]
"""What a fact tells, and the key under which a newer one replaces it."""


# A queue's day. Closed entries are only counted: nothing more happens to them.

_STATUS: Final[Mapping[str, EntryStatus]] = {
    "PatientEnqueued": EntryStatus.WAITING,
    "PatientCalled": EntryStatus.CALLED,
    "PatientRecalled": EntryStatus.CALLED,
    "ServiceStarted": EntryStatus.IN_SERVICE,
    "ServiceCompleted": EntryStatus.DONE,
    "PatientNoShow": EntryStatus.NO_SHOW,
    "PatientRequeued": EntryStatus.WAITING,
    "EntryTransferred": EntryStatus.TRANSFERRED,
    "PatientLeft": EntryStatus.LEFT,
}
_CLOSED: Final = frozenset({EntryStatus.DONE, EntryStatus.LEFT, EntryStatus.TRANSFERRED})
_NOBODY: Final = {status.value: 0 for status in EntryStatus}


def _queue(fact: Fact, state: State) -> Data | None:
    change, payload = fact.type.partition(".")[2], fact.payload
    counts: dict[str, int] = state.setdefault("counts", dict(_NOBODY))
    entries: dict[str, State] = state.setdefault("entries", {})
    entry_id = payload.get("entryId")
    if not isinstance(entry_id, str):
        return None
    if change == "PatientEnqueued":
        entry = _taken(
            payload, "patientId", "encounterId", "ticket", "priority", "arrivedAt", "transferredFrom", id=entry_id
        )
        entries[entry_id] = entry
    else:
        known = entries.get(entry_id)
        if known is None:
            return None
        entry = known
        counts[entry["status"]] -= 1
    at = fact.occurred_at
    match change:
        case "PatientCalled":
            entry |= {"counter": payload.get("counter"), "calls": entry.get("calls", 0) + 1, "calledAt": at}
        case "PatientRecalled":
            entry |= {"calls": entry.get("calls", 0) + 1, "calledAt": at}
        case "PatientRequeued":
            entry |= {"counter": None, "calledAt": None}
        case "ServiceStarted":
            entry |= {"startedAt": at}
        case "PriorityChanged":
            entry |= {"priority": payload.get("priority")}
        case "EntryTransferred":
            entry |= {"transferredTo": payload.get("newEntryId")}
        case _:
            pass
    status = _STATUS.get(change)
    if status is not None:
        entry["status"] = status.value
    counts[entry["status"]] += 1
    if status in _CLOSED:
        entry["endedAt"] = at
        del entries[entry_id]
    board = QueueUpdated(
        department=payload["department"],
        service_day=payload["serviceDay"],
        change=change,
        entry=BoardEntry.model_validate(entry),
        counts=dict(counts),
    )
    return EventName.QUEUE_UPDATED, Topic.QUEUE_BOARD, f"entry:{entry_id}", board


# A visit.

_VISIT: Final[Mapping[str, tuple[str | None, str | None, tuple[str, ...]]]] = {
    "PatientTriaged": (None, None, ("acuity",)),
    "LocationAssigned": (None, None, ("room",)),
    "ConsultationStarted": ("in-progress", "startedAt", ()),
    "MovedToDepartment": (None, None, ("department", "queueEntryId")),
    "PatientDischarged": ("finished", "endedAt", ()),
    "VisitCancelled": ("cancelled", "endedAt", ()),
}
"""What a fact makes of a visit: its status, the time that is noted, the fields that are taken over."""


def _encounter(fact: Fact, state: State) -> Data | None:
    change, payload = fact.type.partition(".")[2], fact.payload
    if change == "ClinicianNotified":
        note = Notification.model_validate(
            _taken(payload, "department", "encounterId", "patientId", "queueEntryId", "priority", "practitionerId")
        )
        return EventName.NOTIFICATION, Topic.NOTIFICATIONS, f"note:{fact.position}", note
    if change == "PatientArrived":
        state |= _taken(
            payload, "encounterId", "department", "queueEntryId", "priority", "encounterClass", "practitionerId",
            status="arrived", arrivedAt=fact.occurred_at,
        )  # fmt: skip
    elif change in _VISIT and "status" in state:
        status, noted, fields = _VISIT[change]
        state |= _taken(payload, *fields)
        if change == "PatientTriaged" and state["status"] == "arrived":
            status = "triaged"
        if status is not None:
            state["status"] = status
        if noted is not None:
            state[noted] = fact.occurred_at
    else:
        return None
    changed = PatientStatusChanged(
        patient_id=UUID(payload["patientId"]), change=change, visit=Visit.model_validate(state)
    )
    return EventName.PATIENT_STATUS_CHANGED, Topic.PATIENT_STATUS, f"visit:{state['encounterId']}", changed


# A patient's record, and a unit.

_RECORD: Final[Mapping[str, str]] = {
    "PatientRegistered": "active",
    "PatientReactivated": "active",
    "PatientDeactivated": "inactive",
    "PatientDied": "deceased",
}


_NOT_FOR_BOARDS: Final = frozenset({"LegalHoldPlaced", "LegalHoldLifted", "ErasureReported"})


def _patient(fact: Fact, state: State) -> Data | None:
    change = fact.type.partition(".")[2]
    if change in _NOT_FOR_BOARDS:
        return None
    state["status"] = _RECORD.get(change, state.get("status"))
    if state["status"] is None or "patientId" not in fact.payload:
        return None
    patient_id = fact.payload["patientId"]
    changed = PatientStatusChanged(patient_id=UUID(patient_id), change=change, record_status=state["status"])
    return EventName.PATIENT_STATUS_CHANGED, Topic.PATIENT_STATUS, f"record:{patient_id}", changed


_UNIT: Final[Mapping[str, State]] = {
    "UnitRegistered": {"status": UnitStatus.ACTIVE.value},
    "UnitConfigured": {},
    "DepartmentAdded": {},
    "UnitSuspended": {"status": UnitStatus.SUSPENDED.value},
    "UnitResumed": {"status": UnitStatus.ACTIVE.value},
    "UnitRetired": {"status": UnitStatus.RETIRED.value},
    "UnitUnreachable": {"reachable": False},
    "UnitBack": {"reachable": True},
}


def _unit(fact: Fact, state: State) -> Data | None:
    change = fact.type.partition(".")[2]
    if change not in _UNIT:
        return None  # its keys and codes are not for boards
    state |= _UNIT[change]
    if "status" not in state:
        return None
    changed = UnitChanged(status=state["status"], reachable=state.get("reachable", True), change=change)
    return EventName.UNIT_CHANGED, Topic.UNITS, "unit", changed


FOLDS: Final[Mapping[str, Callable[[Fact, State], Data | None]]] = {
    "queue": _queue,
    "encounter": _encounter,
    "patient": _patient,
    "unit": _unit,
}
"""By context. Results have no source yet: whoever brings the laboratory adds its fold here."""


def _taken(payload: Json, *names: str, **more: object) -> State:
    return {**{name: payload[name] for name in names if name in payload}, **more}
