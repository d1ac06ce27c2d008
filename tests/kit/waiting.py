"""Waiting for a condition with a deadline: tests never sleep for a time and hope."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], *, within: float = 30, what: str = "") -> T: ...
@overload
async def eventually(condition: Callable[[], T], *, within: float = 30, what: str = "") -> T: ...
async def eventually(
    condition: Callable[[], Any],  # Any: see the overloads
    *,
    within: float = 30,
    what: str = "",
) -> Any:  # Any: see the overloads
    """Ask again and again until the answer is true, and return it; AssertionError once the time is over.

    The condition may be plain or async. Exceptions are the test's own business and pass through.
    """
    deadline = time.monotonic() + within
    pause = 0.005
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what or 'the condition'} did not come true within {within:g} s; last seen: {value!r}"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)
