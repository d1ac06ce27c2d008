"""Passwords: hashed with bcrypt, beside the event loop, a few at a time. Knows nothing of whose they are.

One costs about a fifth of a second of a core, which is the point of it; so they are worked on by a few threads, only so
many may wait, and whoever comes beyond that is told to come back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

T = TypeVar("T")

ROUNDS: Final = 12
MOST_WAITING: Final = 16
PATIENCE: Final = 5.0
SHORTEST: Final = 12
LONGEST: Final = 200


class PasswordsBusy(Exception):
    """More passwords wait than can be looked at soon."""


class Passwords:
    """Hashes and compares."""

    def __init__(self, *, rounds: int = ROUNDS, threads: int | None = None, most_waiting: int = MOST_WAITING) -> None:
        self._rounds = rounds
        self._most = most_waiting
        self._under_way = 0
        # Half of the cores: logins must not take the other half from everything else that is asked for here.
        self._threads = ThreadPoolExecutor(threads or max(1, (os.cpu_count() or 1) // 2), "passwords")
        # Compared with where there is no account, so that looking takes as long as where there is one.
        self._nobody = f"$2b${rounds:02}${'.' * 53}"

    @property
    def under_way(self) -> int:
        """How many are worked on or wait."""
        return self._under_way

    async def hashed(self, password: str) -> str:
        """What may be kept of the password. Raises PasswordsBusy."""
        content = _content(password)
        return await self._beside(lambda: bcrypt.hashpw(content, bcrypt.gensalt(self._rounds)).decode())

    async def fits(self, password: str, hashed: str | None) -> bool:
        """Whether it is the password; with None never, after as long a while. Raises PasswordsBusy."""
        content, known = _content(password), (hashed or self._nobody).encode()
        is_same = await self._beside(lambda: bcrypt.checkpw(content, known))
        return is_same and hashed is not None

    def close(self) -> None:
        """Begin nothing more; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _beside(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise PasswordsBusy
        self._under_way += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise PasswordsBusy from None
        finally:
            self._under_way -= 1


def _content(password: str) -> bytes:
    """What bcrypt is given: it reads 72 bytes and stops at a zero, so a digest of fixed length stands for the whole."""
    same = unicodedata.normalize("NFKC", password).encode()
    return base64.b64encode(hashlib.sha256(b"carespine.password\x00" + same).digest())
