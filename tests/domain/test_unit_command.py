"""A unit's mailbox: queued until the unit reports, the deadline passes or somebody calls it off; it ends once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.catalogue import AnyCommand, AnyEvent
from contracts.patient import PatientNotFound, RecordErased
from contracts.unit_command import (
    CancelUnitCommand,
    DeadlineInPast,
    ExpireUnitCommand,
    ReportUnitCommand,
    UnitCommandAlreadyExists,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandFinal,
    UnitCommandNotFound,
    UnitCommandQueued,
    UnitCommandRejected,
)
from tests.domain.examples import ANABA, ORDER, anaba, anaba_erased, clinic, moment, order_queued, queue_order
from tests.kit.deciding import UNIT_ID, given

report_applied = ReportUnitCommand(unit_command_id=ORDER, applied=True, result={"order": "A-1"})
report_rejected = ReportUnitCommand(unit_command_id=ORDER, applied=False, code="out-of-stock")
expire = ExpireUnitCommand(unit_command_id=ORDER)
cancel = CancelUnitCommand(unit_command_id=ORDER, reason="ordered by mistake")

applied = UnitCommandApplied(unit_command_id=ORDER, unit_id=UNIT_ID, result={"order": "A-1"})
rejected = UnitCommandRejected(unit_command_id=ORDER, unit_id=UNIT_ID, code="out-of-stock")
expired = UnitCommandExpired(unit_command_id=ORDER, unit_id=UNIT_ID)
cancelled = UnitCommandCancelled(unit_command_id=ORDER, unit_id=UNIT_ID, reason="ordered by mistake")
applied_late = applied.model_copy(update={"late": True})
rejected_late = rejected.model_copy(update={"late": True})

ENDS: list[tuple[AnyCommand, AnyEvent, str]] = [
    (report_applied, applied, "applied"),
    (report_rejected, rejected, "rejected"),
    (expire, expired, "expired"),
    (cancel, cancelled, "cancelled"),
]


def test_a_unit_is_asked_to_do_something() -> None:
    given(clinic).when(queue_order).then(order_queued)
    given(clinic).when(queue_order).answers(id=str(ORDER), status="queued")


def test_asking_twice_is_asking_once() -> None:
    given(clinic, order_queued).when(queue_order).then()
    given(clinic, order_queued, applied).at(timedelta(days=1)).when(queue_order).then()


def test_another_request_cannot_take_the_id_of_a_unit_command() -> None:
    other = queue_order.model_copy(update={"type": "ping"})
    given(clinic, order_queued).when(other).then_refused(UnitCommandAlreadyExists, unitCommandId=str(ORDER))


def test_what_should_have_been_done_already_is_not_asked_any_more() -> None:
    given(clinic).at(moment(60)).when(queue_order).then_refused(DeadlineInPast)
    given(clinic).at(moment(59)).when(queue_order).then(order_queued.model_copy(update={"decided_at": moment(59)}))


def test_what_is_about_a_patient_needs_the_patients_record() -> None:
    about_anaba = queue_order.model_copy(update={"patient_id": ANABA})
    queued = order_queued.model_copy(update={"patient_id": ANABA})
    given(clinic, anaba).when(about_anaba).then(queued)
    given(clinic).when(about_anaba).then_refused(PatientNotFound, patientId=str(ANABA))
    given(clinic, anaba_erased).when(about_anaba).then_refused(RecordErased)
    given(clinic, anaba, queued).when(report_applied).then(applied.model_copy(update={"patient_id": ANABA}))


@pytest.mark.parametrize(("command", "event", "status"), ENDS)
def test_it_ends_in_one_of_four_ways(command: AnyCommand, event: AnyEvent, status: str) -> None:
    given(clinic, order_queued).when(command).then(event)
    given(clinic, order_queued).when(command).answers(id=str(ORDER), status=status)
    given(clinic, order_queued, event).when(command).then()


@pytest.mark.parametrize(("command", "event", "status"), ENDS)
def test_after_its_end_a_deadline_changes_nothing(command: AnyCommand, event: AnyEvent, status: str) -> None:
    given(clinic, order_queued, event).when(expire).then()


@pytest.mark.parametrize("end", [applied, rejected, expired])
def test_what_has_ended_cannot_be_called_off(end: AnyEvent) -> None:
    given(clinic, order_queued, end).when(cancel).then_refused(UnitCommandFinal, unitCommandId=str(ORDER))


@pytest.mark.parametrize(("end", "status"), [(expired, "expired"), (cancelled, "cancelled")])
def test_a_report_after_the_end_is_recorded_once_and_changes_nothing(end: AnyEvent, status: str) -> None:
    given(clinic, order_queued, end).when(report_applied).then(applied_late)
    given(clinic, order_queued, end).when(report_rejected).then(rejected_late)
    given(clinic, order_queued, end).when(report_applied).answers(id=str(ORDER), status=status)
    given(clinic, order_queued, end, applied_late).when(report_applied).then()
    given(clinic, order_queued, end, rejected_late).when(report_rejected).then()


def test_a_unit_does_not_say_one_thing_and_then_another() -> None:
    given(clinic, order_queued, applied).when(report_rejected).then_refused(UnitCommandFinal, status="applied")
    given(clinic, order_queued, rejected).when(report_applied).then_refused(UnitCommandFinal, status="rejected")
    given(clinic, order_queued, expired, applied_late).when(report_rejected).then_refused(UnitCommandFinal)


def test_a_rejection_without_a_code_is_still_a_rejection() -> None:
    report = ReportUnitCommand(unit_command_id=ORDER, applied=False)
    given(clinic, order_queued).when(report).then(
        UnitCommandRejected(unit_command_id=ORDER, unit_id=UNIT_ID, code="rejected")
    )


@pytest.mark.parametrize("command", [report_applied, expire, cancel], ids=lambda command: type(command).__name__)
def test_nothing_can_be_told_of_what_was_never_asked(command: AnyCommand) -> None:
    given(clinic).when(command).then_refused(UnitCommandNotFound, unitCommandId=str(ORDER))


def test_what_was_asked_of_an_erased_patient_can_still_be_ended() -> None:
    queued = UnitCommandQueued(
        unit_command_id=ORDER,
        unit_id=UNIT_ID,
        patient_id=ANABA,
        type="orders.place",
        deadline=moment(60),
        on_reconnect=queue_order.on_reconnect,
    )
    given(clinic, queued).when(expire).then(expired.model_copy(update={"patient_id": ANABA}))
