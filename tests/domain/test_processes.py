"""What follows from what: a check-in takes a place, an end gives it back, a transfer moves both, a deadline ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from command_handlers.domain.decider import Timer
from command_handlers.domain.processes import prefetch, reactions, timers
from command_handlers.domain.unit_command import attempt_key
from contracts.catalogue import AnyCommand
from contracts.encounter import (
    CancelVisit,
    CheckIn,
    Discharge,
    MovedToDepartment,
    MoveToDepartment,
    PatientDischarged,
    VisitCancelled,
)
from contracts.model import Refusal
from contracts.patient import AssignMrn, UpdateDemographics
from contracts.queue import (
    AlreadyInQueue,
    CallNext,
    CloseEntry,
    Enqueue,
    EntryTransferred,
    PatientLeft,
    PriorityCode,
    ServiceCompleted,
    StartService,
    TransferEntry,
)
from contracts.unit_command import ExpireUnitCommand
from tests.domain.examples import (
    ANABA,
    BOREK,
    ENTRY,
    ORDER,
    OTHER_ENTRY,
    OTHER_VISIT,
    TODAY,
    VISIT,
    anaba,
    anaba_arrived,
    anaba_called,
    anaba_served,
    anaba_waits,
    borek,
    borek_waits,
    check_in,
    clinic,
    clinician_notified,
    enqueued,
    entry,
    moment,
    order_queued,
    queue_order,
    register_anaba,
)
from tests.kit.deciding import MORNING, UNIT_ID, given

VISITING = (clinic, anaba, anaba_arrived, clinician_notified, anaba_waits)
NEW_ENTRY = entry(3)
transfer = TransferEntry(department="general", entry_id=ENTRY, to_department="radiology", new_entry_id=NEW_ENTRY)
transferred = EntryTransferred(
    department="general",
    service_day=TODAY,
    entry_id=ENTRY,
    patient_id=ANABA,
    encounter_id=VISIT,
    priority=PriorityCode.ROUTINE,
    arrived_at=MORNING,
    to_department="radiology",
    new_entry_id=NEW_ENTRY,
)


def test_who_arrives_takes_a_place_from_the_moment_the_check_in_was_given() -> None:
    history = given(clinic, anaba).history
    history.at = MORNING + timedelta(minutes=7)
    enqueue = Enqueue(department="general", entry_id=ENTRY, patient_id=ANABA, encounter_id=VISIT, arrived_at=MORNING)
    assert reactions(anaba_arrived, history) == [enqueue]


def test_a_check_in_opens_a_visit_tells_the_clinician_and_takes_a_place_in_one() -> None:
    history = given(clinic, anaba).history
    assert history.carry_out(check_in) == [anaba_arrived, clinician_notified, anaba_waits]


def test_a_check_in_whose_place_is_refused_is_refused_as_a_whole() -> None:
    history = given(clinic, anaba, enqueued(1, entry_id=OTHER_ENTRY)).history
    before = [*history.events]
    with pytest.raises(AlreadyInQueue):
        history.carry_out(check_in)
    assert history.events == before
    assert history.holder(prefetch(check_in, history).claims[0]) is None


def test_when_a_visit_ends_its_place_is_closed() -> None:
    ended = PatientDischarged(encounter_id=VISIT, patient_id=ANABA, department="general", queue_entry_id=ENTRY)
    off = VisitCancelled(encounter_id=VISIT, patient_id=ANABA, department="general", queue_entry_id=ENTRY)
    left = PatientLeft(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
    served = ServiceCompleted(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
    close = CloseEntry(department="general", entry_id=ENTRY)
    history = given(*VISITING).history
    assert reactions(ended, history) == reactions(off, history) == [close]
    assert history.copy().carry_out(Discharge(encounter_id=VISIT)) == [ended, left]
    assert history.copy().carry_out(CancelVisit(encounter_id=VISIT)) == [off, left]
    assert given(*VISITING, anaba_called, anaba_served).history.carry_out(Discharge(encounter_id=VISIT)) == [
        ended,
        served,
    ]
    assert given(*VISITING, left).history.carry_out(Discharge(encounter_id=VISIT)) == [ended]


def test_who_is_transferred_waits_in_the_other_department_from_the_original_arrival() -> None:
    history = given(*VISITING).at(moment(20)).history
    assert reactions(transferred, history) == [
        Enqueue(
            department="radiology",
            entry_id=NEW_ENTRY,
            patient_id=ANABA,
            encounter_id=VISIT,
            arrived_at=MORNING,
            transferred_from=ENTRY,
        ),
        MoveToDepartment(encounter_id=VISIT, department="radiology", queue_entry_id=NEW_ENTRY),
    ]
    assert history.carry_out(transfer) == [
        transferred,
        enqueued(1, entry_id=NEW_ENTRY, department="radiology", transferred_from=ENTRY),
        MovedToDepartment(encounter_id=VISIT, patient_id=ANABA, department="radiology", queue_entry_id=NEW_ENTRY),
    ]
    # The visit's end closes the place where it is now.
    assert history.carry_out(Discharge(encounter_id=VISIT))[1:] == [
        PatientLeft(department="radiology", service_day=TODAY, entry_id=NEW_ENTRY, patient_id=ANABA)
    ]


def test_nobody_is_transferred_to_a_queue_they_are_in() -> None:
    there = enqueued(1, entry_id=OTHER_ENTRY, department="radiology", visit=OTHER_VISIT)
    history = given(*VISITING, there).history
    with pytest.raises(AlreadyInQueue):
        history.carry_out(transfer)
    assert history.carry_out(CallNext(department="general", counter="Room 3")) == [anaba_called]


def test_from_most_events_nothing_follows() -> None:
    history = given(*VISITING).history
    for event in (clinic, anaba, clinician_notified, anaba_waits, anaba_called, order_queued):
        assert reactions(event, history) == []


def test_a_unit_command_expires_at_its_deadline() -> None:
    assert timers(order_queued) == [Timer(moment(60), ExpireUnitCommand(unit_command_id=ORDER), attempt_key(ORDER, 1))]
    assert timers(anaba_arrived) == []


PREDICTED: list[AnyCommand] = [
    register_anaba.model_copy(update={"patient_id": OTHER_VISIT, "medical_record_number": "MRN-3"}),
    AssignMrn(patient_id=ANABA, medical_record_number="MRN-9"),
    UpdateDemographics(
        patient_id=ANABA,
        medical_record_number="MRN-9",
        first_name="A",
        last_name="B",
        date_of_birth=TODAY,
    ),
    CheckIn(encounter_id=OTHER_VISIT, patient_id=BOREK, queue_entry_id=OTHER_ENTRY, department="dental"),
    CallNext(department="general"),
    queue_order.model_copy(update={"patient_id": ANABA, "supersede_key": "orders"}),
]


@pytest.mark.parametrize("command", PREDICTED, ids=lambda command: type(command).__name__)
def test_all_that_a_decision_looks_at_can_be_loaded_before(command: AnyCommand) -> None:
    history = given(*VISITING, borek).history
    streams, claims, counts = prefetch(command, history.copy())
    assert streams[0] == _own_stream(command)
    history.carry_out(command)
    assert history.looked_at == {*streams, *claims, *counts}


def _own_stream(command: AnyCommand) -> str:
    history = given(*VISITING, borek).history
    history.decide(command)
    return next(look for look in history.looked_at if isinstance(look, str) and look.startswith(f"{command.context}-"))


def test_only_the_visit_of_a_transfer_has_to_be_loaded_after() -> None:
    history = given(*VISITING).history
    streams, claims, _ = prefetch(transfer, history)
    history.carry_out(transfer)
    assert history.looked_at - {*streams, *claims} == {f"encounter-{VISIT}"}


def test_a_decision_that_needs_only_its_own_stream_asks_for_no_more() -> None:
    history = given(*VISITING, borek_waits).history
    start = StartService(department="general", entry_id=ENTRY)
    assert prefetch(start, history) == ((f"queue-{UNIT_ID}.general.{TODAY}",), (), ())


def test_a_refused_reaction_names_the_rule_that_refused() -> None:
    history = given(*VISITING).history
    again = check_in.model_copy(
        update={"encounter_id": OTHER_VISIT, "queue_entry_id": OTHER_ENTRY, "encounter_class": "EMER"}
    )
    with pytest.raises(Refusal) as refused:
        history.carry_out(again)
    assert refused.value.about == {"entryId": str(ENTRY), "department": "general"}
