"""Programs of ours that outlive the command that started them.

Knows how to start one in its own session, how to write down what must be found again, how to recognise a process
later (a process id alone may have been given to somebody else since), and how to end it within a deadline. What the
program is, and whether it is ready, is its owner's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import psutil

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class ServiceTrouble(Exception):
    """A local service could not be found, started or stopped; the message says what to do about it."""


@dataclass(frozen=True)
class Identity:
    """One run of one program: its process id, and when it started, since process ids come round again."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        return cls(pid=pid, started=psutil.Process(pid).create_time())

    @classmethod
    def read(cls, path: Path) -> Identity | None:
        """What stands in the file, or None where there is no file or no sense in it."""
        return Kept(path, cls).read()

    def write(self, path: Path) -> None:
        """Write it down for a later command."""
        Kept(path, Identity).write(self)

    def process(self) -> psutil.Process | None:
        """The process if it is still the one that was meant, else None."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 2:
                return None
        except psutil.NoSuchProcess:
            return None
        return process


@dataclass(frozen=True)
class Account:
    """The system user a program runs as, where that is not our own."""

    uid: int
    gid: int


class Kept(Generic[T]):
    """One dataclass of plain values in a file only we may read."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind = kind

    def read(self) -> T | None:
        """What was written, or None where there is no file or no sense in it."""
        try:
            return self._kind(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, value: T) -> T:
        """Keep the value in place of any earlier one, and answer it."""
        write_private(self._path, json.dumps(asdict(value)))
        return value


class KeptProcess:
    """A process whose identity is written down in a file, so that a later command finds and ends it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def pid(self) -> int | None:
        """The process id while it runs; None if it is gone, or another process has its id by now."""
        identity = Identity.read(self._path)
        return identity.pid if identity and identity.process() else None

    def began(self, identity: Identity) -> None:
        """This is the process from now on."""
        identity.write(self._path)

    def end(self, *, by: signal.Signals = signal.SIGTERM, timeout: float) -> None:
        """End it if it runs, and forget it."""
        identity = Identity.read(self._path)
        if identity:
            end(identity, by=by, timeout=timeout)
        self._path.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file only we may read, so that a reader sees the old text or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def spawn(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, account: Account | None = None
) -> Identity:
    """Start a program in a session of its own, so that no terminal and no Ctrl-C of ours reaches it.

    A shell in between starts it and goes: so it is nobody's child who would have to wait for it.
    """
    with log.open("ab") as output:
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *(str(word) for word in command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=None if env is None else dict(env),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            check=True,
            timeout=30,
        )
    pid = int(shell.stdout)
    try:
        return Identity.of(pid)
    except psutil.NoSuchProcess:  # gone already; its owner finds out when waiting for it to be ready
        return Identity(pid=pid, started=time.time())


def end(identity: Identity, *, by: signal.Signals = signal.SIGTERM, timeout: float) -> None:
    """Send the signal and wait until the process is gone; after the deadline it is killed."""
    process = identity.process()
    if process is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(by)
    try:
        wait_until(lambda: identity.process() is None, timeout=timeout, what=f"the end of process {identity.pid}")
    except ServiceTrouble:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        wait_until(lambda: identity.process() is None, timeout=10, what=f"the end of process {identity.pid}, killed,")


def wait_until(condition: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Wait for a condition, looking more and more rarely, and say what was waited for if it does not come."""
    deadline = time.monotonic() + timeout
    pause = 0.02
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceTrouble(f"{what} did not happen within {timeout:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log, for the message of a program that did not start."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return "(no log)"
