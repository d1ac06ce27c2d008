"""Visits, and that clinicians are told of them."""

from __future__ import annotations

from uuid import UUID

from contracts.encounter import (
    ConsultationStarted,
    LocationAssigned,
    MovedToDepartment,
    PatientDischarged,
    PatientTriaged,
    VisitCancelled,
)
from contracts.ids import QueueEntryId
from projections import encounters, notifications
from tests.projections.facts import NORTH, arrival, new_id, told
from tests.projections.readside import ReadSide


async def shown(side: ReadSide, encounter_id: UUID) -> encounters.Encounter:
    async with side.asking(NORTH) as connection:
        found = await encounters.by_id(connection, encounter_id)
    assert found is not None
    return found


async def test_a_visit_is_followed_from_arrival_to_discharge(side: ReadSide) -> None:
    visit = arrival(new_id(), reason="cough")
    about = {"encounter_id": visit.encounter_id, "patient_id": visit.patient_id}
    await side.write(NORTH, visit)
    now = await shown(side, visit.encounter_id)
    assert (now.status, now.open, now.reason, now.version) == ("arrived", True, "cough", 1)
    await side.write(NORTH, PatientTriaged(**about, acuity=2, note="pale"), LocationAssigned(**about, room="7"))
    now = await shown(side, visit.encounter_id)
    assert (now.status, now.acuity, now.triage_note, now.room) == ("triaged", 2, "pale", "7")
    await side.write(NORTH, ConsultationStarted(**about), PatientTriaged(**about, acuity=1))
    now = await shown(side, visit.encounter_id)
    assert (now.status, now.acuity) == ("in-progress", 1), "a consultation that has begun stays begun"
    await side.write(
        NORTH,
        PatientDischarged(**about, department="er", queue_entry_id=visit.queue_entry_id, note="rest"),
    )
    now = await shown(side, visit.encounter_id)
    assert (now.status, now.open, now.closing_note, now.version) == ("finished", False, "rest", 6)
    assert now.ended_at is not None


async def test_a_visit_may_move_on_or_not_take_place(side: ReadSide) -> None:
    visit = arrival(new_id())
    about = {"encounter_id": visit.encounter_id, "patient_id": visit.patient_id}
    there = QueueEntryId(new_id())
    await side.write(NORTH, visit, MovedToDepartment(**about, department="lab", queue_entry_id=there))
    now = await shown(side, visit.encounter_id)
    assert (now.department, now.queue_entry_id) == ("lab", there)
    await side.write(NORTH, VisitCancelled(**about, department="lab", queue_entry_id=there, reason="went home"))
    now = await shown(side, visit.encounter_id)
    assert (now.status, now.open) == ("cancelled", False)


async def test_a_patients_visits_and_a_units_open_ones_are_listed_newest_first(side: ReadSide) -> None:
    patient_id = new_id()
    visits = sorted((arrival(patient_id) for _ in range(5)), key=lambda visit: visit.encounter_id, reverse=True)
    over = visits[2]
    elsewhere = arrival(new_id(), department="lab")
    await side.write(
        NORTH,
        *visits,
        elsewhere,
        PatientDischarged(
            encounter_id=over.encounter_id, patient_id=patient_id, department="er", queue_entry_id=over.queue_entry_id
        ),
    )
    async with side.asking(NORTH) as connection:
        first = await encounters.of_patient(connection, patient_id, limit=3)
        rest = await encounters.of_patient(connection, patient_id, limit=3, cursor=first.next_cursor)
        still_open = await encounters.open_ones(connection, NORTH, department="er")
        anywhere = await encounters.open_ones(connection, NORTH)
    assert [each.id for each in [*first.items, *rest.items]] == [visit.encounter_id for visit in visits]
    assert [each.id for each in still_open.items] == [visit.encounter_id for visit in visits if visit is not over]
    assert len(anywhere.items) == 5


async def test_an_erased_persons_visit_keeps_its_times_and_loses_its_words(side: ReadSide) -> None:
    visit = arrival(new_id(), reason="cough")
    await side.log.write(NORTH, visit)
    await side.log.erase(visit.patient_id)
    await side.catch_up()
    now = await shown(side, visit.encounter_id)
    assert (now.reason, now.erased, now.status) == (None, True, "arrived")


async def test_a_department_sees_whom_it_is_to_attend_to(side: ReadSide) -> None:
    visits = [arrival(new_id()) for _ in range(3)]
    await side.write(NORTH, *(told(visit) for visit in visits[:2]), told(visits[2], practitioner_id="dr-3"))
    async with side.asking(NORTH) as connection:
        first = await notifications.latest(connection, NORTH, "er", limit=2)
        rest = await notifications.latest(connection, NORTH, "er", limit=2, cursor=first.next_cursor)
        mine = await notifications.latest(connection, NORTH, "er", practitioner_id="dr-3")
        nobody = await notifications.latest(connection, NORTH, "lab")
    listed = [each.encounter_id for each in [*first.items, *rest.items]]
    assert listed == [visit.encounter_id for visit in reversed(visits)]
    assert [each.encounter_id for each in mine.items] == [visits[2].encounter_id]
    assert not nobody.items
