"""A portal's session without a socket: what it says back, what waits, what is never dropped."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.frames import CloseCode
from contracts.identity import Role
from contracts.portal import DOWN, TOPIC_READERS, Declined, Hello, Renew, Topic
from infra.portals.following import BUDGET_BYTES
from infra.portals.views import Shown
from infra.tokens import Claims
from tests.infra.portals.test_views import busy_day, shown_of
from tests.kit.deciding import UNIT_ID
from ws_bridge.portals.session import (
    CONGESTED_BYTES,
    FRAMES_AT_ONCE,
    HEARTBEAT_SECONDS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    PortalSession,
    Violation,
    hello_from,
)

Frame = dict[str, Any]  # Any: JSON
EXPIRES = 10_000


def claims(role: Role = Role.STAFF, unit: str | None = UNIT_ID, *, sub: str = "desk-1", exp: int = EXPIRES) -> Claims:
    return Claims(sub=sub, role=role, unit=unit, exp=exp, iat=0, nbf=0, jti="1")


class Wire:
    """A session and what became of what it wrote; `room` None: the socket takes everything."""

    def __init__(self, role: Role = Role.STAFF, topics: frozenset[Topic] = frozenset(Topic), **hello: Any) -> None:
        self.now = 0.0
        self.waiting = 0
        self.told: list[Frame] = []
        self.is_flushing = False
        asked = Hello(topics=topics, **hello)
        self.session = PortalSession(claims(role), UNIT_ID, asked, wake=self.flush, now=0.0)

    def flush(self) -> None:
        if self.is_flushing:
            return
        frames = self.session.due(self.waiting, self.now)
        self.waiting += sum(map(len, frames)) if self.waiting else 0
        self.told += [DOWN.validate_json(frame).to_dict() for frame in frames]

    def says(self, frame: Frame) -> object:
        return self.session.hear(orjson.dumps(frame).decode(), self.now)

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.told]

    def events(self) -> list[int]:
        return [frame["position"] for frame in self.told if frame["type"] == "event"]


@cache
def day() -> list[Shown]:
    return shown_of(busy_day())


def test_a_portal_is_welcomed_with_what_its_role_may_follow() -> None:
    for role in Role:
        allowed = sorted(topic for topic, roles in TOPIC_READERS.items() if role in roles)
        if not allowed:
            continue
        wire = Wire(role)
        wire.session.begin(3, 42, [], None)
        (welcome,) = wire.told
        assert (welcome["topics"], welcome["denied"]) == (allowed, sorted(set(Topic) - set(allowed)))
        assert (welcome["position"], welcome["partition"], welcome["role"]) == (42, 3, role.value)


@pytest.mark.parametrize(
    ("frame", "unit", "role", "code"),
    [
        ({"type": "ping"}, UNIT_ID, Role.STAFF, CloseCode.NOT_THE_PROTOCOL),
        ({"type": "hello", "topics": []}, UNIT_ID, Role.STAFF, CloseCode.NOT_THE_PROTOCOL),
        ({"type": "hello", "topics": ["gossip"]}, UNIT_ID, Role.STAFF, CloseCode.NOT_THE_PROTOCOL),
        ({"type": "hello", "topics": ["units"], "unitId": "other"}, UNIT_ID, Role.STAFF, CloseCode.NOT_ALLOWED),
        ({"type": "hello", "topics": ["queue-board"]}, UNIT_ID, Role.OPS, CloseCode.NOT_ALLOWED),
        ({"type": "hello", "topics": ["queue-board"]}, None, Role.STAFF, CloseCode.NOT_THE_PROTOCOL),
    ],
)
def test_a_hello_that_is_not_in_order_ends_it(frame: Frame, unit: str | None, role: Role, code: CloseCode) -> None:
    with pytest.raises(Violation) as broken:
        hello_from(orjson.dumps(frame).decode(), claims(role, unit))
    assert broken.value.code == code


def test_who_works_for_the_whole_network_names_the_unit() -> None:
    text = orjson.dumps({"type": "hello", "topics": ["units"], "unitId": "north"}).decode()
    assert hello_from(text, claims(Role.OPS, None))[1] == "north"


def test_what_was_missed_comes_after_the_welcome_and_before_what_is_new() -> None:
    wire = Wire(position=day()[2].position)
    wire.waiting = CONGESTED_BYTES * 2
    wire.session.begin(3, day()[5].position, day()[3:6], None)
    wire.session.take(day()[6:9], day()[8].position)
    assert wire.kinds() == ["welcome"]
    assert wire.told[0]["position"] == day()[2].position == wire.session.position
    wire.waiting = 0
    wire.flush()
    assert wire.events() == [one.position for one in day()[3:9]]
    assert wire.session.position == day()[8].position


def test_too_much_missed_is_a_reset_to_where_it_stands_now() -> None:
    wire = Wire(position=1)
    many = day() * (BUDGET_BYTES // sum(len(one.frame) for one in day()))
    wire.session.begin(3, 99, many, None)
    assert [(frame["type"], frame["position"]) for frame in wire.told] == [("welcome", 99), ("reset", 99)]
    wire = Wire(position=1)
    wire.session.begin(3, 99, [], "unknown_position")
    assert wire.told[-1]["reason"] == "unknown_position"


def test_topics_and_departments_can_be_changed_and_what_is_not_allowed_is_said() -> None:
    wire = Wire(Role.RECEPTIONIST, frozenset({Topic.UNITS}))
    wire.session.begin(3, 1, [], None)
    wire.says({"type": "subscribe", "topics": ["queue-board", "results"], "departments": ["radiology"]})
    assert wire.told[-1] == {
        "type": "subscribed", "topics": ["queue-board", "units"], "denied": ["results"],
        "departments": ["radiology"], "position": 1,
    }  # fmt: skip
    wire.session.take(day(), day()[-1].position)
    told = [frame["data"] for frame in wire.told if frame["type"] == "event"]
    assert {data.get("department", "radiology") for data in told} == {"radiology"}
    wire.says({"type": "unsubscribe", "topics": ["queue-board", "units"]})
    before = len(wire.told)
    wire.session.take(day(), day()[-1].position)
    assert len(wire.told) == before


def test_a_newer_token_moves_the_end_and_another_role_what_may_be_followed() -> None:
    wire = Wire(Role.DOCTOR)
    wire.session.begin(3, 1, [], None)
    assert isinstance(wire.says({"type": "renew", "token": "x"}), Renew)
    assert wire.session.renew(claims(Role.BILLING, exp=EXPIRES * 2))
    wire.session.renewed()
    assert wire.told[-1]["topics"] == ["patient-status", "queue-board", "units"]
    wire.session.tick(1.0, EXPIRES + 1)
    assert wire.session.ended is None
    assert not wire.session.renew(claims(Role.DOCTOR, sub="desk-2"))
    assert not wire.session.renew(claims(Role.DOCTOR, unit="other"))
    assert wire.told[-1]["code"] == "other_account"
    assert not wire.session.renew(claims(Role.UNIT))
    assert wire.session.ended is CloseCode.NOT_ALLOWED


def test_a_token_that_ran_out_ends_it_and_may_come_back() -> None:
    wire = Wire()
    wire.session.begin(3, 1, [], None)
    wire.session.tick(1.0, EXPIRES)
    assert (wire.told[-1]["code"], wire.told[-1]["mayReconnect"]) == (4401, True)
    wire.session.take(day(), 1000)
    wire.session.say(Declined(code="late", detail="nobody hears it"))
    assert wire.kinds() == ["welcome", "bye"]


def test_silence_on_either_side_is_noticed() -> None:
    wire = Wire()
    wire.session.begin(3, 1, [], None)
    wire.now = HEARTBEAT_SECONDS
    wire.session.tick(wire.now, 0)
    assert (wire.told[-1]["type"], wire.told[-1]["position"]) == ("ping", 1)
    wire.says({"type": "pong"})
    wire.says({"type": "ping"})
    assert wire.told[-1] == {"type": "pong"}
    wire.session.tick(HEARTBEAT_SECONDS + SILENT_SECONDS - 1, 0)
    assert wire.session.ended is None
    wire.session.tick(HEARTBEAT_SECONDS + SILENT_SECONDS + 1, 0)
    assert wire.session.ended is CloseCode.HELLO_TIMEOUT


def test_a_socket_without_room_is_cut_after_a_while_and_at_once_over_its_budget() -> None:
    wire = Wire()
    wire.session.begin(3, 1, [], None)
    wire.waiting = CONGESTED_BYTES * 2
    wire.session.take(day()[:1], 1)
    wire.says({"type": "pong"})
    wire.session.tick(STUCK_SECONDS + 1, 0)
    assert wire.session.ended is CloseCode.TOO_SLOW
    wire = Wire()
    wire.session.begin(3, 1, [], None)
    wire.waiting = BUDGET_BYTES
    wire.session.take(day()[:1], 1)
    assert (wire.session.ended, wire.told[-1]["code"]) == (CloseCode.TOO_SLOW, 4428)


def test_whoever_says_too_much_or_what_is_not_the_protocol_is_cut() -> None:
    wire = Wire()
    for _ in range(int(FRAMES_AT_ONCE)):
        wire.says({"type": "ping"})
    with pytest.raises(Violation) as broken:
        wire.says({"type": "ping"})
    assert broken.value.code is CloseCode.TRY_LATER
    for data in ("{", b"{}", '{"type":"gossip"}', '{"type":"hello","topics":["units"]}', "x" * 70_000):
        with pytest.raises(Violation):
            Wire().session.hear(data, 0)


def test_a_frame_that_is_not_the_protocol_is_told_which_field_it_is() -> None:
    for frame, field in (
        ({"type": "subscribe", "topics": ["queues"]}, "subscribe.topics"),
        ({"type": "queue-update", "requestId": "1", "action": "start"}, "queue-update.payload missing"),
        ({"type": "gossip"}, "union_tag_invalid"),
    ):
        with pytest.raises(Violation) as broken:
            Wire().says(frame)
        assert field in broken.value.reason


def test_what_comes_behind_what_was_missed_is_told_event_for_event_while_there_is_room() -> None:
    wire = Wire()
    shown = day()
    assert len({one.key for one in shown[1:]}) < len(shown) - 1
    wire.session.begin(3, shown[0].position, shown[:1], None)
    wire.session.take(shown[1:], shown[-1].position)
    wire.flush()
    assert wire.events() == [one.position for one in shown]


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("shown"), st.integers(1, 5)),
            st.tuples(
                st.just("socket"), st.sampled_from([0, 1, CONGESTED_BYTES - 1, CONGESTED_BYTES, CONGESTED_BYTES * 2])
            ),
            st.tuples(st.just("control"), st.just(0)),
            st.tuples(st.just("flush"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_under_pressure_the_newest_of_each_thing_gets_through_and_every_control_frame(
    steps: list[tuple[str, int]],
) -> None:
    wire = Wire()
    wire.session.begin(3, 1, [], None)
    source, shown, said = iter(day()), list[Shown](), []
    for what, number in steps:
        match what:
            case "shown":
                batch = [one for one, _ in zip(source, range(number), strict=False)]
                shown += batch
                wire.session.take(batch, batch[-1].position if batch else wire.session.position)
            case "socket":
                wire.waiting = number
            case "control":
                said.append(str(uuid4()))
                wire.session.decline("busy", "later", request_id=said[-1])
                assert said[-1] in [frame.get("requestId") for frame in wire.told]
            case _:
                wire.flush()
        told = wire.events()
        assert told == sorted(set(told))
        # Resuming from where it was told leaves nothing out: all before was told, or a newer one of its kind was.
        after = {one.key for one in shown if one.position > wire.session.position}
        for one in shown:
            if one.position <= wire.session.position and one.position not in told:
                newer = [other for other in shown if other.key == one.key and other.position > one.position]
                assert one.key in after or any(other.position in told for other in newer)
    wire.waiting = 0
    wire.flush()
    newest = {one.key: one.position for one in shown}
    assert set(newest.values()) <= set(wire.events())
    assert [frame["requestId"] for frame in wire.told if frame["type"] == "declined"] == said
    assert wire.session.position == (shown[-1].position if shown else 1)
