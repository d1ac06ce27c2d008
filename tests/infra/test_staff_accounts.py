"""Addresses are found and not read, wrong passwords are counted by whom they were tried for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest

from infra.database import Pool, pool
from infra.master_keys import KeyRing, MasterKey
from infra.staff_accounts import LOCKED_AFTER, Person, StaffAccounts

ADA = Person("ada@example.org", "Ada Example")
MASTER, NEXT = MasterKey(bytes(32)), MasterKey(bytes(range(32)))


@pytest.fixture
async def source(postgres: str) -> AsyncIterator[Pool]:
    async with pool(postgres, role="gateway", smallest=1, largest=8) as opened:
        yield opened


@pytest.fixture
def accounts(source: Pool) -> StaffAccounts:
    return StaffAccounts(source, KeyRing(MASTER))


async def test_gateways_that_begin_together_have_one_key(source: Pool) -> None:
    found = await asyncio.gather(*(StaffAccounts(source, KeyRing(MASTER)).who("north", ADA.address) for _ in range(6)))
    assert len(set(found)) == 1


async def test_an_address_is_found_in_its_unit_however_it_is_written(accounts: StaffAccounts) -> None:
    who = await accounts.who("north", ADA.address)
    assert who == await accounts.who("north", " ADA@Example.ORG ")
    assert who != await accounts.who("south", ADA.address)


async def test_whose_account_it_is_is_told_with_the_key_and_kept_sealed(accounts: StaffAccounts, postgres: str) -> None:
    account_id, other_id = uuid4(), uuid4()
    who = await accounts.who("north", ADA.address)
    assert await accounts.add(account_id, "north", who, ADA, "$2b$")
    assert not await accounts.add(other_id, "north", who, ADA, "$2b$"), "one account for an address"
    assert not await accounts.add(account_id, "north", b"else", ADA, "$2b$"), "one address for an account"
    assert await accounts.person(account_id) == ADA
    with psycopg.connect(postgres, autocommit=True) as database:
        (row,) = database.execute("SELECT t::text FROM staff_accounts t").fetchall()
        assert ADA.address.encode().hex() not in row[0]
        assert ADA.address not in row[0]
    await accounts.drop("north", account_id)
    assert await accounts.person(account_id) is None


async def test_another_master_key_changes_nothing_of_what_is_found(source: Pool, postgres: str) -> None:
    before = await StaffAccounts(source, KeyRing(MASTER)).who("north", ADA.address)
    with psycopg.connect(postgres, autocommit=True) as database:
        row = database.execute("SELECT wrapped_key FROM subject_keys WHERE subject = 'staff'").fetchone()
        assert row is not None
        again = await NEXT.wrap("staff", await MASTER.unwrap("staff", bytes(row[0])))
        database.execute(
            "UPDATE subject_keys SET master_key_id = %s, wrapped_key = %s WHERE subject = 'staff'", (NEXT.id, again)
        )
    assert await StaffAccounts(source, KeyRing(NEXT, retired=[MASTER])).who("north", ADA.address) == before


async def test_each_lock_is_longer_than_the_one_before_and_a_success_forgives(
    accounts: StaffAccounts, postgres: str
) -> None:
    who = await accounts.who("north", ADA.address)
    assert [await accounts.attempt(who) for _ in range(LOCKED_AFTER)] == [0.0] * LOCKED_AFTER
    waits = []
    with psycopg.connect(postgres, autocommit=True) as database:
        for _ in range(6):
            waits.append(await accounts.attempt(who))
            database.execute("UPDATE staff_attempts SET locked_until = now()")
            assert await accounts.attempt(who) == 0.0
    assert [round(wait, -1) for wait in waits] == [60, 120, 240, 480, 900, 900]
    assert await accounts.attempt(await accounts.who("north", "bob@example.org")) == 0.0
    await accounts.forgive(who)
    assert await accounts.attempt(who) == 0.0


async def test_guesses_made_at_once_are_all_counted(accounts: StaffAccounts) -> None:
    who = await accounts.who("north", ADA.address)
    waits = await asyncio.gather(*(accounts.attempt(who) for _ in range(40)))
    assert waits.count(0.0) == LOCKED_AFTER


async def test_an_attempt_that_was_not_looked_at_locks_nobody_out(accounts: StaffAccounts) -> None:
    who = await accounts.who("north", ADA.address)
    for _ in range(3 * LOCKED_AFTER):
        assert await accounts.attempt(who) == 0.0
        await accounts.not_judged(who)
