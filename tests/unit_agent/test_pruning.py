"""A store does not grow for ever, and loses nothing that anybody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from contracts.envelope import Outcome, Status
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.patient import PatientRegistered
from contracts.queue import PatientEnqueued, PatientLeft, PriorityCode
from tests.kit.commands import new_id
from tests.unit_agent.told import NOON, UNIT, frame, queued, told
from unit_agent import local_commands, mailbox, outbox
from unit_agent.pruning import Keep, pruned
from unit_agent.store import Store

YEARS_LATER = NOON + timedelta(days=1000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "agent", UNIT) as one:
        yield one


def registered() -> PatientRegistered:
    return PatientRegistered(
        patient_id=PatientId(new_id()), first_name="Zora", last_name="Quill", date_of_birth=date(1984, 2, 29)
    )


async def test_old_facts_go_and_do_not_come_again(store: Store) -> None:
    facts = [told(position, registered()) for position in range(1, 11)]
    store.take([frame(*facts)], head=0, now=NOON)
    assert await pruned(store, NOON, Keep()) == 0
    assert await pruned(store, NOON, Keep(facts=4)) == 6
    assert [row[0] for row in store.db.execute("SELECT position FROM facts")] == [7, 8, 9, 10]
    assert await pruned(store, YEARS_LATER, Keep()) == 4
    assert store.position == 10
    store.take([frame(*facts)], head=0, now=NOON)
    assert store.figures()["factsApplied"] == 10
    assert store.db.execute("SELECT count(*) FROM patients").fetchone()[0] == 10


async def test_places_that_are_over_go_and_those_that_are_not_stay_however_old(store: Store) -> None:
    entries = [QueueEntryId(new_id()) for _ in range(2)]
    about = {"department": "intake", "service_day": NOON.date(), "patient_id": PatientId(new_id())}
    joined = [
        PatientEnqueued(
            **about, entry_id=entry, encounter_id=EncounterId(new_id()), priority=PriorityCode.ROUTINE, ticket=1,
            arrived_at=NOON,
        )
        for entry in entries
    ]  # fmt: skip
    left = PatientLeft(**about, entry_id=entries[0])
    store.take([frame(told(1, joined[0]), told(2, joined[1]), told(3, left))], head=0, now=NOON)
    await pruned(store, YEARS_LATER, Keep())
    assert [row[0] for row in store.db.execute("SELECT entry_id FROM queue_entries")] == [str(entries[1])]


async def test_commands_stay_until_their_outcome_is_known_and_for_a_while_after(store: Store) -> None:
    waiting, settled = (
        local_commands.keep(
            store, UNIT, "queue.CallNext", {"department": department}, subject="desk", key=None, now=NOON
        ).command_id
        for department in ("intake", "er")
    )
    outbox.accepted(store.db, [settled], NOON)
    outcome = Outcome(command_id=settled, type="queue.CallNext", unit_id=UNIT, status=Status.ACCEPTED, partition=1)
    outbox.settle(store.db, [outcome])
    await pruned(store, NOON + timedelta(days=1), Keep())
    assert outbox.status(store.db, str(settled)) is not None
    await pruned(store, YEARS_LATER, Keep())
    assert outbox.status(store.db, str(settled)) is None
    assert outbox.status(store.db, str(waiting)) is not None


async def test_the_journal_keeps_what_the_centre_has_not_confirmed(store: Store) -> None:
    store.take([frame(told(1, queued()))], head=0, now=NOON)
    order = mailbox.next_order(store.db, set())
    assert order is not None
    mailbox.end(store.db, order, applied=True, code=None, result=None, now=NOON)
    await pruned(store, YEARS_LATER, Keep())
    [row] = mailbox.listing(store.db, 10)
    assert (row["id"], row["reported"]) == (str(order.id), False)
    [report] = outbox.waiting(store.db, after=0, limit=10)
    outbox.accepted(store.db, [report.command_id], NOON)
    outcome = Outcome(command_id=report.command_id, type=report.type, unit_id=UNIT, status=Status.ACCEPTED, partition=1)
    outbox.settle(store.db, [outcome])
    while await pruned(store, YEARS_LATER, Keep()):
        pass
    assert mailbox.listing(store.db, 10) == []
