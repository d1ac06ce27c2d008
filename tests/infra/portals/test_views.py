"""What facts mean on a portal."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from contracts.encounter import Discharge, StartConsultation, Triage
from contracts.portal import Event, EventName, PatientStatusChanged, QueueUpdated, UnitChanged
from contracts.queue import CallNext, ChangePriority, MarkNoShow, PriorityCode, Requeue, StartService, TransferEntry
from contracts.unit import ResumeUnit, SuspendUnit
from contracts.unit_credential import IssueEnrolmentCode
from contracts.unit_presence import UnitBack, UnitUnreachable
from infra.portals.channel import needed
from infra.portals.views import Shown, Views
from tests.infra.portals.facts import Day
from tests.kit.commands import new_id
from tests.kit.deciding import UNIT_ID


def busy_day() -> Day:
    """Everything that boards show."""
    day = Day()
    first, second, third = day.arrives(), day.arrives(), day.arrives("radiology")
    day.does(Triage(encounter_id=first.encounter_id, acuity=2, note="pale"))
    day.does(ChangePriority(department="general", entry_id=second.queue_entry_id, priority=PriorityCode.STAT))
    day.does(CallNext(department="general", counter="3"))
    day.does(MarkNoShow(department="general", entry_id=second.queue_entry_id))
    day.does(Requeue(department="general", entry_id=second.queue_entry_id))
    day.does(CallNext(department="general", counter="4"))
    day.does(StartService(department="general", entry_id=second.queue_entry_id))
    day.does(StartConsultation(encounter_id=second.encounter_id))
    day.does(
        TransferEntry(
            department="radiology",
            entry_id=third.queue_entry_id,
            to_department="general",
            new_entry_id=new_id(),
        )
    )
    day.does(Discharge(encounter_id=second.encounter_id, note="well"))
    day.does(SuspendUnit(reason="works"))
    day.does(ResumeUnit())
    return day


def shown_of(day: Day, views: Views | None = None) -> list[Shown]:
    """Everything a portal that is there from the beginning is shown."""
    views = views or Views()
    assert not views.misses(day.facts)
    return [shown for fact in day.facts if (shown := views.show(UNIT_ID, fact)) is not None]


def test_each_fact_is_one_event_at_most_that_fits_the_protocol_and_tells_no_name() -> None:
    day = busy_day()
    shown = shown_of(day)
    assert [one.position for one in shown] == sorted({one.position for one in shown})
    for one in shown:
        assert Event.model_validate_json(one.frame) == one.event
        assert one.sse.startswith(b"id: %d\nevent: %b\ndata: {" % (one.position, one.event.event.encode()))
        assert b"Quillfeather" not in one.frame
        assert b"cough" not in one.frame
        assert b"pale" not in one.frame
    assert Counter(one.event.event for one in shown) == {
        EventName.NOTIFICATION: 3,
        EventName.QUEUE_UPDATED: 12,
        EventName.PATIENT_STATUS_CHANGED: 10,
        EventName.UNIT_CHANGED: 3,
    }


def test_the_newest_event_of_each_thing_tells_all_of_it() -> None:
    """Conflation may leave out all others: nothing is lost by that."""
    day = busy_day()
    newest = {one.key: one.event.data for one in shown_of(day)}
    queue = [data for data in newest.values() if isinstance(data, QueueUpdated)]
    general = {data.entry.ticket: data.entry for data in queue if data.department == "general"}
    assert {ticket: entry.status for ticket, entry in general.items()} == {1: "waiting", 2: "done", 3: "waiting"}
    assert (general[2].counter, general[2].calls, general[2].priority) == ("4", 2, "stat")
    assert general[2].started_at is not None
    assert general[2].ended_at is not None
    (moved,) = (data.entry for data in queue if data.department == "radiology")
    assert (moved.status, moved.transferred_to) == ("transferred", general[3].id)
    counts = [one.event.data.counts for one in shown_of(day) if isinstance(one.event.data, QueueUpdated)]
    assert {status: number for status, number in counts[-1].items() if number} == {"waiting": 2, "done": 1}
    visits = [data.visit for data in newest.values() if isinstance(data, PatientStatusChanged) and data.visit]
    assert sorted((visit.status, visit.department, visit.acuity) for visit in visits if visit.acuity) == [
        ("triaged", "general", 2)
    ]
    assert {visit.status for visit in visits} == {"triaged", "finished", "arrived"}
    assert {visit.department for visit in visits} == {"general"}
    (unit,) = (data for data in newest.values() if isinstance(data, UnitChanged))
    assert (unit.status, unit.reachable) == ("active", True)


def test_whoever_joins_late_is_shown_the_same_once_the_streams_were_read() -> None:
    day = busy_day()
    everything = {one.position: one.frame for one in shown_of(day)}
    for start in range(0, len(day.facts), 3):
        late = day.facts[start:]
        views = Views()
        before = needed(views, late)
        views.learn([fact for fact in day.facts if fact.stream in before], before)
        assert not views.misses(late)
        shown = [one for fact in late if (one := views.show(UNIT_ID, fact)) is not None]
        assert [(one.position, one.frame) for one in shown] == [
            (position, frame) for position, frame in everything.items() if position >= late[0].position
        ]


def test_a_fact_that_cannot_be_shown_is_told_of_and_holds_up_nobody() -> None:
    day = Day()
    day.arrives()
    broken = day.facts[-1].model_copy(update={"payload": {"entryId": "x"}})
    newer = day.facts[1].model_copy(update={"version": 99})
    faults: list[str] = []
    views = Views(fault=lambda fact, why: faults.append(fact.type))
    shown = [views.show(UNIT_ID, fact) for fact in (day.facts[0], newer, *day.facts[2:-1], broken)]
    day.arrives()
    assert faults == [newer.type, broken.type]
    assert shown[0] is not None
    assert not views.misses(day.facts)
    assert all(views.show(UNIT_ID, fact) for fact in day.facts[len(shown) :])


def test_a_unit_that_cannot_be_reached_and_is_back_is_shown_and_its_keys_are_not() -> None:
    day = Day()
    before = len(shown_of(day))
    day.happens(UnitUnreachable(unit_id=UNIT_ID, since=day.at))
    day.does(IssueEnrolmentCode(code_hash="5f" * 32, expires_at=day.at + timedelta(hours=1)))
    day.happens(UnitBack(unit_id=UNIT_ID, away_seconds=400))
    changes = [one.event.data for one in shown_of(day)[before:]]
    assert [(data.change, data.reachable, data.status) for data in changes if isinstance(data, UnitChanged)] == [
        ("UnitUnreachable", False, "active"), ("UnitBack", True, "active"),
    ]  # fmt: skip
    assert len(changes) == 2
