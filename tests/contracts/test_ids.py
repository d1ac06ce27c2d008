"""Identifiers: what they carry, how they follow from one another, and which are not taken."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from contracts.ids import (
    Department,
    TimedEntryId,
    UnitId,
    derived,
    fresh_command_id,
    instant_of,
    is_command_id,
    keyed_command_id,
    partition_of,
    service_day,
    uuid7,
)

MORNING = datetime(2025, 3, 3, 8, 0, tzinfo=UTC)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 the strategy adds UTC
entropies = st.binary(min_size=10, max_size=10)


@given(instants, entropies)
def test_a_uuid7_is_what_the_rfc_says_and_carries_its_instant(at: datetime, entropy: bytes) -> None:
    id_ = uuid7(at, entropy)
    assert (id_.version, id_.variant) == (7, "specified in RFC 4122")
    assert abs(instant_of(id_) - at) <= timedelta(milliseconds=1)


@given(instants, instants, entropies, entropies)
def test_ids_stand_in_the_order_of_their_instants(one: datetime, other: datetime, first: bytes, second: bytes) -> None:
    early, late = sorted((one, other))
    if late - early >= timedelta(milliseconds=1):
        assert uuid7(early, first) < uuid7(late, second)


@given(instants, entropies, entropies)
def test_ids_of_one_instant_differ_by_their_entropy(at: datetime, one: bytes, other: bytes) -> None:
    # 74 of the 80 bits fit.
    same = (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")) & ((1 << 74) - 1) == 0
    assert (uuid7(at, one) == uuid7(at, other)) is same


@given(instants, entropies)
def test_a_fresh_command_id_is_known_as_one(at: datetime, entropy: bytes) -> None:
    id_ = fresh_command_id(at, entropy)
    assert is_command_id(id_)
    assert id_.version == 7
    assert abs(instant_of(id_) - at) <= timedelta(milliseconds=1)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_key_names_one_command_for_ever(subject: str, unit: str, key: str) -> None:
    id_ = keyed_command_id(subject, unit, key)
    assert id_ == keyed_command_id(subject, unit, key)
    assert is_command_id(id_)
    assert (id_.version, id_.variant) == (8, "specified in RFC 4122")


def test_the_same_key_of_another_caller_or_unit_is_another_command() -> None:
    ids = {keyed_command_id(*of) for of in (("a", "u", "1"), ("b", "u", "1"), ("a", "v", "1"), ("a", "u", "2"))}
    assert len(ids) == 4


@given(st.uuids())
def test_an_id_that_nobody_issued_is_not_taken_for_one(stranger: UUID) -> None:
    assert not is_command_id(stranger)


@given(instants, entropies, st.integers(0, 127))
def test_a_misread_command_id_is_noticed(at: datetime, entropy: bytes, bit: int) -> None:
    assert not is_command_id(UUID(int=fresh_command_id(at, entropy).int ^ (1 << bit)))


def test_what_a_command_brings_into_being_has_the_same_id_at_every_retry() -> None:
    command = fresh_command_id(MORNING, bytes(range(10)))
    assert derived(command, "entry", MORNING) == derived(command, "entry", MORNING)
    assert derived(command, "entry", MORNING) != derived(command, "encounter", MORNING)
    assert instant_of(derived(command, "entry", MORNING)) == MORNING
    assert derived(fresh_command_id(MORNING, bytes(10)), "entry", MORNING) != derived(command, "entry", MORNING)


@given(st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True))
def test_a_unit_has_one_partition(unit: str) -> None:
    assert partition_of(unit, 16) == crc32(unit.encode()) % 16
    assert 0 <= partition_of(unit, 16) < 16


def test_a_service_day_is_the_units_own() -> None:
    late = datetime(2025, 3, 3, 23, 30, tzinfo=UTC)
    assert service_day(late, "UTC") == date(2025, 3, 3)
    assert service_day(late, "Europe/Berlin") == date(2025, 3, 4)
    assert service_day(late, "America/Los_Angeles") == date(2025, 3, 3)


@pytest.mark.parametrize("unit", ["", "North", "a.b", "a*", "a#", "ä", "x" * 41, "a b", "a\n"])
def test_a_unit_id_is_narrow_because_it_stands_in_routing_keys(unit: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(UnitId).validate_python(unit)


@pytest.mark.parametrize(
    ("said", "code"), [("General Medicine", "general-medicine"), (" X_Ray ", "x-ray"), ("radiology", "radiology")]
)
def test_a_department_is_read_as_people_write_it(said: str, code: str) -> None:
    assert TypeAdapter(Department).validate_python(said) == code


@pytest.mark.parametrize("said", ["", "-", "a.b", "*", "x" * 41, "a\nb", 7])
def test_a_department_code_is_narrow(said: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Department).validate_python(said)


@pytest.mark.parametrize(
    "id_", [uuid4(), UUID(int=0), UUID(int=(1 << 128) - 1), uuid7(MORNING, bytes(10)).int ^ 1 << 76]
)
def test_the_id_of_a_queue_entry_has_to_tell_a_day(id_: UUID | int) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TimedEntryId).validate_python(id_ if isinstance(id_, UUID) else UUID(int=id_))
    beyond = UUID(int=uuid7(MORNING, bytes(10)).int | ((1 << 48) - 1) << 80)
    with pytest.raises(ValidationError):
        TypeAdapter(TimedEntryId).validate_python(beyond)
    good = uuid7(MORNING, bytes(10))
    assert TypeAdapter(TimedEntryId).validate_python(str(good)) == good
