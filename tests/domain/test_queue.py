"""A department's queue on one service day: tickets and the ways of an entry. Whose turn it is: `test_queue_order`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from contracts.catalogue import AnyCommand, AnyEvent
from contracts.model import Refusal
from contracts.queue import (
    AlreadyInQueue,
    CallNext,
    ChangePriority,
    CloseEntry,
    CompleteService,
    Enqueue,
    EntryClosed,
    EntryNotCalled,
    EntryNotInService,
    EntryNotNoShow,
    EntryNotWaiting,
    EntryTransferred,
    Leave,
    MarkNoShow,
    PatientCalled,
    PatientLeft,
    PatientRecalled,
    PatientRequeued,
    PriorityChanged,
    PriorityCode,
    QueueEmpty,
    QueueEntryAlreadyExists,
    QueueEntryNotFound,
    Recall,
    Requeue,
    SameDepartment,
    ServiceCompleted,
    StartService,
    TransferEntry,
)
from contracts.unit import DepartmentAdded, DepartmentNotFound, UnitConfigured, UnitSettings
from tests.domain.examples import (
    ANABA,
    BOREK,
    ENTRY,
    OTHER_ENTRY,
    OTHER_VISIT,
    TODAY,
    VISIT,
    anaba_called,
    anaba_missing,
    anaba_served,
    anaba_waits,
    borek_waits,
    clinic,
    enqueued,
    entry,
    moment,
)
from tests.kit.deciding import MORNING, UNIT_ID, given

served = ServiceCompleted(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
left = PatientLeft(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
requeued = PatientRequeued(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA)
recalled = PatientRecalled(department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA, ticket=1)
urgent = PriorityChanged(
    department="general", service_day=TODAY, entry_id=ENTRY, patient_id=ANABA, priority=PriorityCode.URGENT
)
transferred = EntryTransferred(
    department="general",
    service_day=TODAY,
    entry_id=ENTRY,
    patient_id=ANABA,
    encounter_id=VISIT,
    priority=PriorityCode.ROUTINE,
    arrived_at=MORNING,
    to_department="radiology",
    new_entry_id=entry(3),
)
radiology = DepartmentAdded(unit_id=UNIT_ID, department="radiology", display="Radiology")

enqueue_anaba = Enqueue(department="general", entry_id=ENTRY, patient_id=ANABA, encounter_id=VISIT, arrived_at=MORNING)
enqueue_borek = Enqueue(
    department="general", entry_id=OTHER_ENTRY, patient_id=BOREK, encounter_id=OTHER_VISIT, arrived_at=moment(1)
)
call_next = CallNext(department="general", counter="Room 3")
recall = Recall(department="general", entry_id=ENTRY)
start = StartService(department="general", entry_id=ENTRY)
complete = CompleteService(department="general", entry_id=ENTRY)
no_show = MarkNoShow(department="general", entry_id=ENTRY)
requeue = Requeue(department="general", entry_id=ENTRY)
prefer = ChangePriority(department="general", entry_id=ENTRY, priority=PriorityCode.URGENT)
transfer = TransferEntry(department="general", entry_id=ENTRY, to_department="radiology", new_entry_id=entry(3))
leave = Leave(department="general", entry_id=ENTRY)
close = CloseEntry(department="general", entry_id=ENTRY)

WAITING: tuple[AnyEvent, ...] = (anaba_waits,)
CALLED: tuple[AnyEvent, ...] = (anaba_waits, anaba_called)
IN_SERVICE: tuple[AnyEvent, ...] = (*CALLED, anaba_served)
NO_SHOW: tuple[AnyEvent, ...] = (*CALLED, anaba_missing)
DONE: tuple[AnyEvent, ...] = (*IN_SERVICE, served)
LEFT: tuple[AnyEvent, ...] = (anaba_waits, left)
TRANSFERRED: tuple[AnyEvent, ...] = (anaba_waits, transferred)


def test_who_arrives_gets_the_next_ticket() -> None:
    given(clinic).when(enqueue_anaba).then(anaba_waits)
    given(clinic, anaba_waits).when(enqueue_borek).then(borek_waits)
    given(clinic, anaba_waits).when(enqueue_borek).answers(ticket=2)
    given(clinic, *LEFT).when(enqueue_borek).then(borek_waits)


def test_arriving_in_the_queue_twice_is_one_arrival() -> None:
    given(clinic, anaba_waits).when(enqueue_anaba).then()
    given(clinic, anaba_waits, borek_waits).when(enqueue_anaba).answers(ticket=1)
    given(clinic, *DONE).when(enqueue_anaba).then()


def test_another_patient_cannot_take_the_id_of_an_entry() -> None:
    taken = enqueue_borek.model_copy(update={"entry_id": ENTRY})
    given(clinic, anaba_waits).when(taken).then_refused(QueueEntryAlreadyExists, entryId=str(ENTRY))


@pytest.mark.parametrize("so_far", [WAITING, CALLED, IN_SERVICE, NO_SHOW])
def test_a_patient_is_in_a_queue_once(so_far: tuple[AnyEvent, ...]) -> None:
    again = enqueue_anaba.model_copy(update={"entry_id": OTHER_ENTRY})
    given(clinic, *so_far).when(again).then_refused(AlreadyInQueue, entryId=str(ENTRY), department="general")


@pytest.mark.parametrize("so_far", [DONE, LEFT, TRANSFERRED])
def test_a_patient_who_is_through_may_come_again_with_a_new_ticket(so_far: tuple[AnyEvent, ...]) -> None:
    again = enqueue_anaba.model_copy(update={"entry_id": OTHER_ENTRY})
    given(clinic, *so_far).when(again).then(enqueued(2, entry_id=OTHER_ENTRY))


def test_each_department_counts_its_own_tickets() -> None:
    elsewhere = enqueue_borek.model_copy(update={"department": "radiology"})
    given(clinic, anaba_waits).when(elsewhere).answers(ticket=1)


def test_a_service_day_is_the_units_own_and_each_begins_with_ticket_one() -> None:
    tokyo = UnitConfigured(unit_id=UNIT_ID, settings=UnitSettings(zone="Asia/Tokyo"))
    evening = datetime(2025, 3, 3, 16, tzinfo=UTC)  # 01:00 on the fourth in Tokyo
    at_night = entry(9, evening)
    arrives = enqueue_borek.model_copy(update={"entry_id": at_night, "arrived_at": evening})
    waits = enqueued(1, patient=BOREK, visit=OTHER_VISIT, entry_id=at_night, arrived_at=evening, day=date(2025, 3, 4))
    given(clinic, tokyo, anaba_waits).at(evening).when(arrives).then(waits)
    given(clinic, tokyo, anaba_waits).at(evening).when(call_next).then_refused(QueueEmpty)
    called = PatientCalled(
        department="general", service_day=date(2025, 3, 4), entry_id=at_night, patient_id=BOREK, ticket=1
    )
    given(clinic, tokyo, waits).at(evening).when(CallNext(department="general")).then(called)
    # Yesterday's entry is still found by its id after midnight.
    given(clinic, tokyo, anaba_waits).at(evening).when(leave).then(left)


def test_whose_turn_it_is_is_called_to_a_counter() -> None:
    given(clinic, anaba_waits, borek_waits).when(call_next).then(anaba_called)
    given(clinic, anaba_waits, borek_waits).when(call_next).answers(
        entryId=str(ENTRY), ticket=1, patientId=str(ANABA), encounterId=str(VISIT), counter="Room 3"
    )
    given(clinic, anaba_waits).when(CallNext(department="general")).answers(
        entryId=str(ENTRY), ticket=1, patientId=str(ANABA), encounterId=str(VISIT)
    )


def test_two_desks_that_call_are_given_two_patients() -> None:
    history = given(clinic, anaba_waits, borek_waits).history
    first, second = history.carry_out(call_next), history.carry_out(call_next)
    assert [event.entry_id for event in (*first, *second) if isinstance(event, PatientCalled)] == [ENTRY, OTHER_ENTRY]


@pytest.mark.parametrize("so_far", [(), CALLED, IN_SERVICE, NO_SHOW, DONE, LEFT, TRANSFERRED])
def test_nobody_waiting_nobody_called(so_far: tuple[AnyEvent, ...]) -> None:
    given(clinic, *so_far).when(call_next).then_refused(QueueEmpty, department="general")


def test_a_department_that_the_unit_does_not_have_has_no_queue() -> None:
    given(clinic, radiology).when(call_next).then_refused(DepartmentNotFound)
    given(clinic, radiology).when(enqueue_anaba).then_refused(DepartmentNotFound)
    dental = transfer.model_copy(update={"to_department": "dental"})
    given(clinic, radiology, anaba_waits).when(dental).then_refused(DepartmentNotFound, department="dental")


@pytest.mark.parametrize(
    ("command", "so_far", "event", "status"),
    [
        (recall, CALLED, recalled, "called"),
        (start, CALLED, anaba_served, "in-service"),
        (no_show, CALLED, anaba_missing, "no-show"),
        (complete, IN_SERVICE, served, "done"),
        (requeue, NO_SHOW, requeued, "waiting"),
        (prefer, WAITING, urgent, "waiting"),
        (leave, WAITING, left, "left"),
        (leave, CALLED, left, "left"),
        (leave, NO_SHOW, left, "left"),
    ],
)
def test_an_entry_goes_its_way(command: AnyCommand, so_far: tuple[AnyEvent, ...], event: AnyEvent, status: str) -> None:
    given(clinic, *so_far).when(command).then(event)
    given(clinic, *so_far).when(command).answers(entryId=str(ENTRY), status=status, ticket=1)


@pytest.mark.parametrize(
    ("command", "so_far"),
    [
        (start, IN_SERVICE),
        (complete, DONE),
        (no_show, NO_SHOW),
        (requeue, WAITING),
        (requeue, (*NO_SHOW, requeued)),
        (prefer, (anaba_waits, urgent)),
        (transfer, TRANSFERRED),
        (leave, LEFT),
    ],
)
def test_told_twice_is_so_once(command: AnyCommand, so_far: tuple[AnyEvent, ...]) -> None:
    given(clinic, *so_far).when(command).then()


def test_a_call_may_be_repeated_as_often_as_needed() -> None:
    given(clinic, *CALLED, recalled).when(recall).then(recalled)


@pytest.mark.parametrize(
    ("command", "so_far", "refusal"),
    [
        (recall, WAITING, EntryNotCalled),
        (recall, IN_SERVICE, EntryNotCalled),
        (recall, NO_SHOW, EntryNotCalled),
        (start, WAITING, EntryNotCalled),
        (start, NO_SHOW, EntryNotCalled),
        (no_show, WAITING, EntryNotCalled),
        (no_show, IN_SERVICE, EntryNotCalled),
        (complete, WAITING, EntryNotInService),
        (complete, CALLED, EntryNotInService),
        (complete, NO_SHOW, EntryNotInService),
        (requeue, CALLED, EntryNotNoShow),
        (requeue, IN_SERVICE, EntryNotNoShow),
        (prefer, CALLED, EntryNotWaiting),
        (prefer, NO_SHOW, EntryNotWaiting),
        (leave, IN_SERVICE, EntryNotWaiting),
    ],
)
def test_an_entry_goes_no_other_way(command: AnyCommand, so_far: tuple[AnyEvent, ...], refusal: type[Refusal]) -> None:
    given(clinic, *so_far).when(command).then_refused(refusal, entryId=str(ENTRY))


@pytest.mark.parametrize("command", [recall, start, no_show, requeue, prefer])
@pytest.mark.parametrize("so_far", [DONE, LEFT, TRANSFERRED])
def test_a_closed_entry_stays_closed(command: AnyCommand, so_far: tuple[AnyEvent, ...]) -> None:
    given(clinic, *so_far).when(command).then_refused(EntryClosed, entryId=str(ENTRY))


def test_a_closed_entry_is_closed_in_one_way_only() -> None:
    given(clinic, *LEFT).when(complete).then_refused(EntryClosed, status="left")
    given(clinic, *DONE).when(leave).then_refused(EntryClosed, status="done")
    given(clinic, *DONE).when(transfer).then_refused(EntryClosed)
    other_place = transfer.model_copy(update={"new_entry_id": entry(4)})
    given(clinic, *TRANSFERRED).when(other_place).then_refused(EntryClosed, status="transferred")


@pytest.mark.parametrize("command", [recall, start, complete, no_show, requeue, prefer, transfer, leave])
def test_an_entry_that_is_not_there_is_not_found(command: AnyCommand) -> None:
    given(clinic, borek_waits).when(command).then_refused(QueueEntryNotFound, entryId=str(ENTRY))


@pytest.mark.parametrize("so_far", [WAITING, CALLED, IN_SERVICE, NO_SHOW])
def test_a_patient_goes_on_to_another_department(so_far: tuple[AnyEvent, ...]) -> None:
    given(clinic, *so_far).when(transfer).then(transferred)
    given(clinic, *so_far).when(transfer).answers(entryId=str(entry(3)), department="radiology")


def test_a_patient_cannot_be_transferred_to_where_they_are() -> None:
    here = transfer.model_copy(update={"to_department": "general"})
    given(clinic, anaba_waits).when(here).then_refused(SameDepartment, department="general")


def test_when_the_visit_is_over_its_place_is_closed_whatever_its_state() -> None:
    given(clinic, *WAITING).when(close).then(left)
    given(clinic, *CALLED).when(close).then(left)
    given(clinic, *NO_SHOW).when(close).then(left)
    given(clinic, *IN_SERVICE).when(close).then(served)
    for closed in (DONE, LEFT, TRANSFERRED, ()):
        given(clinic, *closed).when(close).then()
    given(clinic, *WAITING).when(close).answers()


def test_who_missed_the_call_waits_again_from_the_original_arrival() -> None:
    history = given(clinic, anaba_waits, anaba_called, borek_waits, anaba_missing, requeued).history
    history.at = MORNING + timedelta(minutes=5)
    assert history.carry_out(call_next) == [anaba_called]
