"""Both ends against each other over whatever a network, a broker and dying processes can do to them.

Every fact is applied once and in order, whatever a snapshot has taken the place of; the state on the disk is at every
moment what the log came to at its position; every command is handled once, in the order in which they were made; and
no acknowledgement is ever ahead of the disk. All frames fit the AsyncAPI document.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.frames import CloseCode
from tests.link.world import Centre, Disk, Line, state_of
from tests.ws_bridge.facts import NOON
from unit_agent.link import LinkBroken
from ws_bridge.session import Violation

THINGS = st.sampled_from([f"thing-{number}" for number in range(12)])


class TheLink(RuleBasedStateMachine):
    """One unit, from the beginning to when everything that was ever under way has come to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.centre, self.disk = Centre(), Disk()
        self.line: Line | None = None
        """The agent's connection; None while it has none."""
        self.former: list[Line] = []
        """Connections the agent has left and whose bridge has not noticed."""
        self.window = 5
        self.snapshot_beyond: int | None = None

    @initialize(
        window=st.integers(1, 12),
        beyond=st.sampled_from([1, 1, 2, 3, 8, None]),
        things=st.lists(THINGS, max_size=20),
        commands=st.integers(0, 8),
    )
    def begins(self, window: int, beyond: int | None, things: list[str], commands: int) -> None:
        self.window, self.snapshot_beyond = window, beyond
        self.something_happens(1, things)
        self.commands_are_made(commands)
        self.it_becomes_visible()
        self.the_agent_connects()
        self.frames_go_up(1)
        self.frames_go_down(1)

    # What happens at the centre

    @rule(gap=st.integers(1, 3), things=st.lists(THINGS, min_size=1, max_size=8))
    def something_happens(self, gap: int, things: list[str]) -> None:
        for thing in things:
            self.centre.happens(gap, thing)

    @rule()
    def it_becomes_visible(self) -> None:
        self.centre.projects()

    @precondition(lambda self: self.is_open())
    @rule(data=st.data())
    def a_batch_is_pushed(self, data: st.DataObject) -> None:
        batches = list(zip(self.centre.marks, self.centre.marks[1:], strict=False))
        if batches:  # in whatever order, as often as it likes
            after, through = data.draw(st.sampled_from(batches))
            self.whole().offer(after, through, self.centre.between(after, through))

    @precondition(lambda self: self.is_open())
    @rule()
    def a_sweep_sees_how_far_the_feed_reaches(self) -> None:
        self.whole().session.feed.exists(self.centre.head())

    @precondition(lambda self: self.is_open())
    @rule()
    def a_page_is_read(self) -> None:
        self.whole().read_page()

    @precondition(lambda self: self.line is not None and self.line.pages)
    @rule(data=st.data())
    def a_page_arrives(self, data: st.DataObject) -> None:
        pages = self.whole().pages
        self.whole().offer(*pages.pop(data.draw(st.integers(0, len(pages) - 1))))

    @precondition(lambda self: self.is_open() and self.line.session.snapshot_due)
    @rule(free=st.sampled_from([True, True, True, False]))
    def a_snapshot_is_taken_up(self, free: bool) -> None:
        self.whole().begin_snapshot(free=free)

    @precondition(lambda self: self.line is not None and self.line.parts is not None)
    @rule(parts=st.integers(1, 4))
    def parts_of_it_are_sent(self, parts: int) -> None:
        for _ in range(parts):
            if self.whole().parts is not None:
                self.whole().send_part()

    @precondition(lambda self: self.line is not None and self.line.parts is not None)
    @rule()
    def a_push_comes_between_them(self) -> None:
        covered = self.whole().session.feed.covered
        self.whole().offer(covered, self.centre.visible, self.centre.between(covered, self.centre.visible))

    @precondition(lambda self: self.is_open())
    @rule()
    def positions_are_compared(self) -> None:
        check = self.whole().session.check()
        if check is not None:
            self.whole().say_down(check)

    @rule(up=st.booleans())
    def the_broker_comes_or_goes(self, up: bool) -> None:
        self.centre.broker_is_up = up

    # What happens on the line

    @precondition(lambda self: self.line is not None)
    @rule()
    def everything_under_way_arrives(self) -> None:
        """And what follows from it at both ends, so that the machine comes further than to the first few frames."""
        line = self.whole()
        for _ in range(3):
            if line.link.is_open:
                line.submit()
            while line.up:
                line.bridge_hears()
            if line.session.snapshot_due:
                line.begin_snapshot(free=True)
            if line.read_page():
                line.offer(*line.pages.pop())
            while line.down:
                line.agent_hears()

    @precondition(lambda self: self.line is not None and self.line.up)
    @rule(frames=st.integers(1, 6))
    def frames_go_up(self, frames: int) -> None:
        for _ in range(min(frames, len(self.whole().up))):
            self.whole().bridge_hears()

    @precondition(lambda self: self.line is not None and self.line.down)
    @rule(frames=st.integers(1, 6))
    def frames_go_down(self, frames: int) -> None:
        for _ in range(min(frames, len(self.whole().down))):
            self.whole().agent_hears()

    @precondition(lambda self: self.line is None)
    @rule()
    def the_agent_connects(self) -> None:
        self.line = Line(self.centre, self.disk, window=self.window, snapshot_beyond=self.snapshot_beyond)

    @precondition(lambda self: self.line is not None)
    @rule(noticed=st.booleans(), written=st.integers(0, 3))
    def the_agent_loses_the_connection(self, noticed: bool, written: int) -> None:
        """Or dies: what it had not written is gone. What it last wrote may be unsaid. The bridge may not notice."""
        line = self.whole()
        line.commit(written, say=False)
        line.unwritten, line.unnoted = [], []
        if not noticed:
            self.former.append(line)
        self.line = None

    @precondition(lambda self: any(line.up for line in self.former))
    @rule(data=st.data())
    def a_frame_from_before_reaches_a_bridge_that_has_not_noticed(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([line for line in self.former if line.up])).bridge_hears()

    @precondition(lambda self: any(line.down for line in self.former) and self.has_epoch())
    @rule(data=st.data())
    def a_frame_of_another_session_is_not_listened_to(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from([line for line in self.former if line.down]))
        before = (self.whole().link.received, self.whole().link.submitted)
        with pytest.raises(LinkBroken):
            self.whole().link.hear(line.down[-1], NOON)
        assert (self.whole().link.received, self.whole().link.submitted) == before

    @precondition(lambda self: any(line.up for line in self.former) and self.is_open())
    @rule(data=st.data())
    def nor_is_it_by_the_bridge(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from([line for line in self.former if line.up]))
        before = (self.whole().session.feed.acked, list(self.centre.published))
        with pytest.raises(Violation) as violation:
            self.whole().session.hear(line.up[-1].decode())
        assert violation.value.code in (CloseCode.SUPERSEDED, CloseCode.NOT_THE_PROTOCOL)  # that one: a second hello
        assert (self.whole().session.feed.acked, self.centre.published) == before

    # What happens at the site

    @precondition(lambda self: self.line is not None and self.line.unwritten)
    @rule(frames=st.integers(1, 4))
    def the_agent_writes_and_acknowledges(self, frames: int) -> None:
        self.whole().commit(frames, say=True)

    @rule(commands=st.integers(1, 5))
    def commands_are_made(self, commands: int) -> None:
        for _ in range(commands):
            self.disk.made.append(UUID(int=len(self.disk.made) + 1))

    @precondition(lambda self: self.has_epoch())
    @rule()
    def the_agent_sends_commands_up(self) -> None:
        self.whole().submit()

    @precondition(lambda self: self.line is not None and self.line.unnoted)
    @rule()
    def the_agent_notes_what_was_accepted(self) -> None:
        self.whole().note()

    @precondition(lambda self: self.has_epoch())
    @rule()
    def the_agent_renews_its_credential(self) -> None:
        self.whole().renew()

    # What holds

    @invariant()
    def the_disk_is_what_the_log_came_to_at_its_position(self) -> None:
        assert self.disk.state == state_of(self.centre.between(0, self.disk.position))

    @invariant()
    def every_fact_is_applied_once_and_in_order(self) -> None:
        assert self.disk.applied == sorted(set(self.disk.applied))

    @invariant()
    def nothing_is_told_before_it_is_visible(self) -> None:
        assert self.disk.position <= self.centre.visible

    @invariant()
    def no_acknowledgement_is_ahead_of_the_disk(self) -> None:
        assert self.centre.acked <= self.disk.position
        for line in [*self.former, *([self.line] if self.line else [])]:
            assert line.session.feed.acked <= self.disk.position

    @invariant()
    def commands_are_handled_in_the_order_in_which_they_were_made(self) -> None:
        handled = self.centre.handled()
        assert handled == self.disk.made[: len(handled)]
        assert self.disk.accepted <= set(handled)

    def teardown(self) -> None:
        """Left alone for long enough, everything comes to its end."""
        self.centre.projects()
        self.centre.broker_is_up = True
        for _ in range(4 * (len(self.centre.log) + len(self.disk.made)) + 40):
            if self.line is None:
                self.the_agent_connects()
            line = self.whole()
            while line.up:
                line.bridge_hears()
            if line.session.snapshot_due:
                line.begin_snapshot(free=True)
            while line.parts is not None:
                line.send_part()
            line.session.feed.exists(self.centre.head())
            if line.read_page():
                line.offer(*line.pages.pop())
            while line.down:
                line.agent_hears()
            line.commit(len(line.unwritten), say=True)
            line.note()
            if line.link.is_open:
                line.submit()
        line = self.whole()
        assert not line.session.feed.is_behind
        assert line.session.feed.unacked == 0
        assert self.disk.position >= self.centre.head()
        assert self.disk.state == state_of(self.centre.log)
        assert self.centre.handled() == self.disk.made
        assert self.disk.accepted == set(self.disk.made)

    def whole(self) -> Line:
        assert self.line is not None
        return self.line

    def is_open(self) -> bool:
        return self.line is not None and self.line.session.is_open

    def has_epoch(self) -> bool:
        return self.line is not None and self.line.link.is_open


TestTheLink = TheLink.TestCase
TestTheLink.settings = settings(max_examples=300, stateful_step_count=70, deadline=None)
