"""Patients' records: what each fact makes of them, and what is left when somebody was erased."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from contracts.ids import PatientId, TaskId
from contracts.patient import (
    Contact,
    DemographicsUpdated,
    ErasureBasis,
    Gender,
    MrnAssigned,
    PatientDeactivated,
    PatientDied,
    PatientErased,
    PatientReactivated,
)
from contracts.task import TaskCreated, TaskStatus
from projections import patients
from tests.projections.facts import MORNING, NORTH, arrival, new_id, patient, unit
from tests.projections.readside import ReadSide


async def record(side: ReadSide, patient_id: UUID) -> patients.Patient:
    async with side.asking(NORTH) as connection:
        found = await patients.by_id(connection, patient_id)
    assert found is not None
    return found


async def test_a_record_shows_what_was_sealed_in_the_log(side: ReadSide) -> None:
    contact = Contact(phone="555-0100", city="Nordstadt")
    registered = patient("Ána", "O'Brien", mrn="MRN-1", contact=contact, room_number="12a")
    await side.write(NORTH, unit(), registered)
    shown = await record(side, registered.patient_id)
    assert (shown.first_name, shown.last_name, shown.medical_record_number) == ("Ána", "O'Brien", "MRN-1")
    assert (shown.date_of_birth, shown.room_number, shown.contact) == (date(1984, 3, 7), "12a", contact.to_dict())
    assert (shown.status, shown.version, shown.erased) == ("active", 1, False)
    assert "O'Brien" in shown.to_json().decode(), "text is stored as typed"


async def test_a_correction_replaces_the_whole_of_who_the_person_is(side: ReadSide) -> None:
    registered = patient("Ana", "Lund", contact=Contact(phone="555-0100"), room_number="1")
    who = PatientId(registered.patient_id)
    await side.write(
        NORTH,
        registered,
        DemographicsUpdated(
            patient_id=who, first_name="Anna", last_name="Lund", date_of_birth=date(1985, 1, 1), gender=Gender.FEMALE
        ),
        MrnAssigned(patient_id=who, medical_record_number="MRN-new"),
    )
    shown = await record(side, who)
    assert (shown.first_name, shown.date_of_birth, shown.gender) == ("Anna", date(1985, 1, 1), "female")
    assert (shown.contact, shown.room_number, shown.medical_record_number) == (None, None, "MRN-new")
    assert shown.version == 3


async def test_status_follows_deactivation_reactivation_and_death(side: ReadSide) -> None:
    registered = patient("Bo", "Ek")
    who = PatientId(registered.patient_id)
    await side.write(NORTH, registered, PatientDeactivated(patient_id=who, reason="moved away"))
    assert (await record(side, who)).status == "inactive"
    await side.write(NORTH, PatientReactivated(patient_id=who))
    assert (await record(side, who)).status == "active"
    await side.write(NORTH, PatientDied(patient_id=who, deceased_at=MORNING))
    shown = await record(side, who)
    assert (shown.status, shown.deceased_at) == ("deceased", MORNING)


async def test_an_erased_person_leaves_a_line_that_tells_nothing(side: ReadSide) -> None:
    registered = patient("Ana", "Lund", mrn="MRN-1")
    await side.log.write(NORTH, registered)
    await side.log.erase(registered.patient_id)
    await side.catch_up()
    shown = await record(side, registered.patient_id)
    assert shown.erased
    assert (shown.first_name, shown.last_name, shown.medical_record_number, shown.date_of_birth) == (None,) * 4
    assert await side.count("projection_faults") == 0


async def test_the_fact_that_somebody_was_erased_empties_every_read_table_of_them_and_of_nobody_else(
    side: ReadSide,
) -> None:
    gone, other = patient("Ana", "Lund", mrn="MRN-1"), patient("Bo", "Lund", mrn="MRN-2")
    visits = [arrival(who.patient_id, reason="a cough") for who in (gone, other)]
    for who, visit in zip((gone, other), visits, strict=True):
        await side.log.write(NORTH, who)
        await side.log.write(NORTH, visit)
        task = TaskCreated(
            task_id=TaskId(new_id()),
            unit_id=NORTH,
            patient_id=who.patient_id,
            kind="call-back",
            status=TaskStatus.REQUESTED,
            title="Call back",
        )
        await side.log.write(NORTH, task)
    # One batch: the key was at hand when it began, as in a process that has seen the person before.
    await side.log.write(NORTH, PatientErased(patient_id=gone.patient_id, basis=ErasureBasis.PERSON_ASKED))
    await side.catch_up()
    for table, column in (("read_patients", "last_name"), ("read_encounters", "reason"), ("read_tasks", "title")):
        cursor = await side.admin.execute(
            f"SELECT patient_id, {column}, erased FROM {table}".encode()  # noqa: S608 - a test's own
        )
        shown = {row[0]: row[1:] for row in await cursor.fetchall()}
        assert shown[gone.patient_id] == (None, True)
        assert shown[other.patient_id][0] is not None
        assert shown[other.patient_id][1] is False


async def test_a_patient_who_is_not_there_is_none(side: ReadSide) -> None:
    async with side.asking(NORTH) as connection:
        assert await patients.by_id(connection, new_id()) is None
