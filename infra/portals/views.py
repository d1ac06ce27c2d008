"""What facts mean on a portal: each becomes at most one event that carries the whole of what it is about.

Whole, because a portal that cannot keep up is sent only the newest event of each thing. Most facts say only what
changed, so the state of each stream is kept and folded on; a fact whose stream is not known that far has to wait until
the stream was read from the log (`misses`). Pure, and nothing of a person but ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from contracts.catalogue import EVENTS, UPCASTS
from contracts.envelope import Fact, Json
from contracts.portal import (
    BoardEntry,
    Event,
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

STREAMS_KNOWN: Final = 10_000
"""Streams whose state is kept; the one not asked for longest goes first, and is read again when something happens."""

State = dict[str, Any]  # Any: a stream's state, its context decides
Data = tuple[EventName, Topic, str, QueueUpdated | PatientStatusChanged | Notification | UnitChanged]
"""What a fact tells, and the key under which a newer one replaces it."""


class Shown:
    """An event on its way to portals, written as JSON once however many there are."""

    __slots__ = ("_json", "_sse", "department", "event", "key", "position", "topic")

    def __init__(self, event: Event, key: str, department: str | None) -> None:
        self.event = event
        self.key = key
        """A newer event with the same key makes this one needless."""
        self.department = department
        """None: not of one department."""
        self.topic = event.topic
        self.position = event.position
        self._json: bytes | None = None
        self._sse: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The frame of the socket."""
        if self._json is None:
            self._json = self.event.to_json()
        return self._json

    @property
    def sse(self) -> bytes:
        """The same as a Server-Sent Event: its id is the position to resume from."""
        if self._sse is None:
            self._sse = b"id: %d\nevent: %b\ndata: %b\n\n" % (self.position, self.event.event.encode(), self.frame)
        return self._sse


class Views:
    """Folds a unit's facts (or those of many units) and says what each means."""

    def __init__(self, most: int = STREAMS_KNOWN, *, fault: Callable[[Fact, Exception], None] | None = None) -> None:
        """`fault` is told of facts that cannot be shown; nothing else happens to them."""
        self._fault = fault
        self._streams: OrderedDict[str, tuple[int, State]] = OrderedDict()
        """stream -> (version, state), the one used longest ago first."""
        self._most = most

    def misses(self, facts: Iterable[Fact]) -> list[str]:
        """Streams that must be read from the log before these facts, in this order, can be shown."""
        ahead: dict[str, int] = {}
        missing: dict[str, None] = {}
        for fact in facts:
            if fact.type.partition(".")[0] not in _FOLDS:
                continue
            known = ahead.get(fact.stream)
            if known is None:
                known = self._streams[fact.stream][0] if fact.stream in self._streams else 0
            if fact.stream_version > known + 1:
                missing[fact.stream] = None
            ahead[fact.stream] = max(known, fact.stream_version)
        return list(missing)

    def learn(self, facts: Iterable[Fact], before: Mapping[str, int]) -> None:
        """Fold what happened earlier in streams that were missing: facts below the version each is needed from."""
        for fact in facts:
            if fact.stream_version < before.get(fact.stream, 0):
                self._fold(fact)

    def show(self, unit_id: str, fact: Fact) -> Shown | None:
        """The event of a fact that misses nothing; None when portals are not told of it."""
        told = self._fold(fact)
        if told is None:
            return None
        name, topic, key, data = told
        event = Event(event=name, topic=topic, position=fact.position, unit_id=unit_id, at=fact.recorded_at, data=data)
        department = data.visit.department if isinstance(data, PatientStatusChanged) and data.visit else None
        return Shown(event, key, getattr(data, "department", department))

    def forget(self) -> None:
        """Nothing is known any more."""
        self._streams.clear()

    def _fold(self, fact: Fact) -> Data | None:
        fold = _FOLDS.get(fact.type.partition(".")[0])
        if fold is None:
            return None
        version, state = self._streams.pop(fact.stream, (0, {}))
        if fact.stream_version <= version:  # seen already
            self._streams[fact.stream] = version, state
            return None
        told = None
        try:
            told = fold(_today(fact), state)
        except (LookupError, TypeError, ValueError) as why:  # of a newer release, or bad: the others go on
            if self._fault is not None:
                self._fault(fact, why)
        self._streams[fact.stream] = fact.stream_version, state
        if len(self._streams) > self._most:
            self._streams.popitem(last=False)
        return told


def _today(fact: Fact) -> Fact:
    """The fact as this release writes it. Raises LookupError for one of a newer release."""
    word = EVENTS.get(fact.type)
    if word is None or fact.version == word.version:
        return fact
    payload = fact.payload
    for version in range(fact.version, word.version):
        payload = UPCASTS[fact.type, version](payload)
    if fact.version > word.version:
        raise LookupError(fact.type)
    return fact.model_copy(update={"payload": payload})


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


def _patient(fact: Fact, state: State) -> Data | None:
    change = fact.type.partition(".")[2]
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


_FOLDS: Final[Mapping[str, Callable[[Fact, State], Data | None]]] = {
    "queue": _queue,
    "encounter": _encounter,
    "patient": _patient,
    "unit": _unit,
}
"""By context. Results have no source yet: whoever brings the laboratory adds its fold here."""


def _taken(payload: Json, *names: str, **more: object) -> State:
    return {**{name: payload[name] for name in names if name in payload}, **more}
