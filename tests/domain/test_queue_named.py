"""Calling exactly the patient whom a unit has called while it was cut off, or hearing that this can no longer be."""

from __future__ import annotations

from datetime import timedelta

from contracts.catalogue import AnyEvent, command_from
from contracts.ids import instant_of
from contracts.queue import (
    CallNext,
    EntryClosed,
    EntryNotWaiting,
    PatientCalled,
    PatientLeft,
    QueueEntryNotFound,
)
from tests.domain.examples import (
    ANABA,
    BOREK,
    ENTRY,
    OTHER_ENTRY,
    TODAY,
    anaba_called,
    anaba_waits,
    borek_waits,
    clinic,
)
from tests.kit.deciding import given

call_borek = CallNext(department="general", entry_id=OTHER_ENTRY, counter="Room 3")
borek_called = PatientCalled(
    department="general", service_day=TODAY, entry_id=OTHER_ENTRY, patient_id=BOREK, ticket=2, counter="Room 3"
)
BOTH: tuple[AnyEvent, ...] = (clinic, anaba_waits, borek_waits)


def test_who_was_called_at_the_unit_is_called_whoever_s_turn_it_is_by_now() -> None:
    given(*BOTH).when(call_borek).then(borek_called)
    assert given(*BOTH).history.carry_out(CallNext(department="general"))[0].to_dict()["patientId"] == str(ANABA)


def test_a_call_that_comes_up_days_later_is_of_the_day_on_which_the_patient_came() -> None:
    given(*BOTH).at(instant_of(OTHER_ENTRY) + timedelta(days=3)).when(call_borek).then(borek_called)


def test_a_patient_who_is_gone_meanwhile_is_not_called_and_that_is_said() -> None:
    left = PatientLeft(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
    call_anaba = CallNext(department="general", entry_id=ENTRY)
    given(*BOTH, anaba_called).when(call_anaba).then_refused(EntryNotWaiting, entryId=str(ENTRY), status="called")
    given(*BOTH, left).when(call_anaba).then_refused(EntryClosed, entryId=str(ENTRY), status="left")
    given(clinic, anaba_waits).when(call_borek).then_refused(QueueEntryNotFound, entryId=str(OTHER_ENTRY))


def test_calls_of_the_first_version_name_nobody() -> None:
    assert command_from("queue.CallNext", 1, {"department": "general"}) == CallNext(department="general")
