"""The link's load generator: what it says and hears is the protocols' own, and its figures are what they claim."""

from __future__ import annotations

import time

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from contracts.frames import SUBPROTOCOL
from tests.load.link import mqtt
from tests.load.link.plan import BRIDGE_P99, CATCH_UP
from tests.load.link.report import verdicts
from tests.load.link.samples import Samples
from tests.load.link.sources import Job, Message
from tests.load.link.websocket import TEXT, Frames, framed, upgrade


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_up_is_what_a_server_reads(size: int) -> None:
    server = ServerProtocol(subprotocols=[SUBPROTOCOL])  # type: ignore[list-item]  # the library's own NewType
    server.receive_data(upgrade("127.0.0.1", "/unit", "token", SUBPROTOCOL))
    [request] = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]  # the first event is the request
    server.receive_data(framed(b"x" * size))
    [frame] = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, b"x" * size)


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_frames_down_are_found_however_they_arrive(piece: int) -> None:
    bodies = [b"", b"a" * 125, b"b" * 126, b"c" * 70_000]
    data = b"".join(Frame(Opcode.TEXT, body).serialize(mask=False) for body in bodies)
    frames = Frames()
    found = [frame for at in range(0, len(data), piece) for frame in frames.feed(data[at : at + piece])]
    assert found == [(TEXT, body) for body in bodies]


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_mqtt_packets_are_found_however_they_arrive(piece: int) -> None:
    data = mqtt.connect("north") + mqtt.publish(7, "unit/north/feed", b"x" * 300) + mqtt.puback(7)
    packets = mqtt.Packets()
    found = [packet for at in range(0, len(data), piece) for packet in packets.feed(data[at : at + piece])]
    assert [kind & 0xF0 for kind, _ in found] == [mqtt.CONNECT, mqtt.PUBLISH, mqtt.PUBACK]
    assert found[1][1].endswith(b"x" * 300)


def test_a_message_carries_the_instant_it_left() -> None:
    message = Message("north", b'{"payload":{"sentAt":0,"number":1}}')
    samples = Samples()
    before = time.monotonic()
    samples.take(message.stamped() * 2, before + 1)
    assert all(0.9 < delay <= 1 for delay in samples.delays)
    assert samples.report()["count"] == 2


def test_every_unit_gets_its_turn() -> None:
    assert sorted(Job(units=100, rate=100, seconds=1).turns()) == list(range(100))
    assert sum(turn == 9 for turn in Job(units=10, rate=100, seconds=1, favourite=9).turns()) >= 20


def test_targets_are_reached_from_above_or_below() -> None:
    assert [BRIDGE_P99.verdict(value) for value in (30, 31, 101)] == ["goal met", "floor met", "not met"]
    assert [CATCH_UP.verdict(value) for value in (20_000, 5_000, 4_999)] == ["goal met", "floor met", "not met"]


def test_a_run_of_some_stages_speaks_to_their_targets_only() -> None:
    found = verdicts({"bridge": {"ms": {"p99": 12.0}}, "whole": {"ms": None}})
    assert found == [(BRIDGE_P99, 12.0)]
