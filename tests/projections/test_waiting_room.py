"""A department's queue: who waits, who is called, how long it takes, and in the domain's own order."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from contracts.ids import QueueEntryId
from contracts.queue import (
    EntryStatus,
    EntryTransferred,
    PatientCalled,
    PatientEnqueued,
    PatientLeft,
    PatientNoShow,
    PatientRecalled,
    PatientRequeued,
    PriorityChanged,
    PriorityCode,
    ServiceCompleted,
    ServiceStarted,
)
from projections import waiting_room
from tests.projections.facts import MORNING, NORTH, TODAY, enqueued, new_id, patient, unit
from tests.projections.readside import ReadSide

STAT, URGENT = PriorityCode.STAT, PriorityCode.URGENT


def about(entry: PatientEnqueued) -> dict[str, object]:
    """What every later fact of an entry repeats."""
    return {
        "department": entry.department,
        "service_day": entry.service_day,
        "entry_id": entry.entry_id,
        "patient_id": entry.patient_id,
    }


async def look(side: ReadSide, *, minutes: float = 0, closed: bool = False, names: bool = False) -> waiting_room.Room:
    async with side.asking(NORTH) as connection:
        at = MORNING + timedelta(minutes=minutes)
        return await waiting_room.room(connection, NORTH, "er", at=at, closed=closed, names=names)


async def test_those_who_wait_stand_in_the_order_in_which_they_will_be_called(side: ReadSide) -> None:
    await side.write(
        NORTH,
        unit(ageing_minutes=30),
        enqueued(1, minutes=0),
        enqueued(2, minutes=25, priority=URGENT),
        enqueued(3, minutes=26, priority=STAT),
        enqueued(4, minutes=-1),
    )
    room = await look(side, minutes=28)
    assert [(entry.ticket, entry.place) for entry in room.entries] == [(3, 1), (2, 2), (4, 3), (1, 4)]
    later = await look(side, minutes=32)
    assert [entry.ticket for entry in later.entries] == [3, 4, 1, 2], "after half an hour routine ranks with urgent"
    assert room.service_day == TODAY


async def test_an_entry_is_followed_until_it_is_done(side: ReadSide) -> None:
    entry = enqueued(7)

    async def now() -> waiting_room.Entry:
        (only,) = (await look(side, minutes=60, closed=True)).entries
        return only

    await side.write(NORTH, entry)
    await side.write(NORTH, PatientCalled(**about(entry), ticket=7, counter="desk 2"))
    assert ((await now()).status, (await now()).counter, (await now()).calls) == ("called", "desk 2", 1)
    await side.write(NORTH, PatientRecalled(**about(entry), ticket=7))
    assert ((await now()).counter, (await now()).calls) == ("desk 2", 2)
    await side.write(NORTH, PatientNoShow(**about(entry)))
    assert (await now()).status == "no-show"
    await side.write(NORTH, PatientRequeued(**about(entry)), PriorityChanged(**about(entry), priority=STAT))
    waiting = await now()
    assert (waiting.status, waiting.counter, waiting.called_at, waiting.priority) == ("waiting", None, None, "stat")
    assert (waiting.waited_seconds, waiting.place) == (3600, 1), "from the original arrival"
    await side.write(NORTH, PatientCalled(**about(entry), ticket=7), ServiceStarted(**about(entry)))
    assert (await now()).status == "in-service"
    await side.write(NORTH, ServiceCompleted(**about(entry)))
    done = await now()
    assert (done.status, done.place) == ("done", None)
    assert done.ended_at is not None
    assert not (await look(side)).entries, "the closed ones are only listed when asked for"


async def test_leaving_and_going_on_elsewhere_close_an_entry(side: ReadSide) -> None:
    left, moved = enqueued(1), enqueued(2)
    there = QueueEntryId(new_id())
    await side.write(
        NORTH,
        left,
        moved,
        PatientLeft(**about(left)),
        EntryTransferred(
            **about(moved),
            encounter_id=moved.encounter_id,
            priority=moved.priority,
            arrived_at=moved.arrived_at,
            to_department="lab",
            new_entry_id=there,
        ),
    )
    room = await look(side, closed=True)
    assert {entry.ticket: entry.status for entry in room.entries} == {1: "left", 2: "transferred"}
    async with side.asking(NORTH) as connection:
        one = await waiting_room.entry(connection, NORTH, "er", moved.entry_id, at=MORNING)
    assert one is not None
    assert one.transferred_to == there


async def test_counts_and_waits_are_those_of_the_moment(side: ReadSide) -> None:
    called = enqueued(3, minutes=1)
    await side.write(
        NORTH,
        enqueued(1, minutes=0),
        enqueued(2, minutes=10),
        called,
        PatientCalled(**about(called), ticket=3, counter="2"),
    )
    room = await look(side, minutes=20)
    assert {status: count for status, count in room.counts.items() if count} == {"waiting": 2, "called": 1}
    assert set(room.counts) == set(EntryStatus)
    assert (room.longest_wait_seconds, room.mean_wait_seconds) == (1200, 900)
    assert [(call.ticket, call.counter) for call in room.now_calling] == [(3, "2")]
    empty = await look(side, minutes=24 * 60)
    assert (empty.longest_wait_seconds, empty.entries, empty.counts["waiting"]) == (0, [], 0), "another day"


async def test_names_are_told_only_when_asked_for(side: ReadSide) -> None:
    somebody = patient("Ana", "Lund", mrn="MRN-1")
    await side.write(NORTH, unit(), somebody, enqueued(1, patient_id=somebody.patient_id))
    (plain,) = (await look(side)).entries
    (named,) = (await look(side, names=True)).entries
    assert (plain.first_name, plain.last_name, plain.medical_record_number) == (None, None, None)
    assert (named.first_name, named.last_name, named.medical_record_number) == ("Ana", "Lund", "MRN-1")
    assert "Lund" not in (await look(side)).to_json().decode()


async def test_the_service_day_is_the_units_own(side: ReadSide) -> None:
    late = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    await side.write(NORTH, unit(zone="Asia/Tokyo"))
    async with side.asking(NORTH) as connection:
        assert await waiting_room.today(connection, NORTH, late) == date(2026, 3, 2)
        assert await waiting_room.today(connection, "nobody", late) == date(2026, 3, 1)
