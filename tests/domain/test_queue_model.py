"""A queue under any sequence of events at its desks, next to the plainest model of one: a list that is searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from command_handlers.domain.queue import ServiceQueue, effective_rank
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.model import Command, Refusal
from contracts.queue import (
    ACTIVE,
    AlreadyInQueue,
    CallNext,
    ChangePriority,
    CloseEntry,
    CompleteService,
    Enqueue,
    EntryStatus,
    Leave,
    MarkNoShow,
    PatientCalled,
    PriorityCode,
    QueueEmpty,
    Requeue,
    StartService,
)
from tests.domain.examples import TODAY, clinic, entry, moment
from tests.kit.deciding import UNIT_ID, History

AGEING = timedelta(minutes=30)
FINAL = frozenset(EntryStatus) - ACTIVE

patients = st.integers(1, 8).map(lambda number: PatientId(UUID(int=number)))
tickets = st.integers(1, 12)
priorities = st.sampled_from(PriorityCode)


@dataclass(frozen=True)
class Line:
    """What the model knows of an entry."""

    ticket: int
    patient: PatientId
    priority: PriorityCode
    arrived_at: datetime
    status: EntryStatus = EntryStatus.WAITING


class QueueUnderAnyDay(RuleBasedStateMachine):
    """Whatever patients and desks do, and however time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History().note(clinic)
        self.model: dict[int, Line] = {}

    @initialize(priorities=st.lists(priorities, min_size=3, max_size=8))
    def some_wait_already(self, priorities: list[PriorityCode]) -> None:
        for number, priority in enumerate(priorities, 1):
            self.somebody_comes(PatientId(UUID(int=number)), priority, early=number % 3)

    @rule(minutes=st.sampled_from([0.5, 7, 31, 95]))
    def time_passes(self, minutes: float) -> None:
        # Not past midnight: the next service day has a queue of its own.
        self.history.at = min(self.history.at + timedelta(minutes=minutes), moment(15 * 60))

    @rule(patient=patients, priority=priorities, early=st.integers(0, 40))
    def somebody_comes(self, patient: PatientId, priority: PriorityCode, early: int) -> None:
        ticket = len(self.model) + 1
        arrived_at = self.history.at - timedelta(minutes=early)
        enqueue = Enqueue(
            department="general",
            entry_id=entry(ticket),
            patient_id=patient,
            encounter_id=EncounterId(UUID(int=100 + ticket)),
            priority=priority,
            arrived_at=arrived_at,
        )
        is_here = any(line.patient == patient and line.status in ACTIVE for line in self.model.values())
        try:
            self.history.carry_out(enqueue)
        except AlreadyInQueue:
            assert is_here
        else:
            assert not is_here
            assert self.history.answer(enqueue) == {"ticket": ticket}
            self.model[ticket] = Line(ticket, patient, priority, arrived_at)

    @rule(desks=st.integers(1, 3))
    def desks_call(self, desks: int) -> None:
        for _ in range(desks):
            waiting = [line for line in self.model.values() if line.status is EntryStatus.WAITING]
            try:
                (event,) = self.history.carry_out(CallNext(department="general"))
            except QueueEmpty:
                assert not waiting
                return
            assert isinstance(event, PatientCalled)
            turn = min(waiting, key=self._order)
            assert (event.ticket, event.patient_id) == (turn.ticket, turn.patient)
            self._nobody_starves(turn, waiting)
            self.model[turn.ticket] = replace(turn, status=EntryStatus.CALLED)

    def _order(self, line: Line) -> tuple[int, datetime, int]:
        return (effective_rank(line.priority, line.arrived_at, self.history.at, 30), line.arrived_at, line.ticket)

    def _nobody_starves(self, turn: Line, waiting: list[Line]) -> None:
        """Who has waited long enough to be lifted twice is overtaken only by emergencies and by who came before."""
        if turn.priority is PriorityCode.STAT:
            return
        for other in waiting:
            if self.history.at - other.arrived_at >= 2 * AGEING:
                assert turn.arrived_at <= other.arrived_at

    @precondition(lambda self: self.model)
    @rule(ticket=tickets, step=st.sampled_from([StartService, CompleteService, MarkNoShow, Requeue, Leave, CloseEntry]))
    def an_entry_goes_on(
        self,
        ticket: int,
        step: type[StartService | CompleteService | MarkNoShow | Requeue | Leave | CloseEntry],
    ) -> None:
        self._step(ticket, step(department="general", entry_id=entry(ticket)))

    @precondition(lambda self: self.model)
    @rule(ticket=tickets, priority=priorities)
    def somebody_becomes_more_or_less_urgent(self, ticket: int, priority: PriorityCode) -> None:
        if self._step(ticket, ChangePriority(department="general", entry_id=entry(ticket), priority=priority)):
            self.model[ticket] = replace(self.model[ticket], priority=priority)

    def _step(self, ticket: int, command: Command) -> bool:
        """Whether the queue took it; what it is now is read from the queue, how it may get there is in `test_queue`."""
        try:
            self.history.carry_out(command)
        except Refusal:
            return False
        if ticket not in self.model:
            return False
        before = self.model[ticket].status
        after = self.queue.entries[entry(ticket)].status
        assert before not in FINAL or after is before, "a closed entry was opened"
        self.model[ticket] = replace(self.model[ticket], status=after)
        return True

    @property
    def queue(self) -> ServiceQueue:
        """The real one."""
        state: ServiceQueue = self.history.states.get(f"queue-{UNIT_ID}.general.{TODAY}", ServiceQueue())
        return state

    @invariant()
    def is_what_the_model_says(self) -> None:
        entries = self.queue.entries.values()
        assert {(e.ticket, e.patient_id, e.priority, e.status) for e in entries} == {
            (line.ticket, line.patient, line.priority, line.status) for line in self.model.values()
        }
        assert len(entries) == len(self.model) == self.queue.last_ticket

    @invariant()
    def a_patient_is_here_once(self) -> None:
        here = [(e.patient_id, e.entry_id) for e in self.queue.entries.values() if e.status in ACTIVE]
        assert dict(here) == self.queue.present
        assert len(here) == len(self.queue.present)

    @invariant()
    def the_lines_hold_exactly_who_waits(self) -> None:
        in_line: list[QueueEntryId] = [place[2] for line in self.queue.lines for place in line]
        waiting = [e.entry_id for e in self.queue.entries.values() if e.status is EntryStatus.WAITING]
        assert sorted(in_line) == sorted(waiting)


QueueUnderAnyDay.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestQueueUnderAnyDay = QueueUnderAnyDay.TestCase
