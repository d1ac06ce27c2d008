"""The connector to programs of the site: one is started for a unit command and says by its exit code how it went.

`run`, and where the site has them `ask` and `still_wanted`, are command lines of their own, so that a program that
knows of nothing but doing can never be made to do by a question. A program that takes too long is ended with all it
has started. What it writes to its standard error is not kept, since it may tell of patients.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from contracts.envelope import Json
from contracts.text import kept
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.mailbox import Order

ANSWER_BYTES: Final = 64 * 1024
ENDING_SECONDS: Final = 2.0
"""Between asking a program to end and ending it."""
CHILD_SECONDS: Final = 0.5
"""How long what a program has started may go on talking after it."""
LOOK_AGAIN: Final = 0.05
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,79}")


class Said(IntEnum):
    """What an exit code says; any other is `unsure`: nobody knows what the program did."""

    YES = 0
    """run, ask: done; still_wanted: yes."""
    DECLINED = 10
    """run, ask: the site will not do it; `{"code": …}` on the output may say why."""
    NO = 11
    """ask: certainly not done; still_wanted: no."""
    CANNOT_TELL = 12
    """ask: the site does not know, now or ever; still_wanted: no opinion, so yes."""
    TRY_LATER = 75
    """Not now (as sysexits' EX_TEMPFAIL)."""


@dataclass(frozen=True)
class Commands:
    """A type's command lines; `ask` and `still_wanted` None: the site has no answer to that."""

    run: Sequence[str]
    ask: Sequence[str] | None = None
    still_wanted: Sequence[str] | None = None
    timeout: float = 60.0
    """Seconds for one of them."""


class Program:
    """The site's programs for one type of unit command."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """Start it once."""
        code, told = await self._ended(self._commands.run, order, "run")
        if code == Said.YES:
            return Done(told)
        return _declined(told) if code == Said.DECLINED else Unsure(_why(code))

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """What the site's program knows of an order that may have been done."""
        if self._commands.ask is None:
            return None
        code, told = await self._ended(self._commands.ask, order, "ask")
        match code:
            case Said.YES:
                return Done(told)
            case Said.DECLINED:
                return _declined(told)
            case Said.NO:
                return NotDone()
            case Said.CANNOT_TELL:
                return None
            case _:
                return Unsure(_why(code))

    async def still_wanted(self, order: Order) -> bool | Unsure:
        """The site's opinion of a late order."""
        if self._commands.still_wanted is None:
            return True
        code, _ = await self._ended(self._commands.still_wanted, order, "still_wanted")
        return code != Said.NO if code in (Said.YES, Said.NO, Said.CANNOT_TELL) else Unsure(_why(code))

    async def _ended(self, command: Sequence[str], order: Order, verb: str) -> tuple[int | str, Json]:
        """Exit code and JSON output of a program, or why there is none."""
        asked: Json = {
            "verb": verb,
            "id": str(order.id),
            "type": order.type,
            "payload": order.payload,
            "patientId": order.patient_id,
            "unitId": order.unit_id,
            "deadline": order.deadline.isoformat(),
            "attempts": order.attempts,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(os.environ),
                start_new_session=True,  # a group of its own, so that what it starts can be ended with it
            )
        except OSError as why:
            return type(why).__name__, {}
        try:
            async with asyncio.timeout(self._commands.timeout):
                output = await _conversation(process, json.dumps(asked).encode() + b"\n")
        except TimeoutError:
            return "timeout", {}
        finally:
            await _end(process)
        code = process.returncode
        return (f"signal_{-code}" if code is not None and code < 0 else code or 0), _object(output)


async def _conversation(process: asyncio.subprocess.Process, asked: bytes) -> bytes:
    """Tell it, and hear it out until it has ended; what a child of its keeps open is not waited for."""
    assert process.stdin is not None  # noqa: S101 - both were asked for as pipes
    assert process.stdout is not None  # noqa: S101
    hearing = asyncio.ensure_future(_heard(process.stdout))
    try:
        with suppress(OSError):  # a program need not read what it is told
            process.stdin.write(asked)
            await process.stdin.drain()
        process.stdin.close()
        while process.returncode is None and not hearing.done():  # waiting for it would wait for its children's pipes
            await asyncio.wait([hearing], timeout=LOOK_AGAIN)
        if hearing.done():
            await process.wait()
        else:
            await asyncio.wait([hearing], timeout=CHILD_SECONDS)
        return hearing.result() if hearing.done() else b""
    finally:
        hearing.cancel()


async def _heard(stream: asyncio.StreamReader) -> bytes:
    """All it says; nothing when that is too much to be a result."""
    heard = bytearray()
    while more := await stream.read(ANSWER_BYTES):
        heard += more[: ANSWER_BYTES + 1 - len(heard)]
    return bytes(heard) if len(heard) <= ANSWER_BYTES else b""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it is left: asked first, then ended."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_SECONDS):
                await process.wait()
    if sys.platform != "win32":
        _signal(process, signal.SIGKILL)
    elif process.returncode is None:
        process.kill()
    if process.returncode is None:
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a program of the site may see: not what the agent was configured with."""
    return {name: value for name, value in ours.items() if not name.startswith("CARESPINE_")}


def _declined(told: Json) -> Declined:
    code = told.get("code")
    return Declined(code if isinstance(code, str) and _CODE.fullmatch(code) else "declined", told or None)


def _why(code: int | str) -> str:
    return f"exit_{code}" if isinstance(code, int) else code


def _object(output: bytes) -> Json:
    try:
        told = json.loads(output or b"{}")
    except ValueError:
        return {}
    found: Json = kept(told) if isinstance(told, dict) else {}
    return found
