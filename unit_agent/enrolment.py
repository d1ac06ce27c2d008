"""Enrolling an agent with the network: its key is made here, its public half is registered once, with a code.

Where the key lies is `unit_agent.keys`'; how tokens are got with it is `unit_agent.credential`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class EnrolmentRefused(Exception):
    """The network did not take this enrolment. Shows neither code nor key.

    `code` is for programs, `remedy` says what somebody has to do, `status` is HTTP's (None: no answer came).
    """

    def __init__(self, code: str, remedy: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {remedy}")
        self.code = code
        self.remedy = remedy
        self.status = status


@dataclass(frozen=True)
class Enrolled:
    """An agent that the network knows by its key."""

    unit_id: str
    key_id: str
    """Which key: the beginning of the SHA-256 of its public half, as operators see it."""
    gateway_url: str
    key_file: Path
    """The private key, readable by its owner alone; it never leaves the machine."""


async def enrol(*, gateway_url: str, unit_id: str, code: str, folder: Path) -> Enrolled:
    """Make the agent's key in `folder` and register its public half with the code. Raises EnrolmentRefused.

    Doing it again with the same code is harmless when only the answer was lost: the same key is offered again.
    """
    raise NotImplementedError
