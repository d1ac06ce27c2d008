"""Whatever is asked of a mailbox, in whatever order and however late: each attempt ends once, and by its deadline."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_handlers.domain.decider import Notice, Timer
from command_handlers.domain.processes import notices, timers
from command_handlers.domain.unit_command import (
    MAILBOX,
    OPEN_COMMANDS,
    UnitCommandState,
    supersede_claim,
    unit_command_stream,
)
from contracts.catalogue import event_from
from contracts.dead_letter import Reason
from contracts.ids import UnitCommandId
from contracts.model import Command, Event, Refusal
from contracts.unit_command import (
    CancelUnitCommand,
    QueueUnitCommand,
    ReportUnitCommand,
    RetryUnitCommand,
    UnitCommandApplied,
    UnitCommandExpired,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandStatus,
)
from tests.domain.examples import clinic, moment
from tests.kit.deciding import History

ORDERS = [UnitCommandId(UUID(int=number)) for number in range(1, 4)]
LIMIT = 2
CLOSED = (UnitCommandStatus.EXPIRED, UnitCommandStatus.REJECTED)

orders = st.sampled_from([ORDERS[0], ORDERS[0], *ORDERS])
codes = st.sampled_from(["no_bed", "outcome_unknown"])
attempts = st.sampled_from([1, 1, 2, 3])
reporting = st.tuples(st.just("report"), orders, st.booleans(), codes, attempts)
retrying = st.tuples(st.just("retry"), orders, st.booleans())
asked = st.one_of(
    st.tuples(st.just("queue"), orders, st.sampled_from([1, 5, 30]), st.sampled_from([None, None, "rota", "prices"])),
    reporting,
    reporting,
    retrying,
    retrying,
    st.tuples(st.just("cancel"), orders),
    st.tuples(st.just("minutes"), st.sampled_from([1, 4, 6, 40])),
)
scripts = st.lists(asked, min_size=20, max_size=60).map(lambda script: [("queue", ORDERS[0], 5, None), *script])
thorough = settings(max_examples=120, deadline=None)
pytestmark = pytest.mark.timeout(400)  # a failure is told only after hypothesis has made it small


class Mailbox:
    """A clinic with a small mailbox, a clock that fires timers, and what its operators were told."""

    def __init__(self) -> None:
        small = clinic.model_copy(update={"settings": clinic.settings.model_copy(update={"mailbox_limit": LIMIT})})
        self.history = History().note(small)
        self.due: list[Timer] = []
        self.told: list[Notice] = []

    def state(self, order: UnitCommandId) -> UnitCommandState:
        return self.history.state(MAILBOX, unit_command_stream(order))

    def gives(self, command: Command) -> None:
        with suppress(Refusal):
            for event in self.history.carry_out(command):
                self.due += timers(event)
                self.told += notices(event, self._after(event))

    def _after(self, event: Event) -> UnitCommandState:
        told: Any = event  # Any: every event here is a mailbox's
        return self.state(told.unit_command_id)

    def passes(self, minutes: int) -> None:
        until = self.history.at + timedelta(minutes=minutes)
        while self.due and (timer := min(self.due, key=lambda one: one.due_at)).due_at <= until:
            self.due.remove(timer)
            self.history.at = self.history.issued_at = max(self.history.at, timer.due_at)
            self.gives(timer.command)
        self.history.at = self.history.issued_at = until

    def happens(self, what: tuple[Any, ...]) -> None:  # Any: what is needed differs
        match what:
            case ("queue", order, minutes, key):
                deadline = self.history.at + timedelta(minutes=minutes)
                self.gives(QueueUnitCommand(unit_command_id=order, type="ping", deadline=deadline, supersede_key=key))
            case ("report", order, applied, code, attempt):
                is_of_the_past = attempt < self.state(order).attempt and not applied
                before = len(self.history.events)
                self.gives(
                    ReportUnitCommand(
                        unit_command_id=order, applied=applied, code=None if applied else code, attempt=attempt
                    )
                )
                assert len(self.history.events) == before or not is_of_the_past
            case ("cancel", order):
                self.gives(CancelUnitCommand(unit_command_id=order))
            case ("retry", order, confirm):
                self.gives(RetryUnitCommand(unit_command_id=order, confirm=confirm))
            case ("minutes", minutes):
                self.passes(minutes)
            case _:
                raise ValueError(what)

    def of(self, order: UnitCommandId) -> list[Any]:  # Any: events of a mailbox
        mine: list[Any] = [event for event in self.history.events if event.context == "unit_command"]
        return [event for event in mine if event.unit_command_id == order]

    def holds(self) -> None:
        """What is true at any moment."""
        states = {order: self.state(order) for order in ORDERS}
        still = [one for one in states.values() if one.status is UnitCommandStatus.QUEUED]
        assert len(still) == self.history.counts[OPEN_COMMANDS] <= LIMIT
        expired = [one for one in states.values() if one.status is UnitCommandStatus.EXPIRED]
        assert all(one.deadline is not None and one.deadline <= self.history.at for one in expired), "none before it"
        assert all(one.deadline is not None and one.deadline > self.history.at for one in still)
        for key in ("rota", "prices"):
            keyed = [one for one in self.history.events if isinstance(one, UnitCommandQueued)]
            newest = [unit_command_stream(one.unit_command_id) for one in keyed if one.supersede_key == key]
            assert self.history.holders.get(supersede_claim(key)) == (newest[-1] if newest else None)
            open_ones = [one for one in still if one.queued is not None and one.queued.supersede_key == key]
            assert len(open_ones) <= 1
            assert not open_ones or open_ones[0].queued is not None
            assert not open_ones or unit_command_stream(open_ones[0].queued.unit_command_id) == newest[-1]  # type: ignore[union-attr]  # said above


@thorough
@given(scripts)
def test_every_attempt_ends_once_and_by_its_deadline(script: list[tuple[Any, ...]]) -> None:  # Any: see `happens`
    mailbox = Mailbox()
    for what in script:
        mailbox.happens(what)
        mailbox.holds()
    mailbox.passes(10_000)
    mailbox.holds()
    assert not mailbox.history.counts[OPEN_COMMANDS]
    for order in ORDERS:
        events = mailbox.of(order)
        begun: list[Any] = [
            one for one in events if isinstance(one, UnitCommandQueued | UnitCommandRetried)
        ]  # Any: both
        late = [one for one in events if getattr(one, "late", False)]
        assert len(events) - len(begun) - len(late) == len(begun), "one end for each attempt"
        assert [one.attempt for one in begun[1:]] == list(range(2, len(begun) + 1))


@thorough
@given(scripts)
def test_what_is_done_is_never_asked_for_again_and_a_doubt_only_with_a_word(
    script: list[tuple[Any, ...]],  # Any: see `happens`
) -> None:
    mailbox = Mailbox()
    for what in script:
        mailbox.happens(what)
    for order in ORDERS:
        done = doubtful = False
        for event in mailbox.of(order):
            if isinstance(event, UnitCommandRetried):
                assert not done
                assert event.confirmed == doubtful
            done |= isinstance(event, UnitCommandApplied)
            doubtful |= isinstance(event, UnitCommandRejected) and event.code == "outcome_unknown"


@thorough
@given(scripts)
def test_operators_are_told_of_each_failed_attempt_and_of_nothing_else(
    script: list[tuple[Any, ...]],  # Any: see `happens`
) -> None:
    mailbox = Mailbox()
    for what in script:
        mailbox.happens(what)
    standing: dict[UUID, Reason] = {}
    for notice in mailbox.told:
        if notice.reason is Reason.UNIT_SETTLED:
            assert notice.id in standing, "only what was told of can be settled"
        standing[notice.id] = notice.reason
    left = [one for one in standing.values() if one is not Reason.UNIT_SETTLED]
    failed = [order for order in ORDERS if mailbox.state(order).status in CLOSED and not mailbox.state(order).is_done]
    assert len(left) == len(failed)


@thorough
@given(scripts)
def test_told_again_from_the_log_it_is_the_same(script: list[tuple[Any, ...]]) -> None:  # Any: see `happens`
    mailbox = Mailbox()
    for what in script:
        mailbox.happens(what)
    events = mailbox.history.events
    again = History().note(*(event_from(one.type_name(), one.version, one.to_dict()) for one in events))
    assert again.states == mailbox.history.states
    assert (again.holders, +again.counts) == (mailbox.history.holders, +mailbox.history.counts)


def test_the_scripts_reach_what_they_are_for() -> None:
    """One story by hand through the same steps, so that the properties are known to be about something."""
    mailbox = Mailbox()
    first, second, *_ = ORDERS
    story: list[tuple[Any, ...]] = [  # Any: see `happens`
        ("queue", first, 5, "rota"),
        ("minutes", 6),
        ("report", first, False, "outcome_unknown", 1),
        ("retry", first, False),
        ("retry", first, True),
        ("queue", second, 5, "rota"),
        ("report", first, True, "", 2),
    ]
    for what in story:
        mailbox.happens(what)
        mailbox.holds()
    seen = Counter(type(event).__name__ for event in mailbox.history.events)
    assert seen[UnitCommandExpired.__name__] == seen[UnitCommandRetried.__name__] == 1
    assert mailbox.state(first).status is UnitCommandStatus.SUPERSEDED
    assert mailbox.state(first).is_done
    assert mailbox.history.at == moment(6)
