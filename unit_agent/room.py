"""Room on the agent's disk: watched before it runs out, with a reserve for what has to be written all the same.

When room is short, nothing new is taken: no command of the site, no message, no fact of the feed, and no unit command
is begun. What is under way ends: its outcome is written into room that was kept free for it. Nothing has to be done
here when there is room again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeVar

import structlog

T = TypeVar("T")

RESERVE_BYTES: Final = 8 * 1024 * 1024
LOW_BYTES: Final = 32 * 1024 * 1024
LOOK_AGAIN: Final = 1.0
_FULL: Final = 13
_IO_ERROR: Final = 10
"""SQLite's primary result codes."""
_BARE: Final = 256 * 1024
"""Bytes below which an error of input or output is taken for a full disk."""

log = structlog.get_logger()

State = Literal["enough", "short", "full"]
"""enough · short: too little for anything new · full: a write has failed, or the reserve was needed."""


class Room:
    """One agent's disk. Without a folder it never runs out."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        low_bytes: int = LOW_BYTES,
        unit_id: str = "",
    ) -> None:
        """Looks, and keeps the reserve when there is room for it. To be made before the store is opened."""
        self._folder = folder
        self._reserve = None if folder is None else folder / "reserve"
        self._reserve_bytes = reserve_bytes
        self._low_bytes = low_bytes
        self._unit_id = unit_id
        self.state: State = "enough"
        self.since: datetime | None = None
        """Since when there is too little; None when there is enough."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._look()

    @property
    def for_new(self) -> bool:
        """Whether anything new may be taken."""
        self._look()
        return self.state == "enough"

    @property
    def free_bytes(self) -> int | None:
        """What the disk has left for this account; None without a folder."""
        return None if self._folder is None else shutil.disk_usage(self._folder).free

    def noticed(self, error: BaseException) -> bool:
        """Whether an error means that there is no room; then the reserve is given up, and writing it again may work."""
        if not isinstance(error, sqlite3.Error) or self._folder is None:
            return False
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary != _FULL and not (primary == _IO_ERROR and (self.free_bytes or 0) < _BARE):
            return False
        self._give_up()
        self._say("full")
        return True

    async def enough(self) -> None:
        """Wait until something new may be taken."""
        while not self.for_new:  # noqa: ASYNC110 - nobody tells when a disk has room again
            await asyncio.sleep(LOOK_AGAIN)

    async def insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write what has to be written, with the reserve, and if that is not enough as soon as there is room."""
        while True:
            try:
                return await write()
            except sqlite3.Error as trouble:
                held = self._held
                if not self.noticed(trouble):
                    raise
                if not held:
                    await asyncio.sleep(LOOK_AGAIN)

    def _look(self) -> None:
        free = self.free_bytes
        if free is None:
            return
        wanted = self._low_bytes + (0 if self._held else self._reserve_bytes)
        if free >= wanted and self._keep():
            self._say("enough")
        elif free < _BARE:
            self._give_up()
            self._say("full")
        elif self.state == "enough":
            self._say("short")

    @property
    def _held(self) -> bool:
        if self._reserve is None or self._reserve_bytes == 0:
            return True
        try:
            return self._reserve.stat().st_size >= self._reserve_bytes
        except FileNotFoundError:
            return False

    def _keep(self) -> bool:
        if self._held or self._reserve is None:
            return True
        try:
            with self._reserve.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._reserve_bytes)
                else:
                    for _ in range(0, self._reserve_bytes, 65536):
                        file.write(bytes(65536))
        except OSError:
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)

    def _say(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self.since = None if state == "enough" else self.since or datetime.now(UTC)
        say = log.info if state == "enough" else log.critical
        say(f"disk_{state}", unit_id=self._unit_id, bytes=self.free_bytes)
