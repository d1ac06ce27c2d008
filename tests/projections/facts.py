"""Facts of a day at two units, with the ids that tests refer to. Nobody in them exists."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from contracts.encounter import ClinicianNotified, EncounterClass, PatientArrived
from contracts.ids import EncounterId, PatientId, QueueEntryId, uuid7
from contracts.patient import Contact, PatientRegistered
from contracts.queue import PatientEnqueued, PriorityCode
from contracts.unit import UnitRegistered, UnitSettings

NORTH = "north-clinic"
SOUTH = "south-clinic"
MORNING = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TODAY = MORNING.date()


def new_id(at: datetime = MORNING) -> UUID:
    """A fresh UUIDv7 of an instant."""
    return uuid7(at, os.urandom(10))


def unit(unit_id: str = NORTH, *, name: str = "North Clinic", **settings: object) -> UnitRegistered:
    """A unit joined."""
    return UnitRegistered(
        unit_id=unit_id, name=name, kind="prov", settings=UnitSettings.model_validate({"zone": "UTC", **settings})
    )


def patient(
    first_name: str,
    last_name: str,
    *,
    mrn: str | None = None,
    born: date = date(1984, 3, 7),
    patient_id: UUID | None = None,
    contact: Contact | None = None,
    room_number: str | None = None,
) -> PatientRegistered:
    """Somebody's record was opened."""
    patient_id = patient_id or new_id()
    return PatientRegistered(
        patient_id=PatientId(patient_id),
        medical_record_number=mrn or f"MRN-{patient_id.hex[:12]}",
        first_name=first_name,
        last_name=last_name,
        date_of_birth=born,
        contact=contact,
        room_number=room_number,
    )


def arrival(patient_id: UUID, *, department: str = "er", reason: str | None = None) -> PatientArrived:
    """A visit was opened."""
    return PatientArrived(
        encounter_id=EncounterId(new_id()),
        patient_id=PatientId(patient_id),
        department=department,
        queue_entry_id=QueueEntryId(new_id()),
        priority=PriorityCode.ROUTINE,
        encounter_class=EncounterClass.AMBULATORY,
        reason=reason,
    )


def told(visit: PatientArrived, *, practitioner_id: str | None = None) -> ClinicianNotified:
    """A clinician is to know of a visit."""
    return ClinicianNotified(
        encounter_id=visit.encounter_id,
        patient_id=visit.patient_id,
        department=visit.department,
        queue_entry_id=visit.queue_entry_id,
        priority=visit.priority,
        practitioner_id=practitioner_id,
    )


def enqueued(
    ticket: int,
    *,
    priority: PriorityCode = PriorityCode.ROUTINE,
    minutes: float = 0,
    department: str = "er",
    patient_id: UUID | None = None,
    day: date = TODAY,
) -> PatientEnqueued:
    """Somebody took a place in the queue, `minutes` after the morning began."""
    arrived_at = MORNING + timedelta(minutes=minutes)
    return PatientEnqueued(
        department=department,
        service_day=day,
        entry_id=QueueEntryId(new_id(arrived_at)),
        patient_id=PatientId(patient_id or new_id()),
        encounter_id=EncounterId(new_id()),
        priority=priority,
        ticket=ticket,
        arrived_at=arrived_at,
    )
