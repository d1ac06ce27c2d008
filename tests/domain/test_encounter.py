"""A visit: opened by arriving, one open per patient and class, over when discharged or cancelled."""

from __future__ import annotations

import pytest

from contracts.catalogue import AnyCommand, AnyEvent
from contracts.encounter import (
    AssignLocation,
    CancelVisit,
    ConsultationAlreadyStarted,
    ConsultationStarted,
    Discharge,
    EncounterAlreadyExists,
    EncounterAlreadyOpen,
    EncounterClass,
    EncounterNotFound,
    EncounterNotOpen,
    LocationAssigned,
    MovedToDepartment,
    MoveToDepartment,
    PatientDischarged,
    PatientTriaged,
    StartConsultation,
    Triage,
    VisitCancelled,
)
from contracts.patient import PatientDeactivated, PatientNotActive, PatientNotFound, RecordErased
from contracts.unit import DepartmentAdded, DepartmentNotFound
from tests.domain.examples import (
    ANABA,
    ENTRY,
    OTHER_ENTRY,
    OTHER_VISIT,
    VISIT,
    anaba,
    anaba_arrived,
    anaba_erased,
    check_in,
    clinic,
    clinician_notified,
)
from tests.kit.deciding import UNIT_ID, given

triaged = PatientTriaged(encounter_id=VISIT, patient_id=ANABA, acuity=3, note="pale")
in_room_3 = LocationAssigned(encounter_id=VISIT, patient_id=ANABA, room="3")
consultation = ConsultationStarted(encounter_id=VISIT, patient_id=ANABA)
discharged = PatientDischarged(
    encounter_id=VISIT, patient_id=ANABA, department="general", queue_entry_id=ENTRY, note="rest"
)
cancelled = VisitCancelled(
    encounter_id=VISIT, patient_id=ANABA, department="general", queue_entry_id=ENTRY, reason="no time"
)
moved = MovedToDepartment(encounter_id=VISIT, patient_id=ANABA, department="radiology", queue_entry_id=OTHER_ENTRY)
radiology = DepartmentAdded(unit_id=UNIT_ID, department="radiology", display="Radiology")

OPEN: list[tuple[AnyEvent, ...]] = [(), (triaged,), (triaged, consultation)]
ENDED: list[AnyEvent] = [discharged, cancelled]


def test_a_patient_arrives_and_the_clinician_is_told() -> None:
    given(clinic, anaba).when(check_in).then(anaba_arrived, clinician_notified)
    given(clinic, anaba).when(check_in).answers(encounterId=str(VISIT), queueEntryId=str(ENTRY))


def test_arriving_twice_is_one_arrival() -> None:
    given(clinic, anaba, anaba_arrived).when(check_in).then()
    given(clinic, anaba, anaba_arrived, moved, discharged).when(check_in).then()


def test_another_arrival_cannot_take_the_id_of_a_visit() -> None:
    other = check_in.model_copy(update={"department": "radiology"})
    given(clinic, anaba, anaba_arrived).when(other).then_refused(EncounterAlreadyExists, encounterId=str(VISIT))


def test_only_patients_whose_record_is_in_use_arrive() -> None:
    given(clinic).when(check_in).then_refused(PatientNotFound, patientId=str(ANABA))
    given(clinic, anaba, PatientDeactivated(patient_id=ANABA)).when(check_in).then_refused(PatientNotActive)
    given(clinic, anaba_erased).when(check_in).then_refused(RecordErased)


def test_a_patient_arrives_only_where_the_unit_has_a_department() -> None:
    given(clinic, anaba, radiology).when(check_in).then_refused(DepartmentNotFound, department="general")


def test_a_patient_has_one_open_visit_of_a_class() -> None:
    again = check_in.model_copy(update={"encounter_id": OTHER_VISIT, "queue_entry_id": OTHER_ENTRY})
    given(clinic, anaba, anaba_arrived).when(again).then_refused(EncounterAlreadyOpen, encounterId=str(VISIT))


def test_a_visit_of_another_class_or_after_the_end_of_the_first_is_another_visit() -> None:
    again = check_in.model_copy(update={"encounter_id": OTHER_VISIT, "queue_entry_id": OTHER_ENTRY})
    emergency = again.model_copy(update={"encounter_class": EncounterClass.EMERGENCY})
    assert given(clinic, anaba, anaba_arrived).history.carry_out(emergency)
    for end in ENDED:
        assert given(clinic, anaba, anaba_arrived, end).history.carry_out(again)


def test_acuity_is_assessed_and_may_be_assessed_again() -> None:
    triage = Triage(encounter_id=VISIT, acuity=3, note="pale")
    given(clinic, anaba_arrived).when(triage).then(triaged)
    given(clinic, anaba_arrived).when(triage).answers(id=str(VISIT), status="triaged")
    given(clinic, anaba_arrived, triaged).when(triage).then()
    worse = Triage(encounter_id=VISIT, acuity=1, note="pale")
    given(clinic, anaba_arrived, triaged, consultation).when(worse).then(
        PatientTriaged(encounter_id=VISIT, patient_id=ANABA, acuity=1, note="pale")
    )
    given(clinic, anaba_arrived, triaged, consultation).when(worse).answers(id=str(VISIT), status="in-progress")


def test_a_room_is_given_and_changed() -> None:
    given(clinic, anaba_arrived).when(AssignLocation(encounter_id=VISIT, room="3")).then(in_room_3)
    given(clinic, anaba_arrived, in_room_3).when(AssignLocation(encounter_id=VISIT, room="3")).then()
    given(clinic, anaba_arrived, in_room_3).when(AssignLocation(encounter_id=VISIT, room="4")).then(
        LocationAssigned(encounter_id=VISIT, patient_id=ANABA, room="4")
    )


def test_a_consultation_starts_once() -> None:
    start = StartConsultation(encounter_id=VISIT)
    given(clinic, anaba_arrived).when(start).then(consultation)
    given(clinic, anaba_arrived, triaged).when(start).answers(id=str(VISIT), status="in-progress")
    given(clinic, anaba_arrived, consultation).when(start).then_refused(ConsultationAlreadyStarted)


@pytest.mark.parametrize("so_far", OPEN, ids=["arrived", "triaged", "in-progress"])
def test_a_visit_ends_by_discharge_from_wherever_it_stands(so_far: tuple[AnyEvent, ...]) -> None:
    given(clinic, anaba_arrived, *so_far).when(Discharge(encounter_id=VISIT, note="rest")).then(discharged)
    given(clinic, anaba_arrived, *so_far).when(Discharge(encounter_id=VISIT)).answers(id=str(VISIT), status="finished")


def test_a_discharge_told_again_is_one_discharge_but_another_note_is_not_swallowed() -> None:
    given(clinic, anaba_arrived, discharged).when(Discharge(encounter_id=VISIT, note="rest")).then()
    given(clinic, anaba_arrived, discharged).when(Discharge(encounter_id=VISIT)).then()
    given(clinic, anaba_arrived, discharged).when(Discharge(encounter_id=VISIT, note="more rest")).then_refused(
        EncounterNotOpen, status="finished"
    )


def test_a_visit_may_be_cancelled_until_the_consultation_starts() -> None:
    cancel = CancelVisit(encounter_id=VISIT, reason="no time")
    given(clinic, anaba_arrived, triaged).when(cancel).then(cancelled)
    given(clinic, anaba_arrived).when(cancel).answers(id=str(VISIT), status="cancelled")
    given(clinic, anaba_arrived, cancelled).when(cancel).then()
    given(clinic, anaba_arrived, consultation).when(cancel).then_refused(ConsultationAlreadyStarted)


def test_a_visit_goes_on_in_another_department_and_ends_there() -> None:
    move = MoveToDepartment(encounter_id=VISIT, department="radiology", queue_entry_id=OTHER_ENTRY)
    given(clinic, anaba_arrived).when(move).then(moved)
    given(clinic, anaba_arrived, moved).when(move).then()
    given(clinic, anaba_arrived).when(move).answers()
    given(clinic, anaba_arrived, moved).when(Discharge(encounter_id=VISIT)).then(
        PatientDischarged(encounter_id=VISIT, patient_id=ANABA, department="radiology", queue_entry_id=OTHER_ENTRY)
    )


@pytest.mark.parametrize("end", ENDED, ids=["finished", "cancelled"])
@pytest.mark.parametrize(
    "command",
    [
        Triage(encounter_id=VISIT, acuity=3, note="pale"),
        AssignLocation(encounter_id=VISIT, room="3"),
        StartConsultation(encounter_id=VISIT),
        MoveToDepartment(encounter_id=VISIT, department="radiology", queue_entry_id=OTHER_ENTRY),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_more_happens_in_a_visit_that_is_over(command: AnyCommand, end: AnyEvent) -> None:
    given(clinic, anaba_arrived, triaged, in_room_3, end).when(command).then_refused(EncounterNotOpen)


def test_a_visit_ends_in_one_way_only() -> None:
    given(clinic, anaba_arrived, cancelled).when(Discharge(encounter_id=VISIT)).then_refused(EncounterNotOpen)
    given(clinic, anaba_arrived, discharged).when(CancelVisit(encounter_id=VISIT)).then_refused(EncounterNotOpen)


@pytest.mark.parametrize(
    "command",
    [
        Triage(encounter_id=VISIT, acuity=3),
        AssignLocation(encounter_id=VISIT, room="3"),
        StartConsultation(encounter_id=VISIT),
        Discharge(encounter_id=VISIT),
        CancelVisit(encounter_id=VISIT),
        MoveToDepartment(encounter_id=VISIT, department="radiology", queue_entry_id=OTHER_ENTRY),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_can_be_asked_of_a_visit_that_never_began(command: AnyCommand) -> None:
    given(clinic, anaba).when(command).then_refused(EncounterNotFound, encounterId=str(VISIT))
