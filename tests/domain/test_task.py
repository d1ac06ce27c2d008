"""A task from being asked for to its end: who may say what of it, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from command_handlers.domain.decider import Timer
from command_handlers.domain.processes import prefetch, timers
from contracts.catalogue import AnyEvent
from contracts.identity import Actor, Role
from contracts.model import Refusal
from contracts.patient import PatientNotFound, RecordErased
from contracts.task import (
    AcceptTask,
    AssignTask,
    CancelTask,
    ClaimTask,
    CompleteTask,
    CreateTask,
    DueInPast,
    FailTask,
    HoldTask,
    MarkTaskEnteredInError,
    NoteTaskOverdue,
    RejectTask,
    ResumeTask,
    StartTask,
    TaskAccepted,
    TaskAlreadyExists,
    TaskAssigned,
    TaskCancelled,
    TaskClaimed,
    TaskCommands,
    TaskCompleted,
    TaskCreated,
    TaskEnteredInError,
    TaskEvents,
    TaskFailed,
    TaskFinal,
    TaskHeld,
    TaskInProgress,
    TaskNotAccepted,
    TaskNotFound,
    TaskNotOnHold,
    TaskNotReceived,
    TaskNotRequested,
    TaskNotYours,
    TaskOnHold,
    TaskOverdue,
    TaskRejected,
    TaskResumed,
    TaskStarted,
    TaskStatus,
    TaskTaken,
)
from contracts.unit import DepartmentAdded, DepartmentNotFound
from tests.domain.examples import ANABA, TASK, anaba, anaba_erased, clinic, moment
from tests.kit.deciding import UNIT_ID, Given, History, When

ANN = Actor(subject="nurse-ann", role=Role.NURSE, unit=UNIT_ID)
BO = Actor(subject="lab-bo", role=Role.LAB_TECHNICIAN, unit=UNIT_ID)
BOSS = Actor(subject="boss", role=Role.ADMIN, unit=UNIT_ID)

create = CreateTask(
    task_id=TASK, kind="call-back", title="Call back", patient_id=ANABA, due_at=moment(60), department="general"
)
asked = TaskCreated(
    task_id=TASK, unit_id=UNIT_ID, patient_id=ANABA, kind="call-back", status=TaskStatus.REQUESTED, title="Call back",
    due_at=moment(60), department="general",
)  # fmt: skip


def that(event: type[TaskEvents], **fields: object) -> TaskEvents:
    """What happened to the one task of these tests."""
    return event.model_validate({"task_id": TASK, "unit_id": UNIT_ID, "patient_id": ANABA, **fields})


assigned = that(TaskAssigned, assignee=ANN.subject)
claimed = that(TaskClaimed, assignee=ANN.subject)
accepted, rejected, started = that(TaskAccepted), that(TaskRejected, reason="no time"), that(TaskStarted)
held = that(TaskHeld, reason="no answer")
completed = that(TaskCompleted, outcome="reached", notes="she is well")

REQUESTED: tuple[AnyEvent, ...] = (clinic, anaba, asked)
DRAFT: tuple[AnyEvent, ...] = (clinic, anaba, asked.model_copy(update={"status": TaskStatus.DRAFT}))
RECEIVED = (*REQUESTED, assigned)
ACCEPTED = (*RECEIVED, accepted)
REJECTED = (*RECEIVED, rejected)
IN_PROGRESS = (*ACCEPTED, started)
ON_HOLD = (*IN_PROGRESS, held)
COMPLETED = (*IN_PROGRESS, completed)

accept, claim, start = AcceptTask(task_id=TASK), ClaimTask(task_id=TASK), StartTask(task_id=TASK)
reject, hold, resume = RejectTask(task_id=TASK, reason="no time"), HoldTask(task_id=TASK), ResumeTask(task_id=TASK)
complete = CompleteTask(task_id=TASK, outcome="reached", notes="she is well")
fail, cancel = FailTask(task_id=TASK, reason="no such number"), CancelTask(task_id=TASK)
in_error = MarkTaskEnteredInError(task_id=TASK)


def asks(actor: Actor, command: TaskCommands, *past: AnyEvent) -> When:
    """Somebody asks this after all that."""
    return Given(replace(History().note(*past), actor=actor)).when(command)


def test_somebody_asks_for_something_to_be_done() -> None:
    asks(ANN, create, clinic, anaba).then(asked)
    asks(ANN, create, clinic, anaba).answers(id=str(TASK), status="requested")
    asks(ANN, create, *REQUESTED).then()
    other = create.model_copy(update={"title": "Write to her"})
    asks(ANN, other, *REQUESTED).then_refused(TaskAlreadyExists, taskId=str(TASK))


def test_it_begins_as_it_is_asked_for() -> None:
    for changes, status, assignee in (
        ({}, "requested", None),
        ({"assignee": "nurse-ann"}, "received", "nurse-ann"),
        ({"assignee": "nurse-ann", "draft": True}, "draft", None),
    ):
        (event,) = asks(ANN, create.model_copy(update=changes), clinic, anaba).history.decide(
            create.model_copy(update=changes)
        )
        assert isinstance(event, TaskCreated)
        assert (event.status.value, event.assignee) == (status, assignee)


def test_it_is_about_somebody_the_unit_knows_in_a_department_it_has_and_due_later() -> None:
    asks(ANN, create, clinic).then_refused(PatientNotFound)
    asks(ANN, create, clinic, anaba_erased).then_refused(RecordErased)
    radiology = DepartmentAdded(unit_id=UNIT_ID, department="radiology", display="Radiology")
    asks(ANN, create, clinic, radiology, anaba).then_refused(DepartmentNotFound, department="general")
    late = create.model_copy(update={"due_at": moment(0)})
    asks(ANN, late, clinic, anaba).then_refused(DueInPast)
    about_nobody = create.model_copy(update={"patient_id": None})
    asks(ANN, about_nobody, clinic).then(asked.model_copy(update={"patient_id": None}))
    assert asked.subject() == str(ANABA)
    assert asked.model_copy(update={"patient_id": None}).subject() == f"unit:{UNIT_ID}"


@pytest.mark.parametrize("command", [accept, claim, reject, start, hold, resume, complete, fail, cancel, in_error])
def test_nothing_is_said_of_a_task_that_is_not_there(command: TaskCommands) -> None:
    asks(BOSS, command, clinic, anaba).then_refused(TaskNotFound, taskId=str(TASK))


def test_the_way_of_a_task_through_one_pair_of_hands() -> None:
    asks(BO, AssignTask(task_id=TASK, assignee=ANN.subject), *REQUESTED).then(assigned)
    asks(ANN, accept, *RECEIVED).then(accepted)
    asks(ANN, start, *ACCEPTED).then(started)
    asks(ANN, HoldTask(task_id=TASK, reason="no answer"), *IN_PROGRESS).then(held)
    asks(ANN, resume, *ON_HOLD).then(that(TaskResumed, status=TaskStatus.IN_PROGRESS))
    asks(ANN, complete, *IN_PROGRESS).then(completed)
    asks(ANN, fail, *ON_HOLD).then(that(TaskFailed, reason="no such number"))
    asks(ANN, complete, *IN_PROGRESS).answers(id=str(TASK), status="completed", assignee=ANN.subject)


def test_what_was_not_begun_is_ready_when_it_goes_on() -> None:
    waiting = (*ACCEPTED, held)
    asks(ANN, resume, *waiting).then(that(TaskResumed, status=TaskStatus.READY))
    ready = (*waiting, that(TaskResumed, status=TaskStatus.READY))
    asks(ANN, start, *ready).then(started)
    asks(ANN, reject, *ready).then(rejected)


def test_who_rejected_it_for_the_assignee_changes_nothing_by_saying_so_again() -> None:
    asks(BOSS, reject, *REJECTED).then()
    asks(ANN, reject, *REJECTED).then()
    asks(BO, reject, *REJECTED).then_refused(TaskNotYours, taskId=str(TASK), status="rejected")


def test_whoever_wants_it_takes_it_and_nobody_else_then() -> None:
    asks(ANN, claim, *REQUESTED).then(claimed)
    asks(ANN, claim, *REQUESTED).answers(id=str(TASK), status="accepted", assignee=ANN.subject)
    asks(BO, claim, *REQUESTED, claimed).then_refused(TaskTaken)
    asks(ANN, claim, *RECEIVED).then(claimed)
    asks(BO, claim, *RECEIVED).then_refused(TaskTaken)
    asks(BO, claim, *REJECTED).then(that(TaskClaimed, assignee=BO.subject))
    asks(ANN, claim, *DRAFT).then_refused(TaskNotRequested)


def test_it_is_given_to_another_unless_somebody_is_at_it() -> None:
    to_bo = AssignTask(task_id=TASK, assignee=BO.subject, business_status="waiting-for-lab")
    given_to_bo = that(TaskAssigned, assignee=BO.subject, business_status="waiting-for-lab")
    for past in (DRAFT, REQUESTED, RECEIVED, ACCEPTED, REJECTED, ON_HOLD):
        asks(BOSS, to_bo, *past).then(given_to_bo)
    asks(BOSS, to_bo, *IN_PROGRESS).then_refused(TaskInProgress)
    asks(BOSS, to_bo, *COMPLETED).then_refused(TaskFinal, status="completed")
    asks(ANN, accept, *ACCEPTED, given_to_bo).then_refused(TaskNotYours)
    asks(BO, accept, *ACCEPTED, given_to_bo).then(accepted)


@pytest.mark.parametrize("command", [accept, reject, start, hold, resume, complete, fail])
def test_only_whoever_has_it_or_an_administrator_says_how_far_it_is(command: TaskCommands) -> None:
    asks(BO, command, *RECEIVED).then_refused(TaskNotYours)
    mine, theirs = (replace(History().note(*ON_HOLD), actor=actor) for actor in (ANN, BOSS))
    if command in (resume, fail):
        assert mine.decide(command) == theirs.decide(command)


@pytest.mark.parametrize(
    ("command", "past", "refusal"),
    [
        (accept, REQUESTED, TaskNotReceived),
        (reject, IN_PROGRESS, TaskNotReceived),
        (start, RECEIVED, TaskNotAccepted),
        (start, ON_HOLD, TaskOnHold),
        (hold, RECEIVED, TaskNotAccepted),
        (resume, ACCEPTED, TaskNotOnHold),
        (complete, RECEIVED, TaskNotAccepted),
        (complete, ON_HOLD, TaskOnHold),
        (fail, REQUESTED, TaskNotAccepted),
        (fail, COMPLETED, TaskFinal),
        (cancel, COMPLETED, TaskFinal),
        (claim, COMPLETED, TaskFinal),
        (complete.model_copy(update={"outcome": "not-reached"}), COMPLETED, TaskFinal),
        (complete.model_copy(update={"notes": "she is not"}), COMPLETED, TaskFinal),
    ],
)
def test_what_does_not_fit_how_it_stands_is_refused(
    command: TaskCommands, past: tuple[AnyEvent, ...], refusal: type[Refusal]
) -> None:
    asks(BOSS, command, *past).then_refused(refusal, taskId=str(TASK))


@pytest.mark.parametrize(
    ("command", "past"),
    [
        (AssignTask(task_id=TASK, assignee=ANN.subject), ACCEPTED),
        (claim, ACCEPTED),
        (accept, ACCEPTED),
        (reject, REJECTED),
        (start, IN_PROGRESS),
        (hold, ON_HOLD),
        (resume, IN_PROGRESS),
        (complete, COMPLETED),
        (complete.model_copy(update={"notes": None}), COMPLETED),
        (fail, (*ACCEPTED, that(TaskFailed, reason="no such number"))),
        (cancel, (*ACCEPTED, that(TaskCancelled))),
        (in_error, (*ACCEPTED, that(TaskEnteredInError))),
    ],
)
def test_what_is_so_already_is_not_said_again(command: TaskCommands, past: tuple[AnyEvent, ...]) -> None:
    asks(ANN, command, *past).then()


def test_it_is_called_off_at_any_time_before_its_end_and_an_error_even_after() -> None:
    for past in (DRAFT, REQUESTED, RECEIVED, IN_PROGRESS, ON_HOLD, REJECTED):
        asks(ANN, cancel, *past).then(that(TaskCancelled))
    asks(ANN, in_error, *COMPLETED).then(that(TaskEnteredInError))


def test_a_department_s_own_words_stay_until_others_are_said() -> None:
    waiting = that(TaskHeld, business_status="waiting-for-lab")
    asks(ANN, HoldTask(task_id=TASK, business_status="waiting-for-lab"), *IN_PROGRESS, waiting).then()
    again = HoldTask(task_id=TASK, business_status="sample-lost")
    asks(ANN, again, *IN_PROGRESS, waiting).then(that(TaskHeld, business_status="sample-lost"))


def test_its_time_comes_once() -> None:
    overdue = NoteTaskOverdue(task_id=TASK, due_at=moment(60))
    assert timers(asked) == [Timer(moment(60), overdue)]
    assert timers(asked.model_copy(update={"due_at": None})) == []
    it_was = that(TaskOverdue, due_at=moment(60))
    asks(BOSS, overdue, *IN_PROGRESS).then(it_was)
    asks(BOSS, overdue, *IN_PROGRESS, it_was).then()
    asks(BOSS, overdue, *COMPLETED).then()
    asks(BOSS, NoteTaskOverdue(task_id=TASK, due_at=moment(0) + timedelta(hours=9)), *IN_PROGRESS).then()


def test_no_words_are_added_about_somebody_who_was_erased() -> None:
    gone = (clinic, anaba_erased, asked, assigned, accepted)
    asks(ANN, complete, *gone).then_refused(RecordErased)
    asks(ANN, CancelTask(task_id=TASK, reason="gone"), *gone).then_refused(RecordErased)
    asks(ANN, complete.model_copy(update={"notes": None}), *gone).then(
        that(TaskCompleted, outcome="reached"),
    )


def test_what_a_decision_will_look_at_is_known_before() -> None:
    history = History().note(clinic, anaba)
    assert prefetch(create, history).streams == (f"task-{TASK}", f"patient-{ANABA}")
    assert prefetch(claim, history).streams == (f"task-{TASK}",)
