"""The cast of the domain tests: one clinic, two invented patients, their visits, and the words said of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from contracts.encounter import CheckIn, ClinicianNotified, EncounterClass, PatientArrived
from contracts.ids import EncounterId, PatientId, QueueEntryId, TaskId, UnitCommandId, uuid7
from contracts.patient import Gender, PatientRegistered, RegisterPatient
from contracts.queue import PatientCalled, PatientEnqueued, PatientNoShow, PriorityCode, ServiceStarted
from contracts.unit import RegisterUnit, UnitRegistered, UnitSettings
from contracts.unit_command import QueueUnitCommand, UnitCommandQueued
from tests.kit.deciding import MORNING, UNIT_ID

TODAY = MORNING.date()
"""The clinic's zone is UTC unless a test says otherwise."""


def moment(minutes: float = 0) -> datetime:
    """Some minutes into the morning."""
    return MORNING + timedelta(minutes=minutes)


def entry(number: int, at: datetime = MORNING) -> QueueEntryId:
    """The id of a queue entry that was made at this moment."""
    return QueueEntryId(uuid7(at, number.to_bytes(10, "big")))


ANABA = PatientId(UUID("0195a000-0000-7000-8000-00000000000a"))
BOREK = PatientId(UUID("0195a000-0000-7000-8000-00000000000b"))
VISIT = EncounterId(UUID("0195a000-0000-7000-8000-0000000000e1"))
OTHER_VISIT = EncounterId(UUID("0195a000-0000-7000-8000-0000000000e2"))
ORDER = UnitCommandId(UUID("0195a000-0000-7000-8000-0000000000c1"))
TASK = TaskId(UUID("0195a000-0000-7000-8000-0000000000d1"))
ENTRY = entry(1)
OTHER_ENTRY = entry(2)
NOWHERE = UUID("0195a000-0000-7000-8000-0000000000ff")

clinic = UnitRegistered(unit_id=UNIT_ID, name="North Clinic", kind="prov", settings=UnitSettings())
register_clinic = RegisterUnit(name="North Clinic")

register_anaba = RegisterPatient(
    patient_id=ANABA,
    medical_record_number="MRN-1",
    first_name="Anaba",
    last_name="Testa",
    date_of_birth=date(1980, 2, 29),
    gender=Gender.FEMALE,
)
anaba = PatientRegistered(
    patient_id=ANABA,
    medical_record_number="MRN-1",
    first_name="Anaba",
    last_name="Testa",
    date_of_birth=date(1980, 2, 29),
    gender=Gender.FEMALE,
)
borek = PatientRegistered(
    patient_id=BOREK,
    medical_record_number="MRN-2",
    first_name="Borek",
    last_name="Probar",
    date_of_birth=date(2001, 7, 1),
)
anaba_erased = PatientRegistered(patient_id=ANABA, gender=Gender.FEMALE)
"""What the log gives for `anaba` once her key is destroyed."""

check_in = CheckIn(encounter_id=VISIT, patient_id=ANABA, queue_entry_id=ENTRY, department="general", reason="a cough")
anaba_arrived = PatientArrived(
    encounter_id=VISIT,
    patient_id=ANABA,
    department="general",
    queue_entry_id=ENTRY,
    priority=PriorityCode.ROUTINE,
    encounter_class=EncounterClass.AMBULATORY,
    reason="a cough",
)
clinician_notified = ClinicianNotified(
    encounter_id=VISIT,
    patient_id=ANABA,
    department="general",
    queue_entry_id=ENTRY,
    priority=PriorityCode.ROUTINE,
)


def enqueued(
    ticket: int = 1,
    *,
    patient: PatientId = ANABA,
    visit: EncounterId = VISIT,
    entry_id: QueueEntryId = ENTRY,
    department: str = "general",
    priority: PriorityCode = PriorityCode.ROUTINE,
    arrived_at: datetime = MORNING,
    day: date = TODAY,
    transferred_from: QueueEntryId | None = None,
) -> PatientEnqueued:
    """A patient took a place."""
    return PatientEnqueued(
        department=department,
        service_day=day,
        entry_id=entry_id,
        patient_id=patient,
        encounter_id=visit,
        priority=priority,
        ticket=ticket,
        arrived_at=arrived_at,
        transferred_from=transferred_from,
    )


anaba_waits = enqueued()
borek_waits = enqueued(2, patient=BOREK, visit=OTHER_VISIT, entry_id=OTHER_ENTRY, arrived_at=moment(1))
anaba_called = PatientCalled(
    department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA, ticket=1, counter="Room 3"
)
anaba_missing = PatientNoShow(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
anaba_served = ServiceStarted(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)

queue_order = QueueUnitCommand(
    unit_command_id=ORDER, type="orders.place", payload={"code": "24323-8"}, deadline=moment(60)
)
order_queued = UnitCommandQueued(
    unit_command_id=ORDER,
    unit_id=UNIT_ID,
    type="orders.place",
    payload={"code": "24323-8"},
    deadline=moment(60),
    on_reconnect=queue_order.on_reconnect,
    decided_at=MORNING,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
