"""The order said in SQL is the order the domain says, for any line at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_handlers.domain.queue import Entry, order_key
from contracts.queue import PatientEnqueued, PriorityCode
from projections import waiting_room
from tests.projections.facts import MORNING, NORTH, enqueued, unit
from tests.projections.readside import ReadSide, read_side

Arrival = tuple[PriorityCode, int]
"""A priority, and seconds into the morning."""

lines = st.lists(st.tuples(st.sampled_from(PriorityCode), st.integers(0, 40).map(lambda step: step * 300)), max_size=12)


def test_the_order_in_sql_is_the_domains_order(postgres: str) -> None:
    days = (date(2020, 1, 1) + timedelta(days=number) for number in count())
    whole = read_side(postgres)
    with asyncio.Runner() as loop:
        side = loop.run(whole.__aenter__())
        loop.run(side.write(NORTH, unit()))

        @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(line=lines, seconds=st.integers(-600, 4 * 3600), ageing=st.integers(1, 90))
        def agrees(line: Sequence[Arrival], seconds: int, ageing: int) -> None:
            loop.run(_agrees(side, next(days), line, seconds, ageing))

        agrees()
        loop.run(whole.__aexit__(None, None, None))


async def _agrees(side: ReadSide, day: date, line: Sequence[Arrival], seconds: int, ageing: int) -> None:
    await side.admin.execute("UPDATE read_units SET ageing_minutes = %s", (ageing,))
    facts = [
        enqueued(ticket, priority=priority, minutes=arrived / 60, day=day)
        for ticket, (priority, arrived) in enumerate(line, start=1)
    ]
    if facts:
        await side.write(NORTH, *facts)
    at = MORNING + timedelta(seconds=seconds)
    async with side.asking(NORTH) as connection:
        room = await waiting_room.room(connection, NORTH, "er", at=at, service_day=day)
    in_turn = sorted(facts, key=lambda fact: order_key(_as_entry(fact), at, ageing))
    assert [entry.ticket for entry in room.entries] == [fact.ticket for fact in in_turn]
    assert [entry.place for entry in room.entries] == list(range(1, len(facts) + 1))


def _as_entry(fact: PatientEnqueued) -> Entry:
    return Entry(
        entry_id=fact.entry_id,
        patient_id=fact.patient_id,
        encounter_id=fact.encounter_id,
        priority=fact.priority,
        ticket=fact.ticket,
        arrived_at=fact.arrived_at,
    )
