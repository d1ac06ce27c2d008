"""Unit commands at the site: each done once, whatever the site's system answers and whenever the agent dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from contracts.envelope import Json
from contracts.ids import PatientId, UnitCommandId, keyed_command_id
from contracts.unit_command import OnReconnect, UnitCommandCancelled, UnitCommandQueued
from tests.kit.commands import new_id
from tests.kit.waiting import eventually
from tests.unit_agent.site import Site, site_system
from tests.unit_agent.told import UNIT, frame, queued, told
from unit_agent import mailbox, outbox
from unit_agent.connectors import BuiltIn
from unit_agent.execution import Execution
from unit_agent.store import Store
from unit_agent.webhook import Webhook


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, UNIT) as one:
        yield one


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with site_system() as one:
        yield one


def now() -> datetime:
    return datetime.now(UTC)


def arrives(store: Store, *commands: UnitCommandQueued, late: bool = False) -> None:
    """The feed brings commands; late ones were queued while the agent was away."""
    first = store.position + 1
    facts = [told(first + number, command) for number, command in enumerate(commands)]
    head = facts[-1].position if late else 0
    store.take([frame(*facts, after=first - 1)], head=head, now=now())


def soon(seconds: float = 60, *, on_reconnect: OnReconnect = OnReconnect.RUN) -> UnitCommandQueued:
    return queued(seconds=seconds, on_reconnect=on_reconnect, now=now())


@asynccontextmanager
async def executing(store: Store, site: Site | None = None) -> AsyncIterator[Execution]:
    connector = BuiltIn() if site is None else Webhook(site.url, timeout=5)
    execution = Execution(store, connector, now=now, reported=lambda: None)
    serving = asyncio.create_task(execution.serve())
    try:
        yield execution
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        if isinstance(connector, Webhook):
            await connector.close()


def state(store: Store, command_id: UUID) -> tuple[str, str | None]:
    [one] = [one for one in mailbox.listing(store.db, 100) if one["id"] == str(command_id)]
    return one["state"], one["code"]


async def ends(store: Store, command_id: UUID, *expected: str | None) -> Json:
    """Wait until the command has ended like this; its report, {} when there is none."""

    async def has_ended() -> bool:
        # In its turn, not in the middle of the transaction that ends it.
        return await store.run(state, store, command_id) == expected

    await eventually(has_ended, within=30, what=f"{expected}")
    report_id = keyed_command_id("agent", UNIT, f"report:{command_id}")
    reports = [one for one in outbox.waiting(store.db, after=0, limit=100) if one.command_id == report_id]
    return reports[0].payload if reports else {}


async def test_without_a_system_at_the_site_a_command_is_taken_note_of_and_reported(store: Store) -> None:
    command = soon()
    arrives(store, command)
    async with executing(store):
        report = await ends(store, command.unit_command_id, "applied", None)
    assert report == {
        "unitCommandId": str(command.unit_command_id),
        "applied": True,
        "result": {"handledBy": "agent"},
        "attempt": 1,
    }


async def test_a_command_goes_to_the_site_s_system_once_and_its_answer_is_the_report(store: Store, site: Site) -> None:
    command = soon()
    async with executing(store, site) as execution:
        arrives(store, command)
        execution.wake()
        report = await ends(store, command.unit_command_id, "applied", None)
    assert report["result"] == {"room": "4"}
    assert site.done == site.keys == [str(command.unit_command_id)]


async def test_an_answer_of_the_site_that_cannot_be_sent_on_as_it_is_becomes_one_that_can(
    store: Store, site: Site
) -> None:
    site.answers = [(200, {"note": "a\x00b", "half": "c\ud800d"})]
    command = soon()
    arrives(store, command)
    async with executing(store, site):
        report = await ends(store, command.unit_command_id, "applied", None)
    assert report["result"] == {"note": "a\ufffdb", "half": "c?d"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [((422, {"code": "no_bed"}), "no_bed"), ((404, {}), "http_404"), ((403, {"code": "?!"}), "http_403")],
)
async def test_what_the_site_declines_is_rejected_with_its_code_and_not_tried_again(
    store: Store, site: Site, answer: tuple[int, Json], code: str
) -> None:
    site.answers = [answer]
    command = soon()
    arrives(store, command)
    async with executing(store, site):
        report = await ends(store, command.unit_command_id, "rejected", code)
    assert (report["applied"], report["code"]) == (False, code)
    assert len(site.done) == 1


async def test_a_site_in_trouble_is_tried_again_with_the_same_key(store: Store, site: Site) -> None:
    site.answers = [(503, {}), (500, {})]
    command = soon()
    arrives(store, command)
    async with executing(store, site):
        await ends(store, command.unit_command_id, "applied", None)
    assert site.keys == [str(command.unit_command_id)] * 3


@pytest.mark.parametrize(
    ("knows", "ended"),
    [
        ({"applied": True, "result": {"room": "7"}}, ("applied", None)),
        ({"applied": False}, ("rejected", "expired")),
        (None, ("rejected", "outcome_unknown")),
    ],
)
async def test_at_the_deadline_the_site_is_asked_what_its_silence_meant(
    store: Store, site: Site, knows: Json | None, ended: tuple[str, str | None]
) -> None:
    site.answers = [(503, {})] * 20
    site.knows = knows
    command = soon(1.5)
    arrives(store, command)
    async with executing(store, site):
        await ends(store, command.unit_command_id, *ended)
    assert site.asked >= 1


async def test_a_command_past_its_deadline_is_not_begun(store: Store, site: Site) -> None:
    command = soon(-1)
    arrives(store, command)
    async with executing(store, site):
        await ends(store, command.unit_command_id, "rejected", "expired")
    assert site.done == []


async def test_what_a_late_command_is_for_decides_whether_it_runs(store: Store, site: Site) -> None:
    run, drop = soon(), soon(on_reconnect=OnReconnect.DROP)
    arrives(store, run, drop, late=True)
    in_time = soon(on_reconnect=OnReconnect.DROP)
    arrives(store, in_time)
    async with executing(store, site):
        await ends(store, run.unit_command_id, "applied", None)
        await ends(store, drop.unit_command_id, "rejected", "dropped")
        await ends(store, in_time.unit_command_id, "applied", None)
    assert site.done == [str(run.unit_command_id), str(in_time.unit_command_id)]


@pytest.mark.parametrize(("valid", "ended"), [(True, ("applied", None)), (False, ("rejected", "no_longer_wanted"))])
async def test_a_late_command_can_ask_whether_it_still_makes_sense(
    store: Store, site: Site, valid: bool, ended: tuple[str, str | None]
) -> None:
    site.valid = valid
    command = soon(on_reconnect=OnReconnect.REVALIDATE)
    arrives(store, command, late=True)
    async with executing(store, site):
        await ends(store, command.unit_command_id, *ended)
    assert len(site.done) == int(valid)


@pytest.mark.parametrize(
    ("knows", "ended", "runs"),
    [
        ({"applied": True}, ("applied", None), 0),
        ({"applied": False}, ("applied", None), 1),
        (None, ("rejected", "outcome_unknown"), 0),
    ],
)
async def test_what_was_being_executed_when_the_agent_died_is_asked_about_and_not_repeated(
    store: Store, site: Site, knows: Json | None, ended: tuple[str, str | None], runs: int
) -> None:
    site.knows = knows
    command = soon()
    arrives(store, command)
    order = mailbox.next_order(store.db, set())
    assert order is not None
    assert mailbox.begin(store.db, order)  # and here it died
    async with executing(store, site):
        await ends(store, command.unit_command_id, *ended)
    assert len(site.done) == runs
    assert site.asked == 1


async def test_a_command_that_is_cancelled_while_the_site_is_in_trouble_is_given_up(store: Store, site: Site) -> None:
    site.answers = [(503, {})] * 50
    site.knows = {"applied": False}
    command = soon()
    arrives(store, command)
    async with executing(store, site):
        await eventually(lambda: site.done, what="a first attempt")
        cancelled = UnitCommandCancelled(unit_command_id=command.unit_command_id, unit_id=UNIT)
        store.take([frame(told(store.position + 1, cancelled), after=store.position)], head=0, now=now())
        assert await ends(store, command.unit_command_id, "called_off", "cancelled") == {}


async def test_one_person_s_commands_keep_their_order_while_others_go_ahead(store: Store, site: Site) -> None:
    ana, ben = PatientId(new_id()), PatientId(new_id())

    def about(patient_id: PatientId) -> UnitCommandQueued:
        return soon().model_copy(update={"patient_id": patient_id, "unit_command_id": UnitCommandId(new_id())})

    first, second, other = about(ana), about(ana), about(ben)
    arrives(store, first, second, other)
    site.hold.clear()
    async with executing(store, site):
        await eventually(lambda: len(site.done) == 2, what="one command of each")
        assert set(site.done) == {str(first.unit_command_id), str(other.unit_command_id)}
        site.hold.set()
        await ends(store, second.unit_command_id, "applied", None)
    assert site.done[2] == str(second.unit_command_id)


async def test_a_full_disk_stops_execution_until_there_is_room_and_then_nothing_is_done_twice(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit_agent.execution.DISK_PAUSE", 0.1)
    site.hold.clear()
    site.knows = {"applied": True, "result": {"room": "4"}}
    command = soon()
    arrives(store, command)
    async with executing(store, site):
        await eventually(lambda: site.done, what="the site is asked to do it")
        [(pages,)] = store.db.execute("PRAGMA page_count").fetchall()
        store.db.execute(f"PRAGMA max_page_count = {pages}")
        site.answers = [(200, {"note": "x" * 50_000})]  # more than there is room for
        site.hold.set()
        await eventually(lambda: site.asked, what="it begins as after a crash")
        store.db.execute("PRAGMA max_page_count = 1000000")
        await ends(store, command.unit_command_id, "applied", None)
    assert len(site.done) == 1
