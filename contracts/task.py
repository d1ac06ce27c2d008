"""Task: what somebody at a unit is to do (FHIR Task) - what may be asked of it and what can have happened.

Free text is sealed: under the patient's key when the task is about one, else under the unit's own. Ids, codes, accounts
and times stay clear. How far a task is done in a department's own words is its `business_status`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import Field, StringConstraints

from contracts.identity import ADMINS, CLINICAL, SERVING, Role
from contracts.ids import Department, EncounterId, PatientId, TaskId, UnitId
from contracts.model import Command, Event, Instant, Model, Refusal, Sealed
from contracts.queue import Priority, PriorityCode

CARERS = ADMINS | CLINICAL
"""May see and give tasks of the whole unit."""
DOERS = CARERS | SERVING
"""May do tasks; those of the serving departments see and do their own."""

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""A word for programs, never about a person: `conflict`, `call-back`, `done`."""
Account = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""An account's id."""
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]

CONFLICT: Final = "conflict"
"""The kind of task that a command made at a unit and refused leads to."""


class TaskStatus(StrEnum):
    """FHIR task-status."""

    DRAFT = "draft"
    """Written down, not asked for yet."""
    REQUESTED = "requested"
    """To be done by whoever takes it."""
    RECEIVED = "received"
    """On somebody's list, who has not said yes yet."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """Its assignee has said no; it can be given to somebody else."""
    READY = "ready"
    """Accepted, was on hold, can be begun."""
    IN_PROGRESS = "in-progress"
    ON_HOLD = "on-hold"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"
    """Should never have been there."""


FINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.ENTERED_IN_ERROR})
"""Nothing follows these, except that any task can turn out to have been an error."""


class Cause(Model):
    """The command that led to a task: codes, ids and times only."""

    command_id: UUID
    command_type: str = Field(max_length=100)
    code: str = Field(max_length=100)
    """Why it was refused."""
    issued_at: Instant


class _TaskCommand(Command):
    context: ClassVar[str] = "task"
    may: ClassVar[frozenset[Role]] = DOERS
    task_id: TaskId


class CreateTask(_TaskCommand):
    """Have something done.

    Without an assignee it waits for whoever claims it; as a `draft` it waits for somebody to assign it. Refused:
    `patient_not_found`, `patient_erased`, `department_not_found`, `due_in_past`.
    """

    may: ClassVar[frozenset[Role]] = CARERS
    kind: Code
    title: Sealed[Title]
    description: Sealed[Text | None] = None
    patient_id: PatientId | None = None
    """Whom it is about; None: nobody."""
    encounter_id: EncounterId | None = None
    department: Department | None = None
    priority: Priority = PriorityCode.ROUTINE
    assignee: Account | None = None
    due_at: Instant | None = None
    business_status: Code | None = None
    draft: bool = False


class RaiseConflict(_TaskCommand):
    """A command made at the unit was refused: somebody is to look at what was done there."""

    may: ClassVar[frozenset[Role]] = frozenset()
    cause: Cause
    patient_id: PatientId | None = None
    encounter_id: EncounterId | None = None
    department: Department | None = None


class AssignTask(_TaskCommand):
    """Put it on somebody's list, also when it was on another's.

    Refused: `task_final`; `task_in_progress` while somebody is at it, who has to put it on hold first.
    """

    may: ClassVar[frozenset[Role]] = CARERS
    assignee: Account
    business_status: Code | None = None


class ClaimTask(_TaskCommand):
    """Take it on, for oneself.

    Refused: `task_taken` when it is on somebody else's list, `task_final`, `task_not_requested` for a draft.
    """


class AcceptTask(_TaskCommand):
    """Say yes to a task on one's list.

    Refused: `task_not_yours`, `task_not_received`.
    """


class RejectTask(_TaskCommand):
    """Say no to a task on one's list, or give it back before beginning it.

    Refused: `task_not_yours`, `task_not_received`.
    """

    reason: Sealed[Text | None] = None


class _Step(_TaskCommand):
    business_status: Code | None = None
    """How far it is in the department's own words; None: as before."""


class StartTask(_Step):
    """Begin.

    Refused: `task_not_yours`, `task_not_accepted`, `task_on_hold`.
    """


class HoldTask(_Step):
    """Stop for now.

    Refused: `task_not_yours`, `task_not_accepted`.
    """

    reason: Sealed[Text | None] = None


class ResumeTask(_Step):
    """Go on where it was put on hold: in progress if it had been begun, ready if not.

    Refused: `task_not_yours`, `task_not_on_hold`.
    """


class CompleteTask(_Step):
    """It is done; `outcome` says how it turned out, in a code.

    Refused: `task_not_yours`, `task_not_accepted`, `task_on_hold`, `task_final` when it ended otherwise.
    """

    outcome: Code
    notes: Sealed[Text | None] = None


class FailTask(_Step):
    """It could not be done.

    Refused: `task_not_yours`, `task_not_accepted`, `task_final` when it ended otherwise.
    """

    reason: Sealed[Text | None] = None


class CancelTask(_TaskCommand):
    """Nobody needs it any more.

    Refused: `task_final` when it ended otherwise.
    """

    may: ClassVar[frozenset[Role]] = CARERS
    reason: Sealed[Text | None] = None


class MarkTaskEnteredInError(_TaskCommand):
    """It should never have been there, whatever became of it. Nothing is deleted."""

    may: ClassVar[frozenset[Role]] = CARERS
    reason: Sealed[Text | None] = None


class NoteTaskOverdue(_TaskCommand):
    """Its time has come and it is not done."""

    may: ClassVar[frozenset[Role]] = frozenset()
    due_at: Instant


class _TaskEvent(Event):
    context: ClassVar[str] = "task"
    task_id: TaskId
    unit_id: UnitId
    patient_id: PatientId | None = None

    def subject(self) -> str | None:
        return str(self.patient_id) if self.patient_id else f"unit:{self.unit_id}"


class TaskCreated(_TaskEvent):
    """Something is to be done."""

    kind: Code
    status: TaskStatus
    """draft, requested, or received when it has an assignee."""
    title: Sealed[Title | None] = None
    """None: the kind and the cause say all, or the person was erased."""
    description: Sealed[Text | None] = None
    encounter_id: EncounterId | None = None
    department: Department | None = None
    priority: Priority = PriorityCode.ROUTINE
    assignee: Account | None = None
    due_at: Instant | None = None
    business_status: Code | None = None
    cause: Cause | None = None
    """The command that led to it; None: a person asked."""


class TaskAssigned(_TaskEvent):
    """It is on somebody's list."""

    assignee: Account
    business_status: Code | None = None


class TaskClaimed(_TaskEvent):
    """Somebody has taken it on."""

    assignee: Account


class TaskAccepted(_TaskEvent):
    """Its assignee has said yes."""


class TaskRejected(_TaskEvent):
    """Its assignee has said no."""

    reason: Sealed[Text | None] = None


class _StepTaken(_TaskEvent):
    business_status: Code | None = None


class TaskStarted(_StepTaken):
    """Somebody has begun."""


class TaskHeld(_StepTaken):
    """Not now."""

    reason: Sealed[Text | None] = None


class TaskResumed(_StepTaken):
    """It goes on."""

    status: TaskStatus
    """in-progress or ready."""


class TaskCompleted(_StepTaken):
    """It is done."""

    outcome: Code
    notes: Sealed[Text | None] = None


class TaskFailed(_StepTaken):
    """It could not be done."""

    reason: Sealed[Text | None] = None


class TaskCancelled(_TaskEvent):
    """Nobody needs it any more."""

    reason: Sealed[Text | None] = None


class TaskEnteredInError(_TaskEvent):
    """It should never have been there."""

    reason: Sealed[Text | None] = None


class TaskOverdue(_TaskEvent):
    """Its time came and it was not done."""

    due_at: Instant


class TaskNotFound(Refusal):
    """The unit has no task with this id."""


class TaskAlreadyExists(Refusal):
    """A task with this id exists with other data."""


class DueInPast(Refusal):
    """A task cannot be due before it is given."""


class TaskFinal(Refusal):
    """The task has come to its end."""


class TaskTaken(Refusal):
    """The task is on somebody else's list."""


class TaskNotYours(Refusal):
    """Only the task's assignee, or an administrator, can say this of it."""


class TaskNotRequested(Refusal):
    """The task is a draft; it has to be assigned first."""


class TaskNotReceived(Refusal):
    """The task is not on a list where it waits to be accepted."""


class TaskNotAccepted(Refusal):
    """Nobody has accepted the task yet."""


class TaskOnHold(Refusal):
    """The task is on hold; resume it first."""


class TaskNotOnHold(Refusal):
    """The task is not on hold."""


class TaskInProgress(Refusal):
    """Somebody is at the task."""


TaskCommands = (
    CreateTask
    | RaiseConflict
    | AssignTask
    | ClaimTask
    | AcceptTask
    | RejectTask
    | StartTask
    | HoldTask
    | ResumeTask
    | CompleteTask
    | FailTask
    | CancelTask
    | MarkTaskEnteredInError
    | NoteTaskOverdue
)
TaskEvents = (
    TaskCreated
    | TaskAssigned
    | TaskClaimed
    | TaskAccepted
    | TaskRejected
    | TaskStarted
    | TaskHeld
    | TaskResumed
    | TaskCompleted
    | TaskFailed
    | TaskCancelled
    | TaskEnteredInError
    | TaskOverdue
)
