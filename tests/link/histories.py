"""What may happen in a unit over weeks: random, and in the order the domain allows. Nobody in it exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from contracts.encounter import (
    ConsultationStarted,
    EncounterClass,
    LocationAssigned,
    MovedToDepartment,
    PatientArrived,
    PatientDischarged,
    PatientTriaged,
    VisitCancelled,
)
from contracts.ids import EncounterId, PatientId, QueueEntryId, UnitCommandId
from contracts.model import Event
from contracts.patient import (
    Contact,
    DemographicsUpdated,
    MrnAssigned,
    PatientDeactivated,
    PatientDied,
    PatientReactivated,
    PatientRegistered,
)
from contracts.queue import (
    EntryTransferred,
    PatientCalled,
    PatientEnqueued,
    PatientLeft,
    PatientNoShow,
    PatientRecalled,
    PatientRequeued,
    PriorityChanged,
    PriorityCode,
    ServiceCompleted,
    ServiceStarted,
)
from contracts.unit import DepartmentAdded, UnitConfigured, UnitSettings
from contracts.unit_command import (
    OnReconnect,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
)

DEPARTMENTS = ("er", "intake", "x-ray")
NAMES = ("Zoraida", "Ottoline", "Æthelred", "O'Testa", "Quillfeather")


@dataclass
class _Place:
    department: str
    day: date
    entry_id: UUID
    patient_id: UUID
    encounter_id: UUID
    ticket: int
    status: str = "waiting"


@dataclass
class _Visit:
    encounter_id: UUID
    patient_id: UUID
    place: _Place


@dataclass
class Clinic:
    """A unit that lives on: `days` brings so many facts."""

    unit_id: str
    random: Random
    now: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=3))
    patients: dict[UUID, str] = field(default_factory=dict)
    visits: dict[UUID, _Visit] = field(default_factory=dict)
    places: dict[UUID, _Place] = field(default_factory=dict)
    commands: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    """Unit command -> where it stands and its attempt."""
    tickets: int = 0

    def lives(self, facts: int) -> list[Event]:
        """At least so many facts more."""
        happened: list[Event] = []
        weights: dict[Callable[[], Sequence[Event]], int] = {
            self._person: 2,
            self._arrival: 3,
            self._in_visit: 2,
            self._in_queue: 4,
            self._command: 2,
            self._settings: 1,
        }
        while len(happened) < facts:
            self.now += timedelta(minutes=self.random.randint(0, 20))
            [step] = self.random.choices(list(weights), list(weights.values()))
            happened += step()
        return happened

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def _person(self) -> Sequence[Event]:
        pick = self.random.random()
        if pick < 0.5 or not self.patients:
            patient_id = self._id()
            self.patients[patient_id] = "active"
            return [
                PatientRegistered(patient_id=PatientId(patient_id), medical_record_number=self._mrn(), **self._who())
            ]
        patient_id = self.random.choice(list(self.patients))
        about = {"patient_id": PatientId(patient_id)}
        if pick < 0.7:
            return [DemographicsUpdated(**about, **self._who())]
        if pick < 0.8:
            return [MrnAssigned(**about, medical_record_number=self._mrn())]
        if self.patients[patient_id] != "active":
            self.patients[patient_id] = "active"
            return [PatientReactivated(**about)]
        self.patients[patient_id] = "away"
        if pick < 0.9:
            return [PatientDied(**about, deceased_at=self.now)]
        return [PatientDeactivated(**about)]

    def _mrn(self) -> str:
        return f"MRN-{self.random.getrandbits(40):x}"

    def _who(self) -> dict[str, Any]:  # Any: fields of several types
        contact = Contact(phone="+44 20 7946 0000", city=self.random.choice(NAMES))
        return {
            "first_name": self.random.choice(NAMES),
            "last_name": self.random.choice(NAMES),
            "date_of_birth": date(1930, 1, 1) + timedelta(days=self.random.randint(0, 30_000)),
            "contact": contact if self.random.random() < 0.5 else None,
            "room_number": "12b" if self.random.random() < 0.3 else None,
        }

    def _arrival(self) -> Sequence[Event]:
        if not self.patients:
            return []
        place = self._place(self.random.choice(list(self.patients)), self._id())
        visit = _Visit(place.encounter_id, place.patient_id, place)
        self.visits[visit.encounter_id] = visit
        arrived = PatientArrived(
            encounter_id=EncounterId(visit.encounter_id),
            patient_id=PatientId(visit.patient_id),
            department=place.department,
            queue_entry_id=QueueEntryId(place.entry_id),
            priority=PriorityCode.ROUTINE,
            encounter_class=self.random.choice(list(EncounterClass)),
            reason="a cough" if self.random.random() < 0.5 else None,
        )
        return [arrived, self._enqueued(place)]

    def _place(self, patient_id: UUID, encounter_id: UUID) -> _Place:
        self.tickets += 1
        department = self.random.choice(DEPARTMENTS)
        place = _Place(department, self.now.date(), self._id(), patient_id, encounter_id, self.tickets)
        self.places[place.entry_id] = place
        return place

    def _enqueued(self, place: _Place) -> PatientEnqueued:
        return PatientEnqueued(
            **_about(place),
            encounter_id=EncounterId(place.encounter_id),
            priority=self.random.choice(list(PriorityCode)),
            ticket=place.ticket,
            arrived_at=self.now,
        )

    def _in_visit(self) -> Sequence[Event]:
        if not self.visits:
            return []
        visit = self.random.choice(list(self.visits.values()))
        about: dict[str, Any] = {  # Any: ids
            "encounter_id": EncounterId(visit.encounter_id),
            "patient_id": PatientId(visit.patient_id),
        }
        where = {"department": visit.place.department, "queue_entry_id": QueueEntryId(visit.place.entry_id)}
        match self.random.randint(0, 5):
            case 0:
                return [PatientTriaged(**about, acuity=self.random.randint(1, 5), note="pale")]
            case 1:
                return [LocationAssigned(**about, room=self.random.choice(("3", "12b")))]
            case 2:
                return [ConsultationStarted(**about)]
            case 3:
                return [MovedToDepartment(**about, **{**where, "department": self.random.choice(DEPARTMENTS)})]
            case 4:
                del self.visits[visit.encounter_id]
                return [PatientDischarged(**about, **where)]
            case _:
                del self.visits[visit.encounter_id]
                return [VisitCancelled(**about, **where)]

    def _in_queue(self) -> Sequence[Event]:
        active = [place for place in self.places.values() if place.status in ("waiting", "called", "serving", "away")]
        if not active:
            return []
        place = self.random.choice(active)
        about = _about(place)
        pick = self.random.random()
        if pick < 0.1:
            place.status = "left"
            return [PatientLeft(**about)]
        if pick < 0.2:
            return [PriorityChanged(**about, priority=self.random.choice(list(PriorityCode)))]
        match place.status:
            case "waiting" if pick < 0.3:
                place.status = "transferred"
                new = self._place(place.patient_id, place.encounter_id)
                waits = self._enqueued(new)
                gone = EntryTransferred(
                    **about,
                    to_department=new.department,
                    new_entry_id=QueueEntryId(new.entry_id),
                    encounter_id=waits.encounter_id,
                    priority=waits.priority,
                    arrived_at=waits.arrived_at,
                )
                return [gone, waits]
            case "waiting":
                place.status = "called"
                counter = "Room 3" if self.random.random() < 0.6 else None
                return [PatientCalled(**about, ticket=place.ticket, counter=counter)]
            case "called" if pick < 0.5:
                return [PatientRecalled(**about, ticket=place.ticket)]
            case "called" if pick < 0.7:
                place.status = "away"
                return [PatientNoShow(**about)]
            case "called":
                place.status = "serving"
                return [ServiceStarted(**about)]
            case "away":
                place.status = "waiting"
                return [PatientRequeued(**about)]
            case _:
                place.status = "done"
                return [ServiceCompleted(**about)]

    def _command(self) -> Sequence[Event]:
        pick = self.random.random()
        if pick < 0.4 or not self.commands:
            unit_command_id = self._id()
            self.commands[unit_command_id] = "queued", 1
            return [
                UnitCommandQueued(
                    unit_command_id=UnitCommandId(unit_command_id),
                    unit_id=self.unit_id,
                    type="note",
                    payload={"text": "bring the wheelchair"},
                    deadline=self.now + timedelta(days=30),
                    on_reconnect=OnReconnect.RUN,
                )
            ]
        unit_command_id = self.random.choice(list(self.commands))
        status, attempt = self.commands[unit_command_id]
        about: dict[str, Any] = {"unit_command_id": UnitCommandId(unit_command_id), "unit_id": self.unit_id}  # Any: ids
        if status == "queued":
            ends: list[Event] = [
                UnitCommandExpired(**about),
                UnitCommandCancelled(**about, reason=None),
                UnitCommandApplied(**about, result=None),
                UnitCommandRejected(**about, code="no"),
            ]
            end = self.random.choice(ends)
            again = isinstance(end, (UnitCommandExpired, UnitCommandRejected))
            self.commands[unit_command_id] = "again" if again else "over", attempt
            return [end]
        if status == "again" and pick < 0.7:
            self.commands[unit_command_id] = "queued", attempt + 1
            return [UnitCommandRetried(**about, attempt=attempt + 1, deadline=self.now + timedelta(days=40))]
        return []

    def _settings(self) -> Sequence[Event]:
        if self.random.random() < 0.5:
            code = self.random.choice(DEPARTMENTS)
            return [DepartmentAdded(unit_id=self.unit_id, department=code, display=self.random.choice(NAMES))]
        zone = self.random.choice(("UTC", "Europe/Berlin"))
        settings = UnitSettings(zone=zone, ageing_minutes=self.random.randint(5, 60))
        return [UnitConfigured(unit_id=self.unit_id, settings=settings)]


def _about(place: _Place) -> dict[str, Any]:  # Any: ids and dates
    return {
        "department": place.department,
        "service_day": place.day,
        "entry_id": QueueEntryId(place.entry_id),
        "patient_id": PatientId(place.patient_id),
    }
