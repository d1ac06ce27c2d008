"""MLLP framing: the same messages come out however the bytes are cut up, and rubbish never hides a good one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit_agent.hl7v2.mllp import HEAD_BYTES, Block, Deframer, framed

LIMIT = 200

CONTENT = st.binary(max_size=LIMIT).map(lambda data: data.replace(b"\x0b", b".").replace(b"\x1c", b"."))
RUBBISH = st.binary(max_size=20).map(lambda data: data.replace(b"\x0b", b".").replace(b"\x1c", b"."))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def received(pieces: list[bytes], limit: int = LIMIT) -> tuple[list[Block], Deframer]:
    """What one connection makes of these pieces."""
    deframer = Deframer(limit)
    return [block for piece in pieces for block in deframer.feed(piece)], deframer


@given(st.lists(CONTENT, max_size=6), st.lists(st.integers(0, 1300), max_size=12))
def test_messages_come_out_as_they_went_in_wherever_the_bytes_are_cut(messages: list[bytes], places: list[int]) -> None:
    stream = b"".join(framed(message) for message in messages)
    blocks, deframer = received(cut(stream, places))
    assert blocks == [Block(message) for message in messages]
    assert (deframer.unframed, deframer.broken_off, deframer.is_inside) == (0, 0, False)


@given(st.lists(st.tuples(RUBBISH, CONTENT), max_size=5), st.lists(st.integers(0, 1300), max_size=8))
def test_rubbish_between_messages_costs_none_of_them(parts: list[tuple[bytes, bytes]], places: list[int]) -> None:
    stream = b"".join(rubbish + framed(message) for rubbish, message in parts)
    blocks, _ = received(cut(stream, places))
    assert [block.content for block in blocks] == [message for _, message in parts]


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=8))
def test_any_bytes_give_the_same_however_they_are_cut(stream: bytes, places: list[int]) -> None:
    whole, one = received([stream])
    pieces, other = received(cut(stream, places))
    assert whole == pieces
    assert (one.unframed, one.broken_off, one.is_inside) == (other.unframed, other.broken_off, other.is_inside)


@given(st.integers(LIMIT + 1, 5 * LIMIT), CONTENT, st.lists(st.integers(0, 1300), max_size=8))
def test_an_oversized_message_is_told_by_its_beginning_and_the_next_is_whole(
    size: int, following: bytes, places: list[int]
) -> None:
    blocks, _ = received(cut(framed(b"x" * size) + framed(following), places))
    assert blocks == [Block(b"x" * min(HEAD_BYTES, LIMIT), oversized=True), Block(following)]


def test_a_message_begun_anew_replaces_the_one_that_was_broken_off() -> None:
    blocks, deframer = received([b"\x0bMSH|half", b"\x0bMSH|whole\x1c\r"])
    assert blocks == [Block(b"MSH|whole")]
    assert deframer.broken_off == 1


def test_a_missing_carriage_return_after_the_end_is_forgiven() -> None:
    blocks, deframer = received([b"\x0bfirst\x1c\x0bsecond\x1c\r"])
    assert [block.content for block in blocks] == [b"first", b"second"]
    assert deframer.unframed == 0


def test_an_oversized_message_takes_no_more_memory_than_the_limit() -> None:
    deframer = Deframer(LIMIT)
    for _ in range(1000):
        assert list(deframer.feed(b"\x0b" + b"x" * 5000)) == []
    assert len(deframer._content) <= LIMIT + 1


@pytest.mark.parametrize("byte", [b"\x0b", b"\x1c"])
def test_nothing_is_sent_that_would_break_the_framing(byte: bytes) -> None:
    with pytest.raises(ValueError, match="framing"):
        framed(b"MSH|" + byte)
