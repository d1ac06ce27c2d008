"""Whose turn it is: priority, lifted by waiting, then arrival, then ticket; the same for one desk and for ten."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from command_handlers.domain.queue import Entry, effective_rank, order_key, queue_stream
from contracts.ids import EncounterId, PatientId
from contracts.queue import CallNext, PatientCalled, PatientEnqueued, PriorityChanged, PriorityCode
from contracts.unit import UnitConfigured, UnitSettings
from tests.domain.examples import TODAY, clinic, enqueued, entry, moment
from tests.kit.deciding import MORNING, UNIT_ID, given

ROUTINE, URGENT, ASAP, STAT = PriorityCode.ROUTINE, PriorityCode.URGENT, PriorityCode.ASAP, PriorityCode.STAT


def waits(ticket: int, priority: PriorityCode = ROUTINE, *, since: float = 0) -> PatientEnqueued:
    """Somebody with this ticket has been waiting since that many minutes into the morning."""
    return enqueued(
        ticket,
        patient=PatientId(UUID(int=ticket)),
        visit=EncounterId(UUID(int=1000 + ticket)),
        entry_id=entry(ticket),
        priority=priority,
        arrived_at=moment(since),
    )


def called(*waiting: PatientEnqueued | PriorityChanged | UnitConfigured, at: float) -> list[int]:
    """Tickets in the order in which they are called, all at the same minute of the morning."""
    history = given(clinic, *waiting).at(moment(at)).history
    entries = sum(isinstance(event, PatientEnqueued) for event in waiting)
    events = [history.carry_out(CallNext(department="general"))[0] for _ in range(entries)]
    return [event.ticket for event in events if isinstance(event, PatientCalled)]


def test_who_came_first_is_called_first() -> None:
    assert called(waits(1, since=3), waits(2, since=1), waits(3, since=2), at=5) == [2, 3, 1]


def test_who_is_more_urgent_is_called_earlier() -> None:
    assert called(waits(1), waits(2, URGENT), waits(3, ASAP), waits(4, STAT), at=5) == [4, 3, 2, 1]


def test_of_two_who_came_at_the_same_moment_the_lower_ticket_is_called() -> None:
    assert called(waits(1, since=1), waits(2, since=1), at=5) == [1, 2]


def test_waiting_lifts_by_one_priority_at_a_time() -> None:
    assert called(waits(1, since=0), waits(2, URGENT, since=29), at=29.9) == [2, 1]
    assert called(waits(1, since=0), waits(2, URGENT, since=29), at=30) == [1, 2]
    assert called(waits(1, since=0), waits(2, ASAP, since=59), at=59.9) == [2, 1]
    assert called(waits(1, since=0), waits(2, ASAP, since=59), at=60) == [1, 2]


def test_nobody_waits_their_way_past_an_emergency() -> None:
    assert called(waits(1, since=0), waits(2, STAT, since=599), at=600) == [2, 1]


def test_how_fast_waiting_lifts_is_the_units_to_decide() -> None:
    quick = UnitConfigured(unit_id=UNIT_ID, settings=UnitSettings(ageing_minutes=5))
    assert called(quick, waits(1, since=0), waits(2, URGENT, since=4), at=5) == [1, 2]


def test_a_changed_priority_counts_from_the_same_arrival() -> None:
    now_urgent = PriorityChanged(
        department="general", service_day=TODAY, entry_id=entry(2), patient_id=PatientId(UUID(int=2)), priority=URGENT
    )
    assert called(waits(1, URGENT, since=2), waits(2, since=1), now_urgent, at=3) == [2, 1]


@pytest.mark.parametrize(
    ("priority", "minutes", "rank"),
    [
        (ROUTINE, 0, 3),
        (ROUTINE, 29.99, 3),
        (ROUTINE, 30, 2),
        (ROUTINE, 60, 1),
        (ROUTINE, 6000, 1),
        (URGENT, 29.99, 2),
        (URGENT, 30, 1),
        (URGENT, 300, 1),
        (ASAP, 300, 1),
        (STAT, 0, 0),
        (STAT, 300, 0),
        (ROUTINE, -300, 3),
        (STAT, -300, 0),
    ],
)
def test_the_rank_of_a_wait(priority: PriorityCode, minutes: float, rank: int) -> None:
    """A clock at a unit may be ahead of ours: who arrives in the future has not waited yet."""
    assert effective_rank(priority, MORNING, moment(minutes), 30) == rank


def test_the_order_is_told_by_one_key() -> None:
    one = Entry(entry(1), PatientId(UUID(int=1)), EncounterId(UUID(int=2)), URGENT, 7, MORNING)
    assert order_key(one, MORNING + timedelta(minutes=31), 30) == (1, MORNING, 7)


def test_two_units_never_share_a_queue_however_their_names_are_cut() -> None:
    def stream(unit: str, department: str, day: datetime) -> str:
        return queue_stream(unit, department, day.date())

    assert stream("a-b", "c", MORNING) != stream("a", "b-c", MORNING)
    assert stream("north-clinic", "general", MORNING) == "queue-north-clinic.general.2025-03-03"
