"""A patient's record: one per person and unit, one medical record number, in use or not, never deleted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import reduce
from uuid import UUID

import pytest

from command_handlers.domain.patient import PATIENT, Patient, answer, evolve, patient_stream
from contracts.catalogue import AnyCommand
from contracts.patient import (
    AssignMrn,
    BirthDateInFuture,
    Contact,
    DeactivatePatient,
    DeathInFuture,
    DemographicsUpdated,
    ErasureBasis,
    ErasureReported,
    Gender,
    LegalHoldLifted,
    LegalHoldPlaced,
    LiftLegalHold,
    MarkDeceased,
    MrnAssigned,
    MrnNotValid,
    MrnTaken,
    PatientAlreadyRegistered,
    PatientDeactivated,
    PatientDied,
    PatientErased,
    PatientEvents,
    PatientNotActive,
    PatientNotFound,
    PatientReactivated,
    PatientRegistered,
    PlaceLegalHold,
    ReactivatePatient,
    RecordErased,
    RegisterPatient,
    ReportErasure,
    RequestErasure,
    UnderLegalHold,
    UpdateDemographics,
)
from contracts.unit import UnitConfigured, UnitSettings
from tests.domain.examples import ANABA, BOREK, LONG_AGO, anaba, anaba_erased, borek, clinic, register_anaba
from tests.kit.deciding import MORNING, UNIT_ID, given

deactivated = PatientDeactivated(patient_id=ANABA, reason="moved away")
died = PatientDied(patient_id=ANABA, deceased_at=LONG_AGO)

update = UpdateDemographics(
    patient_id=ANABA,
    first_name="Anaba",
    last_name="Testa",
    date_of_birth=date(1980, 2, 29),
    gender=Gender.FEMALE,
)
married = update.model_copy(update={"last_name": "Probar"})
now_probar = DemographicsUpdated(
    patient_id=ANABA,
    first_name="Anaba",
    last_name="Probar",
    date_of_birth=date(1980, 2, 29),
    gender=Gender.FEMALE,
)
number_nine = MrnAssigned(patient_id=ANABA, medical_record_number="MRN-9")


def test_a_record_is_opened_with_all_that_is_told_of_the_person() -> None:
    contact = Contact(phone="+44 20 7946 0000", city="Northam")
    register = RegisterPatient(
        patient_id=ANABA,
        medical_record_number="MRN-1",
        first_name="Anaba",
        last_name="O'Testa",
        date_of_birth=date(1980, 2, 29),
        gender=Gender.OTHER,
        contact=contact,
        room_number="12b",
        source_id="a-17",
    )
    opened = PatientRegistered(
        patient_id=ANABA,
        medical_record_number="MRN-1",
        first_name="Anaba",
        last_name="O'Testa",
        date_of_birth=date(1980, 2, 29),
        gender=Gender.OTHER,
        contact=contact,
        room_number="12b",
        source_id="a-17",
    )
    given(clinic).when(register).then(opened)
    given(clinic).when(register).answers(id=str(ANABA))


def test_a_record_of_somebody_who_has_died_says_so_from_the_first() -> None:
    register = register_anaba.model_copy(update={"deceased_at": LONG_AGO})
    given(clinic).when(register).then(anaba, died)
    given(clinic, anaba, died).when(register).then()


def test_registering_twice_with_the_same_data_is_registering_once() -> None:
    given(clinic, anaba).when(register_anaba).then()
    given(clinic, anaba, died).when(register_anaba).then()
    given(clinic, anaba, now_probar, number_nine).when(register_anaba).then()


def test_registering_the_same_id_with_other_data_is_refused() -> None:
    other = register_anaba.model_copy(update={"first_name": "Cecil"})
    given(clinic, anaba).when(other).then_refused(PatientAlreadyRegistered, patientId=str(ANABA))
    dead = register_anaba.model_copy(update={"deceased_at": LONG_AGO})
    given(clinic, anaba).when(dead).then_refused(PatientAlreadyRegistered)


def test_a_medical_record_number_belongs_to_one_record_of_the_unit() -> None:
    register = register_anaba.model_copy(update={"patient_id": BOREK})
    given(clinic, anaba).when(register).then_refused(MrnTaken)
    given(clinic, anaba, borek).when(AssignMrn(patient_id=ANABA, medical_record_number="MRN-2")).then_refused(MrnTaken)
    given(clinic, anaba, borek).when(update.model_copy(update={"medical_record_number": "MRN-2"})).then_refused(
        MrnTaken
    )


def test_a_number_given_up_is_free_for_another() -> None:
    assign = AssignMrn(patient_id=BOREK, medical_record_number="MRN-1")
    assigned = MrnAssigned(patient_id=BOREK, medical_record_number="MRN-1")
    given(clinic, anaba, borek, number_nine).when(assign).then(assigned)


def test_a_record_out_of_use_keeps_its_number() -> None:
    assign = AssignMrn(patient_id=BOREK, medical_record_number="MRN-1")
    given(clinic, anaba, borek, deactivated).when(assign).then_refused(MrnTaken)


def test_a_number_has_to_match_the_whole_of_the_units_pattern() -> None:
    given(clinic).when(register_anaba.model_copy(update={"medical_record_number": "1"})).then_refused(MrnNotValid)
    given(clinic).when(register_anaba.model_copy(update={"medical_record_number": "XMRN-1"})).then_refused(MrnNotValid)
    six_digits = UnitConfigured(unit_id=UNIT_ID, settings=UnitSettings(mrn_pattern=r"\d{6}"))
    assign = AssignMrn(patient_id=ANABA, medical_record_number="123456")
    given(clinic, anaba).when(assign).then_refused(MrnNotValid)
    given(clinic, anaba, six_digits).when(assign).then(MrnAssigned(patient_id=ANABA, medical_record_number="123456"))
    given(clinic, anaba, six_digits).when(assign.model_copy(update={"medical_record_number": "1234567"})).then_refused(
        MrnNotValid
    )


def test_nobody_is_born_tomorrow_but_tomorrow_comes_earlier_in_the_east() -> None:
    tomorrow = register_anaba.model_copy(update={"date_of_birth": MORNING.date() + timedelta(days=1)})
    given(clinic).when(tomorrow).then_refused(BirthDateInFuture)
    given(clinic, anaba).when(update.model_copy(update={"date_of_birth": date(2100, 1, 1)})).then_refused(
        BirthDateInFuture
    )
    kiritimati = UnitConfigured(unit_id=UNIT_ID, settings=UnitSettings(zone="Pacific/Kiritimati"))
    evening = datetime(2025, 3, 3, 12, tzinfo=UTC)
    born = anaba.model_copy(update={"date_of_birth": MORNING.date() + timedelta(days=1)})
    given(clinic, kiritimati).at(evening).when(tomorrow).then(born)


def test_demographics_are_replaced_as_a_whole() -> None:
    given(clinic, anaba).when(married).then(now_probar)
    given(clinic, anaba).when(married).answers(id=str(ANABA), status="active")
    given(clinic, anaba, now_probar).when(married).then()
    given(clinic, anaba).when(update).then()


def test_a_new_number_may_come_with_new_demographics() -> None:
    both = married.model_copy(update={"medical_record_number": "MRN-9"})
    given(clinic, anaba).when(both).then(now_probar, number_nine)
    given(clinic, anaba, now_probar).when(both).then(number_nine)
    given(clinic, anaba, now_probar, number_nine).when(both).then()


def test_a_record_is_given_another_number() -> None:
    assign = AssignMrn(patient_id=ANABA, medical_record_number="MRN-9")
    given(clinic, anaba).when(assign).then(number_nine)
    given(clinic, anaba, number_nine).when(assign).then()


def test_a_record_goes_out_of_use_and_comes_back() -> None:
    deactivate = DeactivatePatient(patient_id=ANABA, reason="moved away")
    given(clinic, anaba).when(deactivate).then(deactivated)
    given(clinic, anaba).when(deactivate).answers(id=str(ANABA), status="inactive")
    given(clinic, anaba, deactivated).when(deactivate).then()
    given(clinic, anaba, deactivated).when(ReactivatePatient(patient_id=ANABA)).then(
        PatientReactivated(patient_id=ANABA)
    )
    given(clinic, anaba).when(ReactivatePatient(patient_id=ANABA)).then()


def test_a_record_out_of_use_is_not_changed() -> None:
    given(clinic, anaba, deactivated).when(married).then_refused(PatientNotActive)
    assign = AssignMrn(patient_id=ANABA, medical_record_number="MRN-9")
    given(clinic, anaba, deactivated).when(assign).then_refused(PatientNotActive)
    given(clinic, anaba, deactivated, PatientReactivated(patient_id=ANABA)).when(assign).then(number_nine)


def test_a_death_is_noted_once_and_its_time_may_be_corrected() -> None:
    given(clinic, anaba).when(MarkDeceased(patient_id=ANABA, deceased_at=LONG_AGO)).then(died)
    given(clinic, anaba, died).when(MarkDeceased(patient_id=ANABA, deceased_at=LONG_AGO)).then()
    given(clinic, anaba, died).when(MarkDeceased(patient_id=ANABA, deceased_at=MORNING)).then(
        PatientDied(patient_id=ANABA, deceased_at=MORNING)
    )


def test_a_death_lies_in_no_future() -> None:
    tomorrow = MORNING + timedelta(days=1)
    given(clinic, anaba).when(MarkDeceased(patient_id=ANABA, deceased_at=tomorrow)).then_refused(DeathInFuture)
    given(clinic).when(register_anaba.model_copy(update={"deceased_at": tomorrow})).then_refused(DeathInFuture)


def test_a_death_noted_by_mistake_is_taken_back_and_may_be_noted_again() -> None:
    back = PatientReactivated(patient_id=ANABA)
    dead = MarkDeceased(patient_id=ANABA, deceased_at=LONG_AGO)
    given(clinic, anaba, died).when(ReactivatePatient(patient_id=ANABA)).then(back)
    given(clinic, anaba, died, back).when(ReactivatePatient(patient_id=ANABA)).then()
    given(clinic, anaba, died, back).when(dead).then(died)
    given(clinic, anaba, died, deactivated).when(dead).then(died)


@pytest.mark.parametrize(
    ("happened", "status"),
    [
        ([anaba], "active"),
        ([anaba, died], "deceased"),
        ([anaba, deactivated], "inactive"),
        ([anaba, deactivated, died], "deceased"),
        ([anaba, died, deactivated], "inactive"),
        ([anaba, died, PatientReactivated(patient_id=ANABA)], "active"),
    ],
)
def test_an_answer_says_of_a_record_what_its_readers_see(happened: list[PatientEvents], status: str) -> None:
    record = reduce(evolve, happened, Patient())
    assert answer(ReactivatePatient(patient_id=ANABA), record)["status"] == status


@pytest.mark.parametrize(
    "command",
    [
        update,
        AssignMrn(patient_id=ANABA, medical_record_number="MRN-9"),
        DeactivatePatient(patient_id=ANABA),
        ReactivatePatient(patient_id=ANABA),
        MarkDeceased(patient_id=ANABA, deceased_at=LONG_AGO),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_can_be_asked_of_a_record_that_does_not_exist_or_was_erased(command: AnyCommand) -> None:
    given(clinic, borek).when(command).then_refused(PatientNotFound, patientId=str(ANABA))
    given(clinic, anaba_erased, deactivated).when(command).then_refused(RecordErased, patientId=str(ANABA))


def test_an_erased_record_is_not_brought_back_by_registering_again() -> None:
    given(clinic, anaba_erased).when(register_anaba).then_refused(PatientAlreadyRegistered)


def test_an_erased_past_can_still_be_folded() -> None:
    history = given(
        clinic,
        anaba_erased,
        DemographicsUpdated(patient_id=ANABA),
        MrnAssigned(patient_id=ANABA),
        PatientDeactivated(patient_id=ANABA),
    ).history
    assert history.holders == {}


HOLD, OTHER_HOLD = UUID(int=7), UUID(int=8)
place_hold = PlaceLegalHold(patient_id=ANABA, hold_id=HOLD, reason="a case is open")
held = LegalHoldPlaced(patient_id=ANABA, hold_id=HOLD, reason="a case is open")
held_too = LegalHoldPlaced(patient_id=ANABA, hold_id=OTHER_HOLD)
lift_hold = LiftLegalHold(patient_id=ANABA, hold_id=HOLD)
lifted = LegalHoldLifted(patient_id=ANABA, hold_id=HOLD)
erase = RequestErasure(patient_id=ANABA, basis=ErasureBasis.PERSON_ASKED)
gone = PatientErased(patient_id=ANABA, basis=ErasureBasis.PERSON_ASKED)
report = ReportErasure(patient_id=ANABA, counts={"patients": 1})


def test_a_person_is_erased_once_and_the_number_is_free_again() -> None:
    given(clinic, anaba).when(erase).then(gone)
    given(clinic, anaba).when(erase).answers(id=str(ANABA), status="erased")
    given(clinic, anaba, gone).when(erase).then()
    assert given(clinic, anaba, gone).history.holders == {}


def test_a_record_out_of_use_and_one_of_somebody_who_has_died_are_erased_too() -> None:
    given(clinic, anaba, deactivated).when(erase).then(gone)
    given(clinic, anaba, died).when(erase).then(gone)


def test_nobody_is_erased_while_a_legal_hold_stands() -> None:
    given(clinic, anaba).when(place_hold).then(held)
    given(clinic, anaba, held).when(place_hold).then()
    given(clinic, anaba, held).when(erase).then_refused(UnderLegalHold, patientId=str(ANABA), holds="1")
    given(clinic, anaba, held, held_too, lifted).when(erase).then_refused(UnderLegalHold)
    given(clinic, anaba, held).when(lift_hold).then(lifted)
    given(clinic, anaba, held, lifted).when(lift_hold).then()
    given(clinic, anaba, held, lifted).when(erase).then(gone)


def test_nothing_of_an_erased_person_stays_in_the_state_that_is_kept_in_memory() -> None:
    state = given(clinic, anaba, held, gone).history.look(PATIENT, patient_stream(ANABA))
    assert state.erased
    assert "Testa" not in repr(state)
    assert "MRN" not in repr(state)


def test_what_a_unit_has_purged_is_noted_of_somebody_who_was_erased_and_of_nobody_else() -> None:
    reported = ErasureReported(patient_id=ANABA, counts={"patients": 1})
    given(clinic, anaba, gone).when(report).then(reported)
    given(clinic, anaba).when(report).then()
    given(clinic, anaba, gone, reported).when(update).then_refused(RecordErased)


def test_whom_nobody_knows_cannot_be_erased() -> None:
    given(clinic, borek).when(erase).then_refused(PatientNotFound)
    given(clinic, borek).when(place_hold).then_refused(PatientNotFound)
    given(clinic, anaba, gone).when(register_anaba).then_refused(PatientAlreadyRegistered)
