"""A task under any sequence of what its people may say, next to the plainest model of one: a table of the ways."""

from __future__ import annotations

from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_handlers.domain.task import Task
from contracts.catalogue import event_from
from contracts.identity import ADMINS, Actor, Role
from contracts.model import Refusal
from contracts.task import (
    FINAL,
    AcceptTask,
    AssignTask,
    CancelTask,
    ClaimTask,
    CompleteTask,
    CreateTask,
    FailTask,
    HoldTask,
    MarkTaskEnteredInError,
    RejectTask,
    ResumeTask,
    StartTask,
    TaskCommands,
)
from contracts.task import TaskStatus as S
from tests.domain.examples import TASK, clinic
from tests.kit.deciding import UNIT_ID, History

PEOPLE: Final = [
    Actor(subject="nurse-ann", role=Role.NURSE, unit=UNIT_ID),
    Actor(subject="lab-bo", role=Role.LAB_TECHNICIAN, unit=UNIT_ID),
    Actor(subject="boss", role=Role.ADMIN, unit=UNIT_ID),
]
OPEN: Final = frozenset(S) - FINAL
YES: Final = {S.ACCEPTED, S.READY, S.IN_PROGRESS, S.ON_HOLD}
WAYS: Final[dict[type[TaskCommands], tuple[set[S] | frozenset[S], S]]] = {
    AcceptTask: ({S.RECEIVED}, S.ACCEPTED),
    RejectTask: ({S.RECEIVED, S.ACCEPTED, S.READY}, S.REJECTED),
    StartTask: ({S.ACCEPTED, S.READY}, S.IN_PROGRESS),
    HoldTask: ({S.ACCEPTED, S.READY, S.IN_PROGRESS}, S.ON_HOLD),
    CompleteTask: ({S.ACCEPTED, S.READY, S.IN_PROGRESS}, S.COMPLETED),
    FailTask: (YES, S.FAILED),
    CancelTask: (OPEN, S.CANCELLED),
    MarkTaskEnteredInError: (frozenset(S) - {S.ENTERED_IN_ERROR}, S.ENTERED_IN_ERROR),
}
"""From where a task goes where. Assigning, claiming and resuming depend on more."""
OWNER_ONLY: Final = (AcceptTask, RejectTask, StartTask, HoldTask, CompleteTask, FailTask)

people = st.sampled_from(PEOPLE)


class TaskInAnyHands(RuleBasedStateMachine):
    """Whatever they say, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History().note(clinic)
        self.status = S.REQUESTED
        self.owner: str | None = None
        self.begun = False

    @initialize(draft=st.booleans(), owner=st.none() | people.map(lambda one: one.subject))
    def somebody_asks(self, draft: bool, owner: str | None) -> None:
        self.history.carry_out(
            CreateTask(task_id=TASK, kind="call-back", title="Call back", assignee=owner, draft=draft)
        )
        self.owner = None if draft else owner
        self.status = S.DRAFT if draft else S.REQUESTED if owner is None else S.RECEIVED

    def said(self, actor: Actor, command: TaskCommands) -> bool:
        """Whether it changed anything; said once more it never does."""
        self.history.actor = actor
        try:
            events = self.history.carry_out(command)
        except Refusal:
            return False
        assert len(events) <= 1
        assert self.history.decide(command) == []
        return bool(events)

    @rule(actor=people, word=st.sampled_from(list(WAYS)))
    def it_goes_on(self, actor: Actor, word: type[TaskCommands]) -> None:
        before = self.status
        may = word not in OWNER_ONLY or actor.subject == self.owner or actor.role in ADMINS
        ways, after = WAYS[word]
        fields = {"task_id": TASK, **({"outcome": "done"} if word is CompleteTask else {})}
        changed = self.said(actor, word.model_validate(fields))
        assert changed == (may and before in ways), (word.__name__, before)
        if changed:
            self.status = after
            self.begun |= after is S.IN_PROGRESS
            if after is S.REJECTED:
                self.owner = None

    @rule(actor=people)
    def it_is_resumed(self, actor: Actor) -> None:
        may = actor.subject == self.owner or actor.role in ADMINS
        changed = self.said(actor, ResumeTask(task_id=TASK))
        assert changed == (may and self.status is S.ON_HOLD)
        if changed:
            self.status = S.IN_PROGRESS if self.begun else S.READY

    @rule(actor=people)
    def somebody_claims_it(self, actor: Actor) -> None:
        free = self.owner in (None, actor.subject) and self.status in {S.REQUESTED, S.RECEIVED, S.REJECTED}
        changed = self.said(actor, ClaimTask(task_id=TASK))
        assert changed == free
        if changed:
            self.status, self.owner = S.ACCEPTED, actor.subject

    @rule(actor=people, owner=people)
    def it_is_assigned(self, actor: Actor, owner: Actor) -> None:
        can = self.status in OPEN and self.status is not S.IN_PROGRESS and owner.subject != self.owner
        changed = self.said(actor, AssignTask(task_id=TASK, assignee=owner.subject))
        assert changed == can
        if changed:
            self.status, self.owner, self.begun = S.RECEIVED, owner.subject, False

    @invariant()
    def is_what_the_model_says(self) -> None:
        task: Task = self.history.states.get(f"task-{TASK}", Task())
        if task.status is None:
            return
        assert (task.status, task.assignee) == (self.status, self.owner)
        assert (task.assignee is not None) or task.status not in YES | {S.RECEIVED}, "somebody has it"

    @invariant()
    def can_be_told_again_from_the_log(self) -> None:
        read_back = [event_from(event.type_name(), event.version, event.to_dict()) for event in self.history.events]
        assert History().note(*read_back).states == self.history.states


TaskInAnyHands.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestTaskInAnyHands = TaskInAnyHands.TestCase
