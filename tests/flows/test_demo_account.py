"""The demo's account finds what is missing and what is there twice, wherever it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest

from infra.api import Ended
from infra.demo.account import Account, balance
from infra.demo.day import Visit, Visits
from infra.demo.ledger import Ledger
from infra.demo.units import UnitStore

UNIT = "north-clinic"
REGISTER, CHECK_IN, ORDER, REPORT = (UUID(int=number) for number in range(1, 5))
ORDER_ID, ENCOUNTER, ENTRY, PATIENT = (UUID(int=number) for number in range(10, 14))
FACTS = [
    (REGISTER, "unit.UnitRegistered", f"unit-{UNIT}"),
    (CHECK_IN, "encounter.PatientArrived", f"encounter-{ENCOUNTER}"),
    (CHECK_IN, "encounter.ClinicianNotified", f"encounter-{ENCOUNTER}"),
    (CHECK_IN, "queue.PatientEnqueued", f"queue-{UNIT}"),
    (ORDER, "unit_command.UnitCommandQueued", f"unit_command-{ORDER_ID}"),
    (REPORT, "unit_command.UnitCommandApplied", f"unit_command-{ORDER_ID}"),
]
RECEIPTS = [
    (REGISTER, "unit.RegisterUnit"),
    (CHECK_IN, "encounter.CheckIn"),
    (ORDER, "unit_command.QueueUnitCommand"),
    (REPORT, "unit_command.ReportUnitCommand"),
]


class Scene:
    """A day of three commands at one unit that balances, until something is taken away or added."""

    def __init__(self, postgres_url: str) -> None:
        self.url = postgres_url
        self.ledger = Ledger()
        for command_id, type_name in RECEIPTS[:3]:
            entry = self.ledger.sent(command_id, UNIT, type_name, {})
            self.ledger.answered(entry, Ended("accepted", None, command_id, {}))
        visit = Visit(UNIT, str(PATIENT), str(ENCOUNTER), str(ENTRY), "general-medicine")
        self.visits = Visits(by_entry={str(ENTRY): visit})
        on_disk = [(position, type_name, str(id_)) for position, (id_, type_name, _) in enumerate(FACTS, start=1)]
        self.store = UnitStore(on_disk, len(on_disk), [str(ORDER_ID)])
        self.done = {str(ORDER_ID): 1}
        self.replayed = [REGISTER, ORDER]

    def account(self) -> Account:
        return balance(
            self.url, self.ledger, self.visits, {UNIT: self.store}, done_at_sites=self.done, replayed=self.replayed
        )

    def do(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode(), values)


@pytest.fixture
def scene(postgres: str) -> Scene:
    scene = Scene(postgres)
    for command_id, type_name in RECEIPTS:
        scene.do(
            "INSERT INTO command_receipts (command_id, unit_id, partition, type, status, request_hash, actor, "
            "issued_at) VALUES (%s, %s, 0, %s, 'accepted', '', '{}', now())",
            command_id, UNIT, type_name,
        )  # fmt: skip
    versions: dict[str, int] = {}
    for position, (command_id, type_name, stream) in enumerate(FACTS, start=1):
        versions[stream] = versions.get(stream, 0) + 1
        write_fact(scene, position, command_id, type_name, stream, versions[stream])
    scene.do("UPDATE log_partitions SET head = %s WHERE partition = 0", len(FACTS))
    scene.do("UPDATE projection_checkpoints SET position = %s WHERE partition = 0", len(FACTS))
    scene.do(
        "INSERT INTO read_units (unit_id, partition, name, name_key, kind, settings, zone, ageing_minutes, status, "
        "version, registered_at, updated_at) VALUES (%s, 0, '', '', '', '{}', 'UTC', 30, 'active', 1, now(), now())",
        UNIT,
    )
    scene.do(
        "INSERT INTO read_encounters (encounter_id, unit_id, partition, patient_id, queue_entry_id, department, "
        "priority, encounter_class, status, open, erased, version, arrived_at) "
        "VALUES (%s, %s, 0, %s, %s, '', '', '', 'arrived', true, false, 1, now())",
        ENCOUNTER, UNIT, PATIENT, ENTRY,
    )  # fmt: skip
    scene.do(
        "INSERT INTO read_waiting_room (unit_id, department, service_day, entry_id, partition, patient_id, "
        "encounter_id, ticket, priority, rank, status, calls, arrived_at) "
        "VALUES (%s, '', now(), %s, 0, %s, %s, 1, '', 3, 'waiting', 0, now())",
        UNIT, ENTRY, PATIENT, ENCOUNTER,
    )  # fmt: skip
    return scene


def write_fact(scene: Scene, position: int, command_id: UUID, type_name: str, stream: str, version: int) -> None:
    scene.do(
        "INSERT INTO events (partition, position, unit_id, stream, stream_version, type, type_version, payload, "
        "command_id, correlation_id, actor, occurred_at) VALUES (0, %s, %s, %s, %s, %s, 1, '{}', %s, '', '{}', now())",
        position, UNIT, stream, version, type_name, command_id,
    )  # fmt: skip


def test_a_day_on_which_nothing_went_wrong_balances(scene: Scene) -> None:
    account = scene.account()
    assert account.balances, account.to_dict()
    assert (account.lost, account.doubled) == (0, 0)


def lose_a_receipt(scene: Scene) -> None:
    scene.do("DELETE FROM command_receipts WHERE command_id = %s", CHECK_IN)


def lose_a_fact_of_a_command(scene: Scene) -> None:
    scene.do("DELETE FROM events WHERE type = 'queue.PatientEnqueued'")


def stay_behind_with_projecting(scene: Scene) -> None:
    scene.do("UPDATE projection_checkpoints SET position = position - 1 WHERE partition = 0")


def lose_a_visit_for_readers(scene: Scene) -> None:
    scene.do("DELETE FROM read_encounters")


def show_readers_an_older_state(scene: Scene) -> None:
    scene.visits.by_entry[str(ENTRY)].entry = "called"


def lose_a_fact_on_the_way_to_the_unit(scene: Scene) -> None:
    scene.store = replace(scene.store, facts=scene.store.facts[:-1], applied=len(FACTS) - 1)


def never_do_an_order(scene: Scene) -> None:
    scene.done.clear()


def leave_a_dead_letter(scene: Scene) -> None:
    scene.do("UPDATE command_receipts SET status = 'failed' WHERE command_id = %s", CHECK_IN)


@pytest.mark.parametrize(
    "mishap",
    [
        lose_a_receipt,
        lose_a_fact_of_a_command,
        stay_behind_with_projecting,
        lose_a_visit_for_readers,
        show_readers_an_older_state,
        lose_a_fact_on_the_way_to_the_unit,
        never_do_an_order,
    ],
)
def test_whatever_is_missing_is_counted_as_lost(scene: Scene, mishap: Callable[[Scene], None]) -> None:
    mishap(scene)
    account = scene.account()
    assert account.lost > 0
    assert not account.balances


def write_a_fact_twice(scene: Scene) -> None:
    write_fact(scene, 7, CHECK_IN, "queue.PatientEnqueued", f"queue-{UNIT}", 2)


def let_a_unit_have_another_units_fact(scene: Scene) -> None:
    scene.store = replace(scene.store, facts=[*scene.store.facts, (9, "queue.PatientCalled", str(UUID(int=99)))])


def do_an_order_twice(scene: Scene) -> None:
    scene.done[str(ORDER_ID)] = 2


def write_facts_nobody_asked_for(scene: Scene) -> None:
    write_fact(scene, 7, UUID(int=99), "queue.PatientCalled", f"queue-{UNIT}", 2)


@pytest.mark.parametrize(
    "mishap",
    [write_a_fact_twice, let_a_unit_have_another_units_fact, do_an_order_twice, write_facts_nobody_asked_for],
)
def test_whatever_is_there_twice_or_unasked_is_counted_as_doubled(
    scene: Scene, mishap: Callable[[Scene], None]
) -> None:
    mishap(scene)
    account = scene.account()
    assert account.doubled > 0
    assert not account.balances


def test_a_dead_letter_that_is_left_does_not_balance(scene: Scene) -> None:
    leave_a_dead_letter(scene)
    assert not scene.account().balances


def test_dead_letters_replayed_in_another_order_do_not_balance(scene: Scene) -> None:
    scene.replayed.reverse()
    assert not scene.account().balances


def test_an_answer_that_contradicts_the_receipt_is_remarked_on(scene: Scene) -> None:
    scene.do("UPDATE command_receipts SET status = 'refused', code = 'queue_empty' WHERE command_id = %s", ORDER)
    assert any("told accepted, is refused" in remark for remark in scene.account().remarks)


def test_an_agent_that_applied_a_fact_twice_is_remarked_on(scene: Scene) -> None:
    scene.store = replace(scene.store, applied=len(FACTS) + 1)
    assert any("applied 7 facts and holds 6" in remark for remark in scene.account().remarks)


def test_a_command_delivered_twice_is_told_unchanged_and_that_balances(scene: Scene) -> None:
    entry = next(iter(scene.ledger.entries.values()))
    scene.ledger.answered(entry, Ended("unchanged", None, entry.command_id, {}))

    assert scene.account().remarks == []


def test_a_visit_begun_at_a_unit_and_moved_to_another_department_is_one_visit() -> None:
    begun = Visit(UNIT, str(PATIENT), str(ENCOUNTER), str(ENTRY), "general-medicine")
    moved = Visit(UNIT, str(PATIENT), str(ENCOUNTER), str(UUID(int=20)), "radiology")
    visits = Visits(by_entry={moved.entry_id: moved}, transferred=[begun.entry_id], made_at_units=[begun])
    assert visits.all() == {moved.entry_id: moved}
