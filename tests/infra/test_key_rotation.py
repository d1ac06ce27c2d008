"""Rotating the master key: every data key wrapped anew in steps, while processes go on reading and writing."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from infra.database import Connection, Pool, pool
from infra.key_rotation import rotate, standing
from infra.master_keys import KeyNotKnown, KeyRing, Master, MasterKey, ring_of
from infra.sealing import Sealer
from infra.settings import SettingsError

PLACE = "patient-p@1"


class Vault:
    """A KMS as this process sees one: it wraps and unwraps, and never shows its key."""

    def __init__(self) -> None:
        self.id = "kms:one"
        self._key = MasterKey(os.urandom(32))
        self.asked = 0

    async def wrap(self, subject: str, data_key: bytes) -> bytes:
        self.asked += 1
        return await self._key.wrap(subject, data_key)

    async def unwrap(self, subject: str, wrapped: bytes) -> bytes:
        self.asked += 1
        return await self._key.unwrap(subject, wrapped)


@pytest.fixture
async def handlers(postgres: str) -> AsyncIterator[Connection]:
    """Acting as the handlers."""
    async with pool(postgres, role="handlers") as some, some.connection() as connection:
        yield connection


@pytest.fixture
async def keeper(postgres: str) -> AsyncIterator[Pool]:
    """Acting as whoever rotates keys."""
    async with pool(postgres, role="keys", largest=1) as some:
        yield some


def written(key: bytes) -> str:
    return base64.b64encode(key).decode()


async def sealed_for(sealer: Sealer, connection: Connection, count: int) -> dict[str, bytes]:
    people = [f"p{number:03}" for number in range(count)]
    await sealer.create(connection, dict.fromkeys(people, "u1"))
    return {one: sealer.seal(one, PLACE, {"lastName": one}) for one in people}


@pytest.mark.parametrize("new", [MasterKey(os.urandom(32)), Vault()], ids=["key", "kms"])
async def test_every_data_key_is_wrapped_anew_and_the_retired_master_key_is_not_needed_any_more(
    handlers: Connection, keeper: Pool, new: Master
) -> None:
    old = MasterKey(os.urandom(32))
    sealed = await sealed_for(Sealer(old), handlers, 25)
    ring = KeyRing(new, retired=[old])

    counts = [count async for count in rotate(keeper, ring, batch=10)]

    assert counts == [10, 10, 5]
    assert (await standing(keeper, ring)).by_master == {new.id: 25}
    alone = Sealer(new)
    await alone.load(handlers, sealed)
    assert all(alone.unseal(one, PLACE, what) == {"lastName": one} for one, what in sealed.items())


async def test_a_rotation_that_was_broken_off_goes_on_with_what_is_left(handlers: Connection, keeper: Pool) -> None:
    old, new = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    await sealed_for(Sealer(old), handlers, 25)
    ring = KeyRing(new, retired=[old])
    begun = rotate(keeper, ring, batch=10)
    await anext(begun)
    await begun.aclose()
    assert (await standing(keeper, ring)).left == 15

    assert sum([count async for count in rotate(keeper, ring, batch=10)]) == 15


async def test_without_the_retired_key_nothing_is_touched(handlers: Connection, keeper: Pool) -> None:
    old = MasterKey(os.urandom(32))
    await sealed_for(Sealer(old), handlers, 3)
    ring = KeyRing(MasterKey(os.urandom(32)))
    with pytest.raises(KeyNotKnown, match=old.id):
        await anext(rotate(keeper, ring))
    assert (await standing(keeper, ring)).unknown == {old.id}


async def test_a_process_that_runs_learns_of_a_new_key_from_its_file(
    handlers: Connection, keeper: Pool, tmp_path: Path
) -> None:
    old, new = os.urandom(32), os.urandom(32)
    file = tmp_path / "master.keys"
    file.write_text(f"# in use\n{written(old)}\n")
    running = Sealer(ring_of(str(file)))
    sealed = await sealed_for(running, handlers, 5)
    file.write_text(f"{written(new)}\n{written(old)}\n")
    os.utime(file, ns=(1, 1))

    assert [count async for count in rotate(keeper, ring_of(f"file:{file}"))] == [5]

    running.forget(sealed)
    await running.load(handlers, sealed)
    assert running.unseal("p001", PLACE, sealed["p001"]) == {"lastName": "p001"}
    await running.create(handlers, {"p999": "u1"})
    assert (await standing(keeper, running.keys)).by_master == {MasterKey(new).id: 6}


async def test_the_one_who_rotates_keys_may_not_destroy_or_make_them(keeper: Pool) -> None:
    for statement in (
        "DELETE FROM subject_keys",
        "INSERT INTO subject_keys (subject, unit_id, master_key_id, wrapped_key) VALUES ('a', 'b', 'c', '')",
        "SELECT 1 FROM events",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with keeper.connection() as connection:
                await connection.execute(statement.encode())


def test_several_keys_stand_in_one_variable_the_one_in_use_first() -> None:
    one, other = os.urandom(32), os.urandom(32)
    ring = ring_of(f"{written(one)},{written(other)}")
    assert ring.current.id == MasterKey(one).id
    assert ring.ids == {MasterKey(one).id, MasterKey(other).id}


@pytest.mark.parametrize("wrong", ["", "dG9vIHNob3J0", "/no/such/file", f"{written(bytes(32))},{written(bytes(32))}"])
def test_what_is_no_key_is_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(SettingsError, match="MASTER_KEY") as refused:
        ring_of(wrong)
    assert not wrong or wrong not in str(refused.value)
