"""Passwords are hashed beside the event loop, a few at a time; whoever comes beyond that is told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from infra.passwords import ROUNDS, Passwords, PasswordsBusy

QUICK = 4
"""Rounds, where what is tried is not how long it takes."""


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(rounds=QUICK, threads=2)
    yield made
    made.close()


async def test_a_password_fits_its_hash_and_no_other_does(passwords: Passwords) -> None:
    hashed = await passwords.hashed("seven ponds")
    assert await passwords.fits("seven ponds", hashed)
    assert not await passwords.fits("seven pond", hashed)
    assert hashed != await passwords.hashed("seven ponds"), "salted"


async def test_passwords_are_kept_with_twelve_rounds() -> None:
    made = Passwords(threads=1)
    assert (await made.hashed("seven ponds")).startswith("$2b$12$")
    assert ROUNDS == 12
    made.close()


async def test_a_long_password_counts_to_its_last_character(passwords: Passwords) -> None:
    hashed = await passwords.hashed("x" * 199 + "a")
    assert not await passwords.fits("x" * 199 + "b", hashed)
    assert not await passwords.fits("x" * 72, hashed)


async def test_a_zero_ends_no_password(passwords: Passwords) -> None:
    assert not await passwords.fits("seven\x00herons", await passwords.hashed("seven\x00ponds"))


async def test_letters_are_the_same_however_they_are_composed(passwords: Passwords) -> None:
    assert await passwords.fits("cafe\u0301 au lait", await passwords.hashed("caf\u00e9 au lait"))


async def test_nothing_fits_where_there_is_no_account_and_looking_takes_as_long() -> None:
    made = Passwords(rounds=9, threads=1)
    hashed = await made.hashed("seven ponds")
    spent = []
    for known in (hashed, None):
        began = time.thread_time()
        clock = time.process_time()
        assert not await made.fits("other", known)
        spent.append(time.process_time() - clock)
        assert time.thread_time() - began < 0.1, "not on the event loop"
    assert 0.3 < spent[0] / spent[1] < 3
    made.close()


async def test_only_so_many_wait() -> None:
    made = Passwords(rounds=10, threads=1, most_waiting=3)
    hashed = await made.hashed("seven ponds")
    tasks = [asyncio.create_task(made.fits("seven ponds", hashed)) for _ in range(8)]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended].count(PasswordsBusy) == 5
    assert ended.count(True) == 3
    assert made.under_way == 0
    assert await made.fits("seven ponds", hashed), "and then there is room again"
    made.close()
