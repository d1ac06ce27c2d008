"""Which keys and codes a unit has, and since when which of them let nobody in any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from contracts.unit_credential import EnrolmentCodeIssued, UnitCredentialRevoked, UnitEnrolled, UnitKeyRotated
from projections import unit_credentials, units
from projections.catalogue import read_model_named
from projections.rebuild import rebuild
from tests.projections.facts import NORTH, SOUTH, unit
from tests.projections.readside import ReadSide

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
FIRST, SECOND = "1" * 32, "2" * 32
PUBLIC = "A" * 43 + "="


def code(letter: str, unit_id: str = NORTH) -> EnrolmentCodeIssued:
    return EnrolmentCodeIssued(unit_id=unit_id, code_hash=letter * 64, expires_at=NOW + timedelta(days=1))


def enrolled(letter: str, key_id: str, unit_id: str = NORTH) -> UnitEnrolled:
    return UnitEnrolled(unit_id=unit_id, code_hash=letter * 64, key_id=key_id, public_key=PUBLIC)


def rotated() -> UnitKeyRotated:
    return UnitKeyRotated(
        unit_id=NORTH, key_id=SECOND, public_key=PUBLIC, replaces=FIRST, replaced_until=NOW + timedelta(hours=1)
    )


def revoked(key_id: str | None, minutes: int = 5) -> UnitCredentialRevoked:
    at = NOW + timedelta(minutes=minutes)
    return UnitCredentialRevoked(unit_id=NORTH, key_id=key_id, not_before=at, reason="stolen")


async def known(
    side: ReadSide, unit_id: str = NORTH
) -> tuple[dict[str, unit_credentials.UnitKey], dict[str, unit_credentials.EnrolmentCode]]:
    async with side.asking() as connection:
        keys = await unit_credentials.keys_of(connection, unit_id)
        codes = await unit_credentials.codes_of(connection, unit_id)
    return {key.key_id: key for key in keys}, {one.code_hash[0]: one for one in codes}


async def test_a_code_is_used_by_one_key_and_a_key_is_replaced(side: ReadSide) -> None:
    await side.write(NORTH, unit(), code("a"), code("b"))
    await side.write(NORTH, enrolled("a", FIRST))
    keys, codes = await known(side)
    assert set(keys) == {FIRST}
    assert (codes["a"].key_id, codes["b"].key_id) == (FIRST, None)
    assert codes["a"].used_at is not None
    await side.write(NORTH, rotated())
    keys, _ = await known(side)
    assert (keys[FIRST].valid_until, keys[SECOND].replaces) == (NOW + timedelta(hours=1), FIRST)
    assert keys[SECOND].valid_until is None


async def test_all_of_a_life_in_one_batch_comes_to_the_same(side: ReadSide) -> None:
    await side.write(NORTH, unit(), code("a"), enrolled("a", FIRST), rotated(), revoked(FIRST), code("b"))
    keys, codes = await known(side)
    assert keys[FIRST].revoked_at == NOW + timedelta(minutes=5)
    assert keys[FIRST].revoked_because == "stolen"
    assert keys[SECOND].revoked_at is None
    assert codes["b"].void_at is None


async def test_revoking_everything_ends_all_keys_and_unused_codes_and_nothing_that_comes_later(side: ReadSide) -> None:
    await side.write(NORTH, unit(), code("a"), code("b"), enrolled("a", FIRST), rotated(), revoked(FIRST))
    await side.write(NORTH, revoked(None, minutes=9), code("c"))
    keys, codes = await known(side)
    assert keys[FIRST].revoked_at == NOW + timedelta(minutes=5), "it was revoked before"
    assert keys[SECOND].revoked_at == NOW + timedelta(minutes=9)
    assert [codes[letter].void_at is None for letter in "abc"] == [True, False, True]
    cursor = await side.admin.execute("SELECT key_id, not_before FROM read_unit_revocations ORDER BY position")
    assert await cursor.fetchall() == [(FIRST, NOW + timedelta(minutes=5)), (None, NOW + timedelta(minutes=9))]


async def test_another_unit_s_keys_are_not_touched_and_a_rebuild_comes_to_the_same(side: ReadSide) -> None:
    await side.write(SOUTH, unit(SOUTH), code("a", SOUTH), enrolled("a", FIRST, SOUTH))
    await side.write(NORTH, unit(), code("a"), enrolled("a", FIRST), revoked(None))
    before = (await known(side), await known(side, SOUTH))
    assert before[1][0][FIRST].revoked_at is None
    async for _ in rebuild(side.pool, side.sealer, read_model_named("unit_credentials"), page=2):
        pass
    assert (await known(side), await known(side, SOUTH)) == before


async def test_the_unit_s_version_counts_every_event_of_its_stream(side: ReadSide) -> None:
    await side.write(NORTH, unit(), code("a"), enrolled("a", FIRST), rotated(), revoked(None))
    async with side.asking() as connection:
        found = await units.by_id(connection, NORTH)
    assert found is not None
    assert found.version == 5


async def test_the_gateway_cannot_change_a_key(side: ReadSide) -> None:
    await side.write(NORTH, unit(), code("a"), enrolled("a", FIRST))
    async with side.gateway.connection() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("UPDATE read_unit_keys SET revoked_at = NULL")
