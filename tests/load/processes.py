"""Processes under measurement: started, found, ended, and the CPU they used.

CPU is of whole trees (a server with its workers), children that have ended meanwhile included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.load.generator import ANSWER_DEADLINE, Driven, Job

STOP_DEADLINE = 15.0
REPOSITORY = Path(__file__).resolve().parents[2]


class Trouble(Exception):
    """The benchmark cannot go on; the message says why."""


class Child:
    """A process of the benchmark's own; its output goes to a log, or to us line by line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        listen: bool = False,
    ) -> Child:
        """Start it in the repository's folder; `listen` keeps its standard output for `line`."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if listen else output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=REPOSITORY,
                limit=1 << 26,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, timeout: float) -> str:
        """Its next line of output."""
        assert self.process.stdout
        try:
            async with asyncio.timeout(timeout):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise Trouble(f"{self.name} said nothing for {timeout:.0f} s{self.last_words()}") from None
        if not line:
            raise Trouble(f"{self.name} ended{self.last_words()}")
        return line.decode()

    def last_words(self) -> str:
        """The end of its log, for a message."""
        words = self.log.read_text(errors="replace").strip().splitlines()[-8:]
        return "".join(f"\n  {self.name}: {line[:300]}" for line in words)

    async def stop(self) -> None:
        """Ask it to end, insist after a deadline."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_DEADLINE):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


class Meter:
    """The CPU seconds of several process trees, by name."""

    def __init__(self, pids: Mapping[str, int | None]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in pids.items() if pid is not None}

    def read(self) -> dict[str, float]:
        """CPU seconds used so far (user and system)."""
        return {name: _tree_seconds(root) for name, root in self._roots.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used between two readings."""
    return {name: max(0.0, after[name] - before[name]) for name in before if name in after}


def _tree_seconds(root: psutil.Process) -> float:
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_busy_seconds() -> float:
    """CPU seconds everything on this machine has used so far."""
    times = psutil.cpu_times()
    idle: float = times.idle + getattr(times, "iowait", 0.0)
    return sum(times[: len(times)]) - idle - getattr(times, "guest", 0.0)


def listener_of(url: str) -> int | None:
    """The process that listens on the port of a URL on this machine; None where that cannot be seen."""
    port = urlsplit(url).port
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid:
                return connection.pid
    return None


async def drive(job: Job, folder: Path) -> Driven:
    """Run a job in a generator process of its own."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    child = await Child.start(
        "generator", [sys.executable, "-m", "tests.load.generator", path], log=folder / "generator.log", listen=True
    )
    try:
        driven = Driven(**json.loads(await child.line(job.seconds + ANSWER_DEADLINE + 30)))
        await child.process.wait()
    finally:
        await child.stop()
    return driven
