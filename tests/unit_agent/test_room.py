"""Room for what has to be written, refused to what has not."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from unit_agent.room import Room


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say what the disk has left."""

    def leave(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))

    return leave


def full() -> sqlite3.OperationalError:
    """What SQLite raises then, with its code."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (x)")
    database.execute("PRAGMA max_page_count = 2")
    try:
        for _ in range(100):
            database.execute("INSERT INTO t VALUES (zeroblob(4000))")
    except sqlite3.OperationalError as error:
        return error
    raise AssertionError("it took everything")


def room(folder: Path) -> Room:
    return Room(folder, low_bytes=1_000_000, reserve_bytes=500_000)


def test_nothing_new_is_taken_below_the_limit_and_the_reserve_is_held(
    tmp_path: Path, left: Callable[[int], None]
) -> None:
    left(5_000_000)
    one = room(tmp_path)
    assert (one.for_new, one.state) == (True, "enough")
    left(999_999)
    assert (one.for_new, one.state, one.since is not None) == (False, "short", True)
    assert (tmp_path / "reserve").stat().st_size == 500_000


def test_the_reserve_is_given_up_when_a_write_fails_and_made_again_when_there_is_room_for_both(
    tmp_path: Path, left: Callable[[int], None]
) -> None:
    left(5_000_000)
    one = room(tmp_path)
    left(900_000)
    assert one.noticed(full())
    assert not (tmp_path / "reserve").exists()
    left(1_400_000)  # the limit is passed, but not by the reserve
    assert (one.for_new, one.state) == (False, "full")
    left(1_500_000)
    assert (one.for_new, one.state) == (True, "enough")
    assert (tmp_path / "reserve").exists()
    assert one.since is None


def test_another_trouble_of_the_store_is_not_taken_for_a_full_disk(tmp_path: Path, left: Callable[[int], None]) -> None:
    left(5_000_000)
    one = room(tmp_path)
    assert not one.noticed(sqlite3.OperationalError("no such table"))
    assert not one.noticed(OSError(28, "No space left on device"))
    assert (one.for_new, one.state) == (True, "enough")


async def test_what_has_to_be_written_is_written_with_the_reserve(tmp_path: Path, left: Callable[[int], None]) -> None:
    left(5_000_000)
    one = room(tmp_path)
    tries: list[bool] = []

    async def write() -> str:
        tries.append((tmp_path / "reserve").exists())
        if tries == [True]:
            raise full()
        return "written"

    async with asyncio.timeout(5):
        assert await one.insist(write) == "written"
    assert tries == [True, False]


def test_a_reserve_that_cannot_be_kept_is_no_reason_to_fail(tmp_path: Path, left: Callable[[int], None]) -> None:
    left(10**18)
    one = Room(tmp_path, low_bytes=1, reserve_bytes=10**17)
    assert not one.for_new
    assert not (tmp_path / "reserve").exists()


def test_without_a_folder_there_is_always_room() -> None:
    assert Room().for_new
    assert not Room().noticed(full())
