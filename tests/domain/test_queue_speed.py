"""A long day in a large department: deciding and folding stay a small part of what a command costs."""

from __future__ import annotations

from datetime import timedelta
from statistics import median
from time import perf_counter
from uuid import UUID

from contracts.ids import EncounterId, PatientId
from contracts.queue import CallNext, PriorityCode
from tests.domain.examples import clinic, enqueued, entry
from tests.kit.deciding import MORNING, History

ENTRIES = 2_000


def test_calling_the_next_of_two_thousand_takes_far_less_than_a_millisecond() -> None:
    """About 20 microseconds on the machine this was written on; the bound leaves room for a busy one."""
    history = History().note(clinic)
    for ticket in range(1, ENTRIES + 1):
        history.note(
            enqueued(
                ticket,
                patient=PatientId(UUID(int=ticket)),
                visit=EncounterId(UUID(int=ENTRIES + ticket)),
                entry_id=entry(ticket),
                priority=list(PriorityCode)[ticket % 4],
                arrived_at=MORNING + timedelta(seconds=ticket),
            )
        )
    history.at = MORNING + timedelta(hours=2)
    spent = []
    for _ in range(200):
        begun = perf_counter()
        history.note(*history.decide(CallNext(department="general")))
        spent.append(perf_counter() - begun)
    assert median(spent) < 0.0005
