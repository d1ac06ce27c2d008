"""What an agent's disk holds, also after it was pulled out in the middle."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from contracts.envelope import Outcome, Status
from contracts.frames import Snapshot
from contracts.ids import EncounterId, PatientId, QueueEntryId, UnitCommandId
from contracts.patient import DemographicsUpdated, PatientDeactivated, PatientRegistered
from contracts.queue import PatientCalled, PatientEnqueued, PatientLeft, PriorityChanged, PriorityCode
from contracts.unit import UnitRegistered, UnitSettings
from contracts.unit_command import UnitCommandApplied, UnitCommandCancelled
from tests.kit.commands import new_id
from tests.unit_agent.told import NOON, UNIT, frame, queued, told
from unit_agent import local_commands, mailbox, outbox, site_queues, site_record
from unit_agent.store import Store, StoreUnusable


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "agent", UNIT) as one:
        yield one


def registered(
    patient_id: PatientId, last_name: str = "Quillfeather", first_name: str = "Zoraida"
) -> PatientRegistered:
    return PatientRegistered(
        patient_id=patient_id,
        medical_record_number=f"MRN-{patient_id.hex[-6:]}",
        first_name=first_name,
        last_name=last_name,
        date_of_birth=date(1984, 2, 29),
    )


def enqueued(entry_id: QueueEntryId, ticket: int, priority: PriorityCode, *, minutes_ago: int = 0) -> PatientEnqueued:
    return PatientEnqueued(
        department="intake",
        service_day=NOON.date(),
        entry_id=entry_id,
        patient_id=PatientId(new_id()),
        encounter_id=EncounterId(new_id()),
        priority=priority,
        ticket=ticket,
        arrived_at=NOON - timedelta(minutes=minutes_ago),
    )


def test_facts_and_position_are_on_disk_together_and_come_back(tmp_path: Path) -> None:
    with Store(tmp_path, UNIT) as store:
        facts = [told(position, registered(PatientId(new_id()))) for position in (3, 8, 9)]
        assert store.take([frame(*facts[:2]), frame(facts[2], after=8)], head=0, now=NOON).position == 9
    with Store(tmp_path, UNIT) as store:
        assert store.position == 9
        figures = store.figures()
    assert (figures["factsApplied"], figures["factsStored"], figures["firstPosition"]) == (3, 3, 3)


def test_a_fact_that_comes_again_is_counted_and_changes_nothing(store: Store) -> None:
    first, second = told(1, registered(PatientId(new_id()))), told(2, registered(PatientId(new_id())))
    store.take([frame(first)], head=0, now=NOON)
    store.take([frame(first, second)], head=0, now=NOON)
    figures = store.figures()
    assert (figures["factsApplied"], figures["duplicatesSeen"], figures["position"]) == (2, 1, 2)


def test_a_fact_that_cannot_be_written_leaves_nothing_of_its_batch(store: Store) -> None:
    good = told(1, registered(PatientId(new_id())))
    broken = told(2, registered(PatientId(new_id()))).model_copy(update={"stream": None})
    with pytest.raises(sqlite3.IntegrityError):
        store.take([frame(good, broken)], head=0, now=NOON)
    assert store.position == 0
    assert store.figures()["factsStored"] == 0
    store.take([frame(good)], head=0, now=NOON)
    assert store.position == 1


def test_a_fact_of_a_newer_release_is_kept_and_passed_over(store: Store) -> None:
    strange = told(1, registered(PatientId(new_id()))).model_copy(update={"type": "billing.InvoiceIssued"})
    store.take([frame(strange)], head=0, now=NOON)
    assert store.position == 1


def test_only_this_account_can_read_it(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_another_unit_s_store_is_not_taken_for_ours(tmp_path: Path) -> None:
    Store(tmp_path, UNIT).close()
    with pytest.raises(StoreUnusable, match="belongs to unit north"):
        Store(tmp_path, "south")


def test_two_agents_do_not_share_a_store(store: Store) -> None:
    with pytest.raises(StoreUnusable, match="another agent"):
        Store(store.path.parent, UNIT)


def test_a_file_that_is_no_store_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnusable, match="set the file aside"):
        Store(tmp_path, UNIT)


def test_patients_are_found_by_the_beginning_of_a_name_by_number_and_by_birth_date(store: Store) -> None:
    ana, ben = PatientId(new_id()), PatientId(new_id())
    store.take(
        [frame(told(1, registered(ana, "O'Quill_n", "Ana")), told(2, registered(ben, "Zoll", "Ben")))], head=0, now=NOON
    )

    def found(text: str) -> list[str]:
        return [one["id"] for one in site_record.search_patients(store.db, text)]

    assert found("o'q") == [str(ana)]
    assert found("BEN") == [str(ben)]
    assert found(f"MRN-{ana.hex[-6:]}") == [str(ana)]
    assert found("1984-02-29") == [str(ana), str(ben)]
    assert found("%") == []
    assert found("O'Quill-") == []
    assert found("") == [str(ana), str(ben)]


def test_a_record_follows_its_facts_and_keeps_nothing_of_an_erased_person(store: Store) -> None:
    patient_id = PatientId(new_id())
    corrected = DemographicsUpdated(
        patient_id=patient_id, first_name="Zora", last_name="Quill", date_of_birth=date(1984, 3, 1)
    )
    gone = PatientDeactivated(patient_id=patient_id)
    facts = [told(1, registered(patient_id)), told(2, corrected), told(3, gone)]
    store.take([frame(*facts)], head=0, now=NOON)
    record = site_record.patient_summary(store.db, str(patient_id))
    assert record is not None
    assert (record["firstName"], record["dateOfBirth"], record["status"]) == ("Zora", "1984-03-01", "inactive")
    erased = told(4, DemographicsUpdated(patient_id=patient_id), erased=True)
    store.take([frame(erased, after=3)], head=0, now=NOON)
    record = site_record.patient_summary(store.db, str(patient_id))
    assert record is not None
    assert record["erased"] is True
    assert "firstName" not in record
    assert "medicalRecordNumber" not in record


def test_the_waiting_room_is_in_the_order_of_calls(store: Store) -> None:
    late, early, urgent, old, left = (QueueEntryId(new_id()) for _ in range(5))
    store.take(
        [
            frame(
                told(1, UnitRegistered(unit_id=UNIT, name="A clinic", kind="prov", settings=UnitSettings())),
                told(2, enqueued(early, 1, PriorityCode.ROUTINE, minutes_ago=20)),
                told(3, enqueued(late, 2, PriorityCode.ROUTINE, minutes_ago=5)),
                told(4, enqueued(urgent, 3, PriorityCode.ROUTINE)),
                told(5, enqueued(old, 4, PriorityCode.ROUTINE, minutes_ago=65)),
                told(6, enqueued(left, 5, PriorityCode.STAT)),
            )
        ],
        head=0,
        now=NOON,
    )
    about = {"department": "intake", "service_day": NOON.date(), "patient_id": PatientId(new_id())}
    store.take(
        [
            frame(
                told(7, PriorityChanged(entry_id=urgent, priority=PriorityCode.ASAP, **about)),
                told(8, PatientLeft(entry_id=left, **about)),
                after=6,
            )
        ],
        head=0,
        now=NOON,
    )
    room = site_queues.waiting_room(store.db, "intake", NOON)
    assert [entry["ticket"] for entry in room["entries"]] == [4, 3, 1, 2]
    store.take(
        [frame(told(9, PatientCalled(entry_id=late, ticket=2, counter="B", **about)), after=8)],
        head=0,
        now=NOON,
    )
    room = site_queues.waiting_room(store.db, "intake", NOON)
    assert (room["entries"][0]["ticket"], room["entries"][0]["status"]) == (2, "called")
    assert room["counts"] == {"waiting": 3, "called": 1, "in-service": 0, "no-show": 0}
    assert site_queues.waiting_room(store.db, "intake", NOON + timedelta(days=1))["entries"] == []


def test_no_unit_command_runs_before_the_feed_has_told_what_became_of_it(store: Store) -> None:
    done, open_still = new_id(), new_id()
    applied = UnitCommandApplied(unit_command_id=UnitCommandId(done), unit_id=UNIT)
    store.take([frame(told(1, queued(done)), told(2, queued(open_still)))], head=3, now=NOON)
    assert mailbox.next_order(store.db, set()) is None
    assert store.take([frame(told(3, applied), after=2)], head=3, now=NOON).runnable == 1
    order = mailbox.next_order(store.db, set())
    assert order is not None
    assert (order.id, order.late) == (open_still, True)


def test_a_cancelled_command_is_not_begun(store: Store) -> None:
    one = new_id()
    store.take([frame(told(1, queued(one)))], head=0, now=NOON)
    order = mailbox.next_order(store.db, set())
    assert order is not None
    cancelled = UnitCommandCancelled(unit_command_id=UnitCommandId(one), unit_id=UNIT)
    store.take([frame(told(2, cancelled), after=1)], head=0, now=NOON)
    assert not mailbox.begin(store.db, order)
    assert mailbox.listing(store.db, 10)[0]["state"] == "called_off"
    assert outbox.depth(store.db) == 0


def test_a_command_of_the_site_waits_through_a_crash_and_is_settled_by_its_outcome(tmp_path: Path) -> None:
    with Store(tmp_path, UNIT) as store:
        kept = local_commands.keep(
            store, UNIT, "queue.CallNext", {"department": "intake"}, subject="desk", key=None, now=NOON
        )
    with Store(tmp_path, UNIT) as store:
        [waiting] = outbox.waiting(store.db, after=0, limit=10)
        assert waiting.command_id == kept.command_id
        outbox.accepted(store.db, [kept.command_id], NOON)
        assert outbox.depth(store.db) == 0
        assert outbox.to_ask(store.db, NOON, 10) == []
        assert outbox.to_ask(store.db, NOON + timedelta(seconds=2), 10) == [kept.command_id]
        outcome = Outcome(
            command_id=kept.command_id, type="queue.CallNext", unit_id=UNIT, status=Status.REFUSED, code="queue_empty",
            partition=1,
        )  # fmt: skip
        outbox.settle(store.db, [outcome])
        status = outbox.status(store.db, str(kept.command_id))
        assert status is not None
        assert (status["status"], status["outcome"]["code"]) == ("settled", "queue_empty")
        assert not outbox.unanswered(store.db)


def test_a_fact_that_came_of_a_command_tells_that_the_centre_has_it(store: Store) -> None:
    kept = local_commands.keep(
        store, UNIT, "queue.CallNext", {"department": "intake"}, subject="desk", key=None, now=NOON
    )
    fact = told(1, registered(PatientId(new_id())), command_id=kept.command_id)
    assert store.take([frame(fact)], head=0, now=NOON).answered == 1
    assert outbox.depth(store.db) == 0
    assert outbox.to_ask(store.db, NOON, 10) == [kept.command_id]


def test_a_snapshot_tells_again_of_a_unit_command_that_the_journal_has_forgotten(store: Store) -> None:
    command_id = new_id()
    old = told(3, queued(command_id))
    called_off = told(4, UnitCommandCancelled(unit_command_id=UnitCommandId(command_id), unit_id=UNIT, reason="no"))
    store.take([frame(old, called_off)], head=0, now=NOON)
    store.db.execute("DELETE FROM unit_commands")  # as pruning does, long before facts go
    snapshot = Snapshot(epoch=1, position=90, part=0, last=True, facts=[old])
    assert store.take([snapshot], head=90, now=NOON).position == 90
    assert [row["unit_command_id"] for row in store.db.execute("SELECT * FROM unit_commands")] == [str(command_id)]
    assert [row["position"] for row in store.db.execute("SELECT position FROM facts ORDER BY position")] == [3, 4]
