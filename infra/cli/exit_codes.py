"""What the exit code of a `carespine` command means; scripts rely on it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    """Refused by a rule."""
    CHECK_FAILED = 7
    """doctor found something, or something was lost."""
    TIMED_OUT = 8
    INTERRUPTED = 130
