"""Log lines in a folder: `agent.log` with all of them, `errors.log` with the errors alone; each put aside when large.

Which keys a line may have is `infra.telemetry.logs`'. A disk that takes no line does not stop the agent: how many were
lost is the first line once there is room.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final


class _File:
    """One file and those put aside: `agent.log`, `agent.log.1` (the newest of them), `agent.log.2` …"""

    def __init__(self, path: Path, largest_bytes: int, keep: int) -> None:
        self._path = path
        self._largest = largest_bytes
        self._keep = keep
        self._lost = 0

    def write(self, line: bytes) -> None:
        """Append a line; counted as lost when the disk does not take it."""
        if self._lost:
            at = datetime.now(UTC).isoformat()
            line = b'{"event":"log_lines_lost","count":%d,"timestamp":"%b"}\n' % (self._lost, at.encode()) + line
        try:
            self._make_room(len(line))
            with self._path.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) != len(line):
                    file.truncate(before)
                    raise OSError("the disk took a part of the line")
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def _make_room(self, more: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size == 0 or size + more <= self._largest:
            return
        self._aside(self._keep).unlink(missing_ok=True)
        for number in range(self._keep - 1, -1, -1):
            if self._aside(number).exists():
                self._aside(number).replace(self._aside(number + 1))

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


class LogFolder:
    """What structlog writes lines with, as bytes without their end. Any thread may."""

    def __init__(self, folder: Path, *, largest_bytes: int, keep: int) -> None:
        """Raises OSError when the folder cannot be made."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._all: Final = _File(folder / "agent.log", largest_bytes, keep)
        self._errors: Final = _File(folder / "errors.log", largest_bytes, keep)
        self._lock: Final = threading.Lock()

    def __call__(self, *arguments: object) -> LogFolder:
        """As structlog's logger factory."""
        return self

    def info(self, line: bytes) -> None:
        """A line that is no error."""
        with self._lock:
            self._all.write(line + b"\n")

    def error(self, line: bytes) -> None:
        """A line that is one."""
        with self._lock:
            self._all.write(line + b"\n")
            self._errors.write(line + b"\n")

    debug = warning = msg = info
    critical = error
