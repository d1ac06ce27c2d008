"""A command made at a unit and refused is somebody's task there, about whoever the command was about."""

from __future__ import annotations

from command_handlers.domain.processes import conflict
from contracts.catalogue import AnyCommand, AnyEvent
from contracts.encounter import CheckIn, StartConsultation
from contracts.ids import TaskId, derived
from contracts.queue import CallNext, StartService
from contracts.task import Cause, RaiseConflict, TaskAlreadyExists, TaskCreated, TaskStatus
from tests.domain.examples import (
    ANABA,
    ENTRY,
    VISIT,
    anaba,
    anaba_arrived,
    anaba_called,
    anaba_waits,
    clinic,
    register_anaba,
)
from tests.kit.deciding import UNIT_ID, History, given

call = CallNext(department="general", entry_id=ENTRY)
TASK = TaskId(derived(History().command_id, "conflict", History().issued_at))


def raised(command: AnyCommand, code: str, *past: AnyEvent) -> RaiseConflict:
    return conflict(command, code, History().note(clinic, *past))


def test_it_names_the_command_and_why_and_says_nothing_of_a_person() -> None:
    found = raised(call, "entry_not_waiting", anaba_waits, anaba_called)
    assert found == RaiseConflict(
        task_id=TASK,
        cause=Cause(
            command_id=History().command_id, command_type="queue.CallNext", code="entry_not_waiting",
            issued_at=History().issued_at,
        ),
        patient_id=ANABA,
        encounter_id=VISIT,
        department="general",
    )  # fmt: skip
    assert raised(call, "entry_not_waiting", anaba_waits) == found.model_copy(), "it has the same id each time"


def test_it_is_about_whom_the_command_names_or_its_entry_or_its_visit() -> None:
    check_in = CheckIn(encounter_id=VISIT, patient_id=ANABA, queue_entry_id=ENTRY, department="general")
    assert raised(check_in, "patient_not_found").patient_id == ANABA
    assert raised(register_anaba, "mrn_taken").patient_id == ANABA
    start = StartService(department="general", entry_id=ENTRY)
    assert raised(start, "entry_not_called", anaba_waits).patient_id == ANABA
    assert raised(start, "queue_entry_not_found").patient_id is None
    begin = StartConsultation(encounter_id=VISIT)
    assert raised(begin, "consultation_already_started", anaba_arrived).patient_id == ANABA
    assert raised(CallNext(department="general"), "queue_empty").patient_id is None


def test_it_becomes_a_task_that_anybody_may_claim() -> None:
    command = raised(call, "entry_not_waiting", anaba_waits)
    task = TaskCreated(
        task_id=TASK, unit_id=UNIT_ID, patient_id=ANABA, kind="conflict", status=TaskStatus.REQUESTED,
        encounter_id=VISIT, department="general", cause=command.cause,
    )  # fmt: skip
    given(clinic, anaba).when(command).then(task)
    given(clinic).when(command).then(task)
    given(clinic, anaba).when(command).answers()
    given(clinic, anaba, task).when(command).then()
    other = command.model_copy(update={"department": "radiology"})
    given(clinic, anaba, task).when(other).then_refused(TaskAlreadyExists)
