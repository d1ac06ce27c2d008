"""The rules of a task: asked for, taken on by one person, done or not; whoever has it says how far it is.

Administrators may speak for whoever has it. What leads to a task without anybody asking is in `processes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never
from uuid import UUID

from command_handlers.domain.decider import Aggregate, Counted, Freed, Situation, Taken
from command_handlers.domain.patient import PATIENT, patient_stream
from contracts.envelope import Json
from contracts.identity import ADMINS, Actor, Role
from contracts.patient import RecordErased
from contracts.task import (
    CONFLICT,
    FINAL,
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
    RaiseConflict,
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

TAKEN_ON: Final = frozenset({TaskStatus.ACCEPTED, TaskStatus.READY, TaskStatus.IN_PROGRESS, TaskStatus.ON_HOLD})
"""Somebody has said yes to it."""

_BySomebody = AcceptTask | RejectTask | StartTask | HoldTask | ResumeTask | CompleteTask | FailTask
"""What only whoever has the task may say of it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What decisions need to know of a task; the defaults are a task nobody has asked for."""

    created: TaskCreated | None = None
    """As it was asked for; None: never."""
    status: TaskStatus | None = None
    """None: never asked for."""
    assignee: str | None = None
    """On whose list it is."""
    begun: bool = False
    overdue: bool = False
    business_status: str | None = None
    rejected_by: str | None = None
    """Who gave it back last, while nobody else has it."""
    outcome: str | None = None
    closing_words: str | None = None
    """What was said at its end; None too when the person was erased."""


def task_stream(task_id: UUID) -> str:
    """The stream of one task."""
    return f"task-{task_id}"


def stream(command: TaskCommands, situation: Situation) -> str:
    """`task-<task_id>`."""
    return task_stream(command.task_id)


def decide(command: TaskCommands, task: Task, situation: Situation) -> list[TaskEvents]:
    """New events, `[]` when it is already so."""
    if isinstance(command, CreateTask | RaiseConflict):
        return _created(command, task, situation)
    if task.created is None or task.status is None:
        raise TaskNotFound(task_id=str(command.task_id))
    about = _about(task, situation)
    match command:
        case NoteTaskOverdue(due_at=due_at):
            late = task.status not in FINAL and not task.overdue and task.created.due_at == due_at
            return [TaskOverdue(**about, due_at=due_at)] if late else []
        case MarkTaskEnteredInError(reason=reason):
            there = task.status is not TaskStatus.ENTERED_IN_ERROR
            _require_not_erased(command, task, situation)
            return [TaskEnteredInError(**about, reason=reason)] if there else []
        case _ if task.status in FINAL:
            if _ended_so(command, task):
                return []
            raise TaskFinal(task_id=str(command.task_id), status=task.status.value)
        case CancelTask(reason=reason):
            _require_not_erased(command, task, situation)
            return [TaskCancelled(**about, reason=reason)]
        case AssignTask():
            return _assigned(command, task, situation)
        case ClaimTask():
            return _claimed(task, situation)
        case _:
            return _done(command, task, situation)


def _about(task: Task, situation: Situation) -> Json:
    assert task.created is not None  # noqa: S101 - narrows the type; nothing is said of a task that is not there
    return {"task_id": task.created.task_id, "unit_id": situation.unit_id, "patient_id": task.created.patient_id}


def _created(command: CreateTask | RaiseConflict, task: Task, situation: Situation) -> list[TaskEvents]:
    created = _conflict(command, situation) if isinstance(command, RaiseConflict) else _asked(command, situation)
    if task.created is not None:
        if task.created == created:
            return []
        raise TaskAlreadyExists(task_id=str(command.task_id))
    if isinstance(command, CreateTask):
        if command.department is not None:
            situation.unit.require(command.department)
        if command.patient_id is not None:
            situation.look(PATIENT, patient_stream(command.patient_id)).require_kept(command.patient_id)
        if command.due_at is not None and command.due_at <= situation.issued_at:
            raise DueInPast
    return [created]


def _asked(command: CreateTask, situation: Situation) -> TaskCreated:
    status = TaskStatus.REQUESTED if command.assignee is None else TaskStatus.RECEIVED
    return TaskCreated(
        task_id=command.task_id,
        unit_id=situation.unit_id,
        patient_id=command.patient_id,
        kind=command.kind,
        status=TaskStatus.DRAFT if command.draft else status,
        title=command.title,
        description=command.description,
        encounter_id=command.encounter_id,
        department=command.department,
        priority=command.priority,
        assignee=None if command.draft else command.assignee,
        due_at=command.due_at,
        business_status=command.business_status,
    )


def _conflict(command: RaiseConflict, situation: Situation) -> TaskCreated:
    # Whether the person has a record here is not asked: that there is none may be the conflict.
    return TaskCreated(
        task_id=command.task_id,
        unit_id=situation.unit_id,
        patient_id=command.patient_id,
        kind=CONFLICT,
        status=TaskStatus.REQUESTED,
        encounter_id=command.encounter_id,
        department=command.department,
        cause=command.cause,
    )


def _assigned(command: AssignTask, task: Task, situation: Situation) -> list[TaskEvents]:
    same_words = command.business_status in (None, task.business_status)
    if task.assignee == command.assignee and same_words:
        return []
    if task.status is TaskStatus.IN_PROGRESS:
        raise TaskInProgress(task_id=str(command.task_id))
    about = _about(task, situation)
    return [TaskAssigned(**about, assignee=command.assignee, business_status=command.business_status)]


def _claimed(task: Task, situation: Situation) -> list[TaskEvents]:
    about, me = _about(task, situation), situation.actor.subject
    if task.status is TaskStatus.DRAFT:
        raise TaskNotRequested(task_id=str(about["task_id"]))
    if task.assignee not in (None, me):
        raise TaskTaken(task_id=str(about["task_id"]))
    return [] if task.status in TAKEN_ON else [TaskClaimed(**about, assignee=me)]


def _ended_so(command: TaskCommands, task: Task) -> bool:
    """Whether the task came to just this end; said without further words it is the same end."""
    match command:
        case CompleteTask(outcome=outcome, notes=notes):
            same_end = task.status is TaskStatus.COMPLETED and task.outcome == outcome
            return same_end and notes in (None, task.closing_words)
        case FailTask(reason=reason):
            return task.status is TaskStatus.FAILED and reason in (None, task.closing_words)
        case CancelTask(reason=reason):
            return task.status is TaskStatus.CANCELLED and reason in (None, task.closing_words)
        case _:
            return False


def _done(command: _BySomebody, task: Task, situation: Situation) -> list[TaskEvents]:
    named = {"task_id": str(command.task_id), "status": str(task.status)}
    if isinstance(command, RejectTask) and _gave_back(situation.actor, task):
        return []
    if not _may_speak(situation.actor, task):
        raise TaskNotYours(**named)
    about, status = _about(task, situation), task.status
    if _already(command, task):
        return []
    _require_standing(command, status, named)
    _require_not_erased(command, task, situation)
    match command:
        case AcceptTask():
            return [TaskAccepted(**about)]
        case RejectTask(reason=reason):
            return [TaskRejected(**about, reason=reason)]
        case StartTask(business_status=words):
            return [TaskStarted(**about, business_status=words)]
        case HoldTask(reason=reason, business_status=words):
            return [TaskHeld(**about, reason=reason, business_status=words)]
        case ResumeTask(business_status=words):
            resumed = TaskStatus.IN_PROGRESS if task.begun else TaskStatus.READY
            return [TaskResumed(**about, status=resumed, business_status=words)]
        case CompleteTask(outcome=outcome, notes=notes, business_status=words):
            return [TaskCompleted(**about, outcome=outcome, notes=notes, business_status=words)]
        case FailTask(reason=reason, business_status=words):
            return [TaskFailed(**about, reason=reason, business_status=words)]
        case _:
            assert_never(command)


def _require_standing(command: _BySomebody, status: TaskStatus | None, named: dict[str, str]) -> None:
    """Refuse what cannot be said of a task as it stands."""
    if isinstance(command, AcceptTask | RejectTask):
        can_be_given_back = isinstance(command, RejectTask) and status in {TaskStatus.ACCEPTED, TaskStatus.READY}
        if status is not TaskStatus.RECEIVED and not can_be_given_back:
            raise TaskNotReceived(**named)
    elif isinstance(command, ResumeTask):
        if status is not TaskStatus.ON_HOLD:
            raise TaskNotOnHold(**named)
    elif isinstance(command, StartTask | CompleteTask) and status is TaskStatus.ON_HOLD:
        raise TaskOnHold(**named)
    elif status not in TAKEN_ON:
        raise TaskNotAccepted(**named)


def _require_not_erased(command: TaskCommands, task: Task, situation: Situation) -> None:
    """Refuse words about a person who was erased: they would have to be sealed under a key that must not come back."""
    said = getattr(command, "reason", None) or getattr(command, "notes", None)
    patient_id = task.created.patient_id if task.created else None
    if said and patient_id and situation.look(PATIENT, patient_stream(patient_id)).erased:
        raise RecordErased(patient_id=str(patient_id))


def _gave_back(actor: Actor, task: Task) -> bool:
    """Whether it was rejected by the actor, or for somebody whom the actor may speak for; nobody has it any more."""
    return task.rejected_by == actor.subject or (task.status is TaskStatus.REJECTED and _may_speak(actor, task))


def _may_speak(actor: Actor, task: Task) -> bool:
    return actor.subject == task.assignee or actor.role in ADMINS or actor.role is Role.SYSTEM


def _already(command: _BySomebody, task: Task) -> bool:
    """Whether the task stands where it is asked to."""
    match command:
        case AcceptTask():
            return task.status in TAKEN_ON
        case StartTask(business_status=words):
            return task.status is TaskStatus.IN_PROGRESS and words in (None, task.business_status)
        case HoldTask(business_status=words):
            return task.status is TaskStatus.ON_HOLD and words in (None, task.business_status)
        case ResumeTask(business_status=words):
            going_on = task.status in {TaskStatus.IN_PROGRESS, TaskStatus.READY}
            return going_on and words in (None, task.business_status)
        case _:
            return False


_STATUS: Final = {
    TaskAccepted: TaskStatus.ACCEPTED,
    TaskStarted: TaskStatus.IN_PROGRESS,
    TaskHeld: TaskStatus.ON_HOLD,
    TaskCompleted: TaskStatus.COMPLETED,
    TaskFailed: TaskStatus.FAILED,
    TaskCancelled: TaskStatus.CANCELLED,
    TaskEnteredInError: TaskStatus.ENTERED_IN_ERROR,
}


def evolve(task: Task, event: TaskEvents) -> Task:
    """The task after what happened."""
    words = getattr(event, "business_status", None) or task.business_status
    match event:
        case TaskCreated(status=status, assignee=assignee):
            return Task(event, status, assignee, business_status=words)
        case TaskAssigned(assignee=assignee):
            given = replace(task, status=TaskStatus.RECEIVED, assignee=assignee, rejected_by=None, begun=False)
            return replace(given, business_status=words)
        case TaskClaimed(assignee=assignee):
            return replace(task, status=TaskStatus.ACCEPTED, assignee=assignee, rejected_by=None)
        case TaskRejected():
            return replace(task, status=TaskStatus.REJECTED, assignee=None, rejected_by=task.assignee)
        case TaskResumed(status=status):
            return replace(task, status=status, business_status=words)
        case TaskOverdue():
            return replace(task, overdue=True)
        case TaskCompleted(outcome=outcome, notes=notes):
            ended = replace(task, status=TaskStatus.COMPLETED, outcome=outcome, closing_words=notes)
            return replace(ended, business_status=words)
        case TaskFailed(reason=reason) | TaskCancelled(reason=reason) | TaskEnteredInError(reason=reason):
            return replace(task, status=_STATUS[type(event)], closing_words=reason, business_status=words)
        case TaskAccepted() | TaskStarted() | TaskHeld():
            begun = task.begun or isinstance(event, TaskStarted)
            return replace(task, status=_STATUS[type(event)], begun=begun, business_status=words)
        case _:
            assert_never(event)


def claims(task: Task, event: TaskEvents) -> Sequence[Taken | Freed | Counted]:
    """Nothing: any number of tasks may be about the same."""
    return ()


def answer(command: TaskCommands, task: Task) -> Json:
    """Id, status and whose it is; what only follows adds nothing."""
    if isinstance(command, RaiseConflict | NoteTaskOverdue) or task.status is None:
        return {}
    said: Json = {"id": str(command.task_id), "status": task.status.value}
    return said if task.assignee is None else {**said, "assignee": task.assignee}


TASK: Final = Aggregate(
    context="task", initial=Task(), stream=stream, decide=decide, evolve=evolve, claims=claims, answer=answer
)
