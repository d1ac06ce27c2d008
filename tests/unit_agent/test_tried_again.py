"""Unit commands that the centre has tried again: done once, reported again, repeated only where that was confirmed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from contracts.envelope import Json
from contracts.ids import keyed_command_id
from contracts.model import Event
from contracts.unit_command import (
    OnReconnect,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandSuperseded,
)
from tests.kit.waiting import eventually
from tests.unit_agent.site import Site, site_system
from tests.unit_agent.test_execution import arrives, ends, executing, now, soon, state
from tests.unit_agent.told import UNIT, frame, told
from unit_agent import mailbox, outbox
from unit_agent.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, UNIT) as one:
        yield one


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with site_system() as one:
        yield one


def learns(store: Store, *events: Event, late: bool = False, erased: bool = False) -> int:
    """The feed brings these; how many reports they have led to."""
    first = store.position + 1
    facts = [told(first + number, event, erased=erased) for number, event in enumerate(events)]
    return store.take([frame(*facts, after=first - 1)], head=facts[-1].position if late else 0, now=now()).reports


def again(
    command: UnitCommandQueued, attempt: int = 2, *, seconds: float = 60, confirmed: bool = False
) -> UnitCommandRetried:
    return UnitCommandRetried(
        unit_command_id=command.unit_command_id,
        unit_id=UNIT,
        attempt=attempt,
        deadline=now() + timedelta(seconds=seconds),
        confirmed=confirmed,
    )


def expired(command: UnitCommandQueued) -> UnitCommandExpired:
    return UnitCommandExpired(unit_command_id=command.unit_command_id, unit_id=UNIT)


def reports(store: Store, command_id: UUID) -> list[Json]:
    """What the outbox tells of the command, attempt after attempt."""
    return [
        one.payload
        for one in outbox.waiting(store.db, after=0, limit=100)
        if one.payload["unitCommandId"] == str(command_id)
    ]


async def test_what_expired_before_it_was_begun_runs_when_it_is_tried_again(store: Store, site: Site) -> None:
    command = soon(-1)
    arrives(store, command)
    async with executing(store, site) as execution:
        await ends(store, command.unit_command_id, "rejected", "expired")
        learns(store, expired(command), again(command))
        execution.wake()
        await ends(store, command.unit_command_id, "applied", None)
    assert site.done == [str(command.unit_command_id)]
    assert [(one["attempt"], one["applied"]) for one in reports(store, command.unit_command_id)] == [
        (1, False),
        (2, True),
    ]
    second = keyed_command_id("agent", UNIT, f"report:{command.unit_command_id}:2")
    assert second in {one.command_id for one in outbox.waiting(store.db, after=0, limit=9)}


async def test_what_was_done_is_only_reported_again(store: Store, site: Site) -> None:
    command = soon()
    arrives(store, command)
    async with executing(store, site) as execution:
        await ends(store, command.unit_command_id, "applied", None)
        assert learns(store, expired(command), again(command)) == 1
        assert learns(store, again(command)) == 0
        execution.wake()
        other = soon()
        arrives(store, other)
        execution.wake()
        await ends(store, other.unit_command_id, "applied", None)
    assert site.done == [str(command.unit_command_id), str(other.unit_command_id)]
    told_of = reports(store, command.unit_command_id)
    assert [(one["attempt"], one["applied"], one["result"]) for one in told_of] == [
        (1, True, {"room": "4"}),
        (2, True, {"room": "4"}),
    ]


async def test_what_the_site_declined_is_asked_of_it_again(store: Store, site: Site) -> None:
    site.answers = [(422, {"code": "no_bed"})]
    command = soon()
    arrives(store, command)
    async with executing(store, site) as execution:
        await ends(store, command.unit_command_id, "rejected", "no_bed")
        said = UnitCommandRejected(unit_command_id=command.unit_command_id, unit_id=UNIT, code="no_bed")
        learns(store, said, again(command))
        execution.wake()
        await ends(store, command.unit_command_id, "applied", None)
    assert site.done == [str(command.unit_command_id)] * 2


@pytest.mark.parametrize(
    ("knows", "runs", "ended"),
    [({"applied": True, "result": {"room": "9"}}, 0, ("applied", None)), (None, 1, ("applied", None))],
)
async def test_what_may_have_been_done_runs_again_only_if_confirmed_and_the_site_does_not_know_better(
    store: Store, site: Site, knows: Json | None, runs: int, ended: tuple[str, str | None]
) -> None:
    command = soon()
    arrives(store, command)
    begun(store)
    async with executing(store, site) as execution:
        await ends(store, command.unit_command_id, "rejected", "outcome_unknown")
        assert learns(store, again(command)) == 1, (
            "nobody has confirmed it: the centre hears once more that it is unknown"
        )
        assert state(store, command.unit_command_id) == ("rejected", "outcome_unknown")
        site.knows = knows
        learns(store, again(command, 3, confirmed=True))
        execution.wake()
        await ends(store, command.unit_command_id, *ended)
    assert len(site.done) == runs
    assert [one["attempt"] for one in reports(store, command.unit_command_id)] == [1, 2, 3]


async def test_what_is_being_executed_goes_on_when_it_is_tried_again(store: Store, site: Site) -> None:
    command = soon()
    arrives(store, command)
    site.hold.clear()
    async with executing(store, site) as execution:
        await eventually(lambda: site.done, what="the site is asked to do it")
        learns(store, expired(command), again(command))
        execution.wake()
        site.hold.set()
        await ends(store, command.unit_command_id, "applied", None)
    assert site.done == [str(command.unit_command_id)]
    assert [one["attempt"] for one in reports(store, command.unit_command_id)] == [2]


async def test_what_an_attempt_failed_of_says_nothing_of_the_next(store: Store, site: Site) -> None:
    """The site declines while the centre has it tried again: it is asked once more, and only that answer counts."""
    command = soon()
    arrives(store, command)
    site.answers = [(422, {"code": "no_bed"})]
    site.hold.clear()
    async with executing(store, site) as execution:
        await eventually(lambda: site.done, what="the site is asked to do it")
        learns(store, expired(command), again(command))
        site.hold.set()
        execution.wake()
        await ends(store, command.unit_command_id, "applied", None)
    assert [(one["attempt"], one["applied"]) for one in reports(store, command.unit_command_id)] == [(2, True)]


async def test_a_further_attempt_that_comes_late_is_dropped_where_that_was_asked(store: Store, site: Site) -> None:
    command = soon(on_reconnect=OnReconnect.DROP)
    learns(store, command, expired(command), again(command), late=True)
    async with executing(store, site):
        await ends(store, command.unit_command_id, "rejected", "dropped")
    assert site.done == []


async def test_a_superseded_command_that_was_not_begun_is_called_off(store: Store, site: Site) -> None:
    command, newer = soon(), soon()
    overtaken = UnitCommandSuperseded(unit_command_id=command.unit_command_id, unit_id=UNIT, by=newer.unit_command_id)
    learns(store, command, newer, overtaken)
    async with executing(store, site):
        await ends(store, newer.unit_command_id, "applied", None)
        assert await ends(store, command.unit_command_id, "called_off", "superseded") == {}
    assert site.done == [str(newer.unit_command_id)]


async def test_what_was_asked_of_an_erased_patient_is_not_done_as_something_else(store: Store, site: Site) -> None:
    command = soon()
    learns(store, command, erased=True)
    async with executing(store, site):
        await ends(store, command.unit_command_id, "rejected", "erased")
    assert site.done == []


async def test_deadlines_are_the_centres_also_after_a_restart_without_a_link(tmp_path: Path) -> None:
    skew = timedelta(minutes=-5)
    with Store(tmp_path / "a", UNIT) as store:
        store.remember_skew(skew)
    with Store(tmp_path / "a", UNIT) as store:
        assert store.clock_skew == skew
        store.remember_skew(skew + timedelta(seconds=0.1))
        assert store.clock_skew == skew, "not worth a write"


def begun(store: Store) -> datetime:
    """Its execution had begun when the agent died."""
    order = mailbox.next_order(store.db, set())
    assert order is not None
    assert mailbox.begin(store.db, order)
    return order.deadline
