"""Our frames are the specification's: what we write, the reference codec reads, and the other way round."""

from __future__ import annotations

from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from infra.broker import wire

short = st.text(max_size=60)
optional = st.none() | short


def frames(data: bytes) -> list[Any]:  # Any: frames of several kinds
    found = []
    while data:
        taken, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 7
        found.append(frame)
        data = data[taken:]
    return found


@given(
    exchange=short, routing_key=short, body=st.binary(max_size=300), message_id=optional, correlation_id=optional,
    reply_to=optional, type=optional, expiration=st.none() | st.integers(0, 10**9), persistent=st.booleans(),
    mandatory=st.booleans(), frame_max=st.integers(16, 400),
    headers=st.none() | st.dictionaries(st.text(min_size=1, max_size=9), st.integers(0, 9) | short),
)  # fmt: skip
def test_what_we_publish_reads_back_as_it_was_meant(
    exchange: str, routing_key: str, body: bytes, persistent: bool, mandatory: bool, expiration: int | None,
    headers: dict[str, Any] | None, frame_max: int, **properties: Any,
) -> None:  # fmt: skip
    data = wire.publish(
        7, exchange, routing_key, body, frame_max=frame_max, persistent=persistent, mandatory=mandatory,
        expiration=expiration, headers=headers, message_id=properties["message_id"], reply_to=properties["reply_to"],
        correlation_id=properties["correlation_id"], type=properties["type"],
    )  # fmt: skip
    method, header, *bodies = frames(data)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == (exchange, routing_key, mandatory)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    assert all(isinstance(piece, ContentBody) and len(piece.value) <= frame_max - 8 for piece in bodies)
    assert b"".join(piece.value for piece in bodies) == body
    read = header.properties
    assert read.delivery_mode == (2 if persistent else 1)
    assert read.expiration == (None if expiration is None else str(expiration))
    assert (read.headers or None) == (headers or None)
    for name, value in properties.items():
        assert (getattr(read, "message_type" if name == "type" else name) or "") == (value or "")


@given(
    message_id=optional, correlation_id=optional, reply_to=optional, message_type=optional, content_type=optional,
    content_encoding=optional, expiration=optional, app_id=optional, priority=st.none() | st.integers(0, 9),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    headers=st.none() | st.dictionaries(st.text(min_size=1, max_size=9), st.integers(0, 9) | short | st.booleans()),
)  # fmt: skip
def test_properties_others_wrote_read_as_they_were_meant(**written: Any) -> None:
    payload = ContentHeader(body_size=3, properties=commands.Basic.Properties(**written)).marshal()
    read = wire.Properties(payload)
    for name in ("message_id", "correlation_id", "reply_to", "content_type", "expiration"):
        assert (getattr(read, name) or "") == (written[name] or "")
    assert (read.type or "") == (written["message_type"] or "")
    assert read.headers == (written["headers"] or {})
    assert read.persistent == (written["delivery_mode"] == 2)


@pytest.mark.parametrize("multiple", [True, False])
def test_an_acknowledgement_says_which_and_whether_all_before_it(multiple: bool) -> None:
    (frame,) = frames(wire.ack(7, 2**40 + 1, multiple=multiple))
    assert isinstance(frame, commands.Basic.Ack)
    assert (frame.delivery_tag, frame.multiple) == (2**40 + 1, multiple)


@pytest.mark.parametrize("requeue", [True, False])
def test_a_reject_says_where_the_message_goes(requeue: bool) -> None:
    (frame,) = frames(wire.reject(7, 5, requeue=requeue))
    assert isinstance(frame, commands.Basic.Reject)
    assert (frame.delivery_tag, frame.requeue) == (5, requeue)


def test_a_routing_key_too_long_for_the_protocol_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(wire.TooLong):
        wire.publish(1, "x", "k" * 256, b"", message_id=None, frame_max=4096)
