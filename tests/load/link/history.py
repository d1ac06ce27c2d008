"""What happened in a unit while it was away: visits of its patients, written straight into the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from contracts.encounter import ConsultationStarted, EncounterClass, PatientArrived, PatientDischarged
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.model import Event
from contracts.patient import Contact, PatientRegistered
from contracts.queue import PatientCalled, PatientEnqueued, PriorityCode, ServiceCompleted, ServiceStarted
from tests.kit.commands import new_id
from tests.projections.logbook import Logbook

DEPARTMENT: Final = "intake"
AT_ONCE: Final = 2_000


def visit(number: int, day: date) -> list[Event]:
    """One patient from the registration to the discharge: nine facts, the sealed ones among them as many as usual."""
    patient_id, encounter_id, entry_id = PatientId(new_id()), EncounterId(new_id()), QueueEntryId(new_id())
    in_queue = {"department": DEPARTMENT, "service_day": day, "entry_id": entry_id, "patient_id": patient_id}
    in_visit = {"encounter_id": encounter_id, "patient_id": patient_id}
    return [
        PatientRegistered(
            patient_id=patient_id,
            medical_record_number=f"MRN-{number:08d}",
            first_name="Zoraida",
            last_name=f"Quillfeather{number}",
            date_of_birth=date(1984, 2, 29),
            contact=Contact(phone="+44 20 7946 0000", city="Northam"),
        ),
        PatientArrived(
            **in_visit,
            department=DEPARTMENT,
            queue_entry_id=entry_id,
            priority=PriorityCode.ROUTINE,
            encounter_class=EncounterClass.AMBULATORY,
            reason="a cough",
        ),
        PatientEnqueued(
            **in_queue,
            encounter_id=encounter_id,
            priority=PriorityCode.ROUTINE,
            ticket=number,
            arrived_at=datetime.now(UTC),
        ),
        PatientCalled(**in_queue, ticket=number, counter="Room 3"),
        ServiceStarted(**in_queue),
        ConsultationStarted(**in_visit),
        ServiceCompleted(**in_queue),
        PatientDischarged(**in_visit, department=DEPARTMENT, queue_entry_id=entry_id, note="well again"),
    ]


def visits(events: int) -> Iterator[Event]:
    """So many facts, visit after visit, over the days before today."""
    today, made, number = datetime.now(UTC).date(), 0, 0
    while made < events:
        number += 1
        for fact in visit(number, today - timedelta(days=1 + number % 30))[: events - made]:
            made += 1
            yield fact


async def write(log: Logbook, unit_id: str, events: int) -> tuple[int, int]:
    """Write so many facts of the unit; its partition and the last position. They are not visible yet."""
    partition = position = 0
    lot: list[Event] = []
    for fact in visits(events):
        lot.append(fact)
        if len(lot) == AT_ONCE:
            partition, position = await log.write(unit_id, *lot)
            lot = []
    if lot:
        partition, position = await log.write(unit_id, *lot)
    return partition, position
