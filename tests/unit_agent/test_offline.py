"""A site that is cut off: what it may do, what shows at once, and what becomes of that when the centre has spoken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contracts.encounter import ClinicianNotified, EncounterClass, PatientArrived, PatientDischarged
from contracts.envelope import Json, Outcome, Status
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.patient import PatientRegistered
from contracts.queue import PatientCalled, PatientEnqueued, PatientLeft, PriorityCode
from tests.kit.commands import new_id
from tests.unit_agent.told import NOON, UNIT, frame, told
from unit_agent import conflicts, local_views, outbox, site_queues
from unit_agent.local_commands import Kept, NotNow, keep
from unit_agent.store import Store

PERSON: Json = {
    "medicalRecordNumber": "MRN-77",
    "firstName": "Ottoline",
    "lastName": "Quillfeather",
    "dateOfBirth": "1984-02-29",
}


class Site:
    """A unit's store and its desk; the centre is a long way off."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOON
        self.linked = False

    def do(self, type_name: str, key: str | None = None, **payload: Any) -> Kept:  # Any: JSON values
        self.now += timedelta(minutes=1)
        return keep(self.store, UNIT, type_name, payload, subject="desk", key=key, now=self.now, linked=self.linked)

    def arrive(self, patient_id: str, **more: str) -> Kept:
        return self.do("encounter.CheckIn", patientId=patient_id, department="intake", **more)

    def step(self, name: str, entry_id: str, **more: str) -> Kept:
        return self.do(f"queue.{name}", department="intake", entryId=entry_id, **more)

    def line(self) -> list[tuple[str, str, bool]]:
        """Who stands where in the waiting room, and whether the centre knows."""
        room = site_queues.waiting_room(self.store.db, "intake", self.now)
        return [(one["id"], one["status"], one.get("provisional", False)) for one in room["entries"]]

    def settle(self, kept: Kept, status: Status, code: str | None = None, position: int | None = None) -> None:
        """The centre tells how a command ended."""
        outcome = Outcome(
            command_id=kept.command_id, type="queue.CallNext", unit_id=UNIT, status=status, code=code, partition=1,
            position=position,
        )  # fmt: skip
        with self.store.transaction() as db:
            outbox.settle(db, [outcome])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Store(tmp_path / "agent", UNIT) as store:
        yield Site(store)


def somebody() -> str:
    return str(new_id())


def enqueued(entry_id: str, patient_id: str, encounter_id: str, ticket: int) -> PatientEnqueued:
    return PatientEnqueued(
        department="intake",
        service_day=NOON.date(),
        entry_id=QueueEntryId(UUID(entry_id)),
        patient_id=PatientId(UUID(patient_id)),
        encounter_id=EncounterId(UUID(encounter_id)),
        priority=PriorityCode.ROUTINE,
        ticket=ticket,
        arrived_at=NOON,
    )


def test_a_whole_visit_at_a_desk_that_is_cut_off(site: Site) -> None:
    registered = site.do("patient.RegisterPatient", **PERSON)
    patient_id = registered.ids["patientId"]
    [found] = local_views.search_patients(site.store.db, "quill")
    assert (found["id"], found["provisional"]) == (patient_id, True)

    arrived = site.arrive(patient_id)
    entry_id = arrived.ids["queueEntryId"]
    assert site.line() == [(entry_id, "waiting", True)]
    summary = local_views.patient_summary(site.store.db, patient_id)
    assert summary is not None
    assert [(one["id"], one["provisional"]) for one in summary["encounters"]] == [(arrived.ids["encounterId"], True)]
    assert [one["id"] for one in summary["queueEntries"]] == [entry_id]

    called = site.do("queue.CallNext", department="intake", counter="B")
    assert called.place == {
        "entryId": entry_id, "patientId": patient_id, "encounterId": arrived.ids["encounterId"], "counter": "B",
    }  # fmt: skip
    assert site.line() == [(entry_id, "called", True)]
    site.step("StartService", entry_id)
    assert site.line() == [(entry_id, "in-service", True)]
    site.step("CompleteService", entry_id)
    assert site.line() == []
    site.do("encounter.Discharge", encounterId=arrived.ids["encounterId"])
    summary = local_views.patient_summary(site.store.db, patient_id)
    assert summary is not None
    assert summary["encounters"] == summary["queueEntries"] == []
    goes_up = outbox.waiting(site.store.db, after=0, limit=10)
    assert [one.type.partition(".")[2] for one in goes_up] == [
        "RegisterPatient", "CheckIn", "CallNext", "StartService", "CompleteService", "Discharge",
    ]  # fmt: skip
    assert goes_up[2].payload["entryId"] == entry_id


def test_what_the_centre_tells_takes_the_place_of_what_was_shown_until_then(site: Site) -> None:
    registered = site.do("patient.RegisterPatient", **PERSON)
    patient_id = registered.ids["patientId"]
    arrived = site.arrive(patient_id)
    entry_id, visit = arrived.ids["queueEntryId"], arrived.ids["encounterId"]
    called = site.do("queue.CallNext", department="intake")
    started = site.step("StartService", entry_id)
    about = {"patient_id": PatientId(UUID(patient_id)), "encounter_id": EncounterId(UUID(visit))}
    place = {"department": "intake", "queue_entry_id": QueueEntryId(UUID(entry_id)), "priority": PriorityCode.ROUTINE}
    record = PatientRegistered(patient_id=PatientId(UUID(patient_id)), first_name="Ottoline", last_name="Quillfeather")
    visit_opened = PatientArrived(encounter_class=EncounterClass.AMBULATORY, **about, **place)
    facts = [
        told(1, record, command_id=registered.command_id),
        told(2, visit_opened, command_id=arrived.command_id),
        told(3, ClinicianNotified(**about, **place), command_id=arrived.command_id),
        told(4, enqueued(entry_id, patient_id, visit, 9), command_id=arrived.command_id),
        told(
            5,
            PatientCalled(
                department="intake", service_day=NOON.date(), entry_id=QueueEntryId(UUID(entry_id)),
                patient_id=PatientId(UUID(patient_id)), ticket=9,
            ),
            command_id=called.command_id,
        ),
    ]  # fmt: skip
    # Wherever a page of the feed ends, the patient is seen once, in one place.
    for after, fact in enumerate(facts):
        site.store.take([frame(fact, after=after)], head=0, now=site.now)
        assert [one["id"] for one in local_views.search_patients(site.store.db, "Ottoline")] == [patient_id]
        summary = local_views.patient_summary(site.store.db, patient_id)
        assert summary is not None
        assert [one["id"] for one in summary["encounters"]] == [visit]
        assert site.line() == [(entry_id, "in-service", True)]
    assert "provisional" not in local_views.search_patients(site.store.db, "Ottoline")[0]
    assert site_queues.waiting_room(site.store.db, "intake", site.now)["entries"][0]["ticket"] == 9
    site.settle(started, Status.ACCEPTED, position=6)
    assert site.line() == [(entry_id, "in-service", True)], "its fact is still on the way"
    # A snapshot may bring the feed past that fact without telling it.
    site.store.take([frame(told(7, record), after=5)], head=0, now=site.now)
    assert site.line() == [(entry_id, "called", False)]


def test_a_refusal_takes_back_what_was_shown_and_stays_as_a_conflict(site: Site) -> None:
    entry_id, patient_id = str(new_id()), somebody()
    site.store.take([frame(told(1, enqueued(entry_id, patient_id, str(new_id()), 4)))], head=0, now=NOON)
    called = site.do("queue.CallNext", department="intake")
    assert called.place["ticket"] == 4
    assert site.line() == [(entry_id, "called", True)]
    for _ in range(2):  # told twice, kept once
        site.settle(called, Status.REFUSED, "entry_not_waiting")
    assert site.line() == [(entry_id, "waiting", False)]
    [one] = conflicts.listing(site.store.db, before=None, only_open=True, limit=10)
    assert (one["commandId"], one["kind"], one["code"]) == (str(called.command_id), "refused", "entry_not_waiting")
    assert (one["type"], one["subject"]) == ("queue.CallNext", "desk")
    assert conflicts.counts(site.store.db) == {"open": 1, "total": 1}
    assert conflicts.by_code(site.store.db) == {"entry_not_waiting": 1}
    assert conflicts.seen(site.store.db, str(called.command_id), NOON)
    assert not conflicts.seen(site.store.db, somebody(), NOON)
    assert conflicts.counts(site.store.db) == {"open": 0, "total": 1}
    assert conflicts.listing(site.store.db, before=None, only_open=True, limit=10) == []


def test_a_command_the_centre_s_door_does_not_take_is_a_conflict_too(site: Site) -> None:
    arrived = site.arrive(somebody())
    with site.store.transaction() as db:
        outbox.refused(db, arrived.command_id, "command_unknown", "This release knows no such command.")
    assert site.line() == []
    [one] = conflicts.listing(site.store.db, before=None, only_open=False, limit=10)
    assert (one["kind"], one["code"]) == ("declined", "command_unknown")


def test_a_dead_letter_that_operators_bring_to_its_end_is_no_open_conflict_any_more(site: Site) -> None:
    patient_id = somebody()
    arrived = site.arrive(patient_id)
    entry_id, visit = arrived.ids["queueEntryId"], arrived.ids["encounterId"]
    site.settle(arrived, Status.FAILED, "poison")
    assert conflicts.counts(site.store.db) == {"open": 1, "total": 1}
    fact = told(1, enqueued(entry_id, patient_id, visit, 1), command_id=arrived.command_id)
    site.store.take([frame(fact)], head=0, now=NOON)
    assert conflicts.counts(site.store.db) == {"open": 0, "total": 1}
    assert site.line() == [(entry_id, "waiting", False)]


def test_commands_that_need_the_link_are_refused_while_it_is_down(site: Site) -> None:
    with pytest.raises(NotNow) as refused:
        site.do("patient.AssignMrn", key="a", patientId=somebody(), medicalRecordNumber="MRN-78")
    assert refused.value.code == "needs_link"
    assert outbox.depth(site.store.db) == 0
    site.linked = True
    site.do("patient.AssignMrn", key="a", patientId=somebody(), medicalRecordNumber="MRN-78")
    assert outbox.depth(site.store.db) == 1


def test_what_may_wait_waits_and_shows_nothing(site: Site) -> None:
    kept = site.do("encounter.Triage", encounterId=str(new_id()), acuity=2)
    assert (kept.shown, outbox.depth(site.store.db)) == (False, 1)


def test_with_the_link_up_the_centre_says_whose_turn_it_is(site: Site) -> None:
    site.arrive(somebody())
    site.linked = True
    called = site.do("queue.CallNext", department="intake")
    assert (called.shown, called.place) == (False, {})
    assert "entryId" not in outbox.waiting(site.store.db, after=1, limit=1)[0].payload


def test_a_call_made_twice_under_one_key_calls_one_patient(site: Site) -> None:
    first, second = site.arrive(somebody()), site.arrive(somebody())
    calls = [site.do("queue.CallNext", key="once", department="intake") for _ in range(2)]
    site.linked = True
    calls.append(site.do("queue.CallNext", key="once", department="intake"))
    assert {one.place["entryId"] for one in calls} == {first.ids["queueEntryId"]}
    assert [status for _, status, _ in site.line()] == ["called", "waiting"]
    site.linked = False
    assert site.do("queue.CallNext", department="intake").place["entryId"] == second.ids["queueEntryId"]


def test_the_most_urgent_is_called_also_when_it_became_urgent_offline(site: Site) -> None:
    first, second, third = (site.arrive(somebody(), priority=code).ids["queueEntryId"] for code in ("routine",) * 3)
    site.step("ChangePriority", third, priority="stat")
    assert [one for one, _, _ in site.line()] == [third, first, second]
    assert site.do("queue.CallNext", department="intake").place["entryId"] == third


def refused(site: Site, type_name: str, **payload: Any) -> tuple[str, dict[str, str]]:  # Any: JSON values
    with pytest.raises(NotNow) as why:
        site.do(type_name, **payload)
    return why.value.code, why.value.about


def test_what_the_centre_would_surely_refuse_is_refused_at_the_desk(site: Site) -> None:
    assert refused(site, "queue.CallNext", department="intake") == ("queue_empty", {"department": "intake"})
    who = somebody()
    entry_id = site.arrive(who).ids["queueEntryId"]
    place = {"department": "intake", "entryId": entry_id}
    assert refused(site, "queue.StartService", **place)[0] == "entry_not_called"
    assert refused(site, "queue.CompleteService", **place)[0] == "entry_not_in_service"
    site.do("queue.CallNext", department="intake")
    assert refused(site, "queue.Requeue", **place)[0] == "entry_not_no_show"
    assert refused(site, "queue.CallNext", **place)[0] == "entry_not_waiting"
    assert refused(site, "encounter.CheckIn", patientId=who, department="intake")[0] == "encounter_already_open"
    site.step("Leave", entry_id)
    site.step("Leave", entry_id)
    assert refused(site, "queue.Recall", **place) == ("entry_closed", {"entryId": entry_id, "status": "left"})
    site.do("patient.RegisterPatient", **PERSON)
    assert refused(site, "patient.RegisterPatient", **PERSON)[0] == "mrn_taken"
    site.linked = True
    assert not site.do("patient.RegisterPatient", **PERSON).shown, "the centre decides, and nothing is shown meanwhile"


def test_of_what_it_has_not_heard_the_desk_takes_everything(site: Site) -> None:
    kept = site.step("StartService", str(new_id()))
    assert kept.shown
    assert site.line() == []


def test_a_patient_whose_visit_is_cancelled_is_not_called_and_may_come_again(site: Site) -> None:
    who = somebody()
    visit = site.arrive(who).ids["encounterId"]
    site.do("encounter.CancelVisit", encounterId=visit)
    assert refused(site, "queue.CallNext", department="intake")[0] == "queue_empty"
    again = site.arrive(who)
    assert site.line() == [(again.ids["queueEntryId"], "waiting", True)]


def test_the_end_of_a_visit_is_told_by_its_facts(site: Site) -> None:
    entry_id, who, visit = str(new_id()), somebody(), str(new_id())
    about = {"patient_id": PatientId(UUID(who)), "encounter_id": EncounterId(UUID(visit))}
    place = {"department": "intake", "queue_entry_id": QueueEntryId(UUID(entry_id))}
    opened = PatientArrived(priority=PriorityCode.ROUTINE, encounter_class=EncounterClass.AMBULATORY, **about, **place)
    site.store.take([frame(told(1, opened), told(2, enqueued(entry_id, who, visit, 1)))], head=0, now=NOON)
    ended = site.do("encounter.Discharge", encounterId=visit)
    assert site.line() == []
    left = PatientLeft(
        department="intake", service_day=NOON.date(), entry_id=QueueEntryId(UUID(entry_id)),
        patient_id=PatientId(UUID(who)),
    )  # fmt: skip
    facts = [
        told(3, PatientDischarged(**about, **place), command_id=ended.command_id),
        told(4, left, command_id=ended.command_id),
    ]
    site.store.take([frame(*facts, after=2)], head=0, now=NOON)
    assert site.line() == []
    for table in ("patients", "encounters", "ends", "places", "steps"):
        [count] = site.store.db.execute(f"SELECT count(*) FROM provisional_{table}").fetchone()  # noqa: S608 - ours
        assert count == 0


def test_what_is_shown_is_on_disk_like_the_command_it_comes_of(tmp_path: Path) -> None:
    with Store(tmp_path, UNIT) as store:
        entry_id = Site(store).arrive(somebody()).ids["queueEntryId"]
    with Store(tmp_path, UNIT) as store:
        assert Site(store).line() == [(entry_id, "waiting", True)]


def test_only_the_oldest_are_asked_about_and_those_a_fact_has_told_of(site: Site) -> None:
    kept = [site.arrive(somebody()).command_id for _ in range(9)]
    with site.store.transaction() as db:
        outbox.accepted(db, kept, NOON)
        soon = NOON + timedelta(seconds=2)
        assert outbox.to_ask(db, soon, 3) == kept[:3]
        assert outbox.to_ask(db, soon, 3) == [], "while those have no outcome, nobody behind them has"
        told_of = told(1, enqueued(str(new_id()), somebody(), str(new_id()), 1), command_id=kept[7])
        assert outbox.learn(db, told_of)
        assert outbox.to_ask(db, soon, 3) == [kept[7]]
        settled = [
            Outcome(command_id=one, type="encounter.CheckIn", unit_id=UNIT, status=Status.UNCHANGED, partition=1)
            for one in kept[:3]
        ]
        outbox.settle(db, settled)
        assert outbox.to_ask(db, soon, 3) == kept[3:6]
