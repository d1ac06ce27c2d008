"""Delays of what was delivered: each message carries the instant it was sent, on this machine's monotonic clock."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from tests.load.figures import Spread, spread

STAMP = b'"sentAt":'


@dataclass
class Delivered:
    """What came of a stretch of deliveries."""

    count: int
    duplicates: int
    spread: Spread | None
    cpu_seconds: float
    """Of the process that received them."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> Delivered:  # Any: JSON
        """From the JSON of `asdict`."""
        return cls(
            told["count"], told["duplicates"], Spread(**told["spread"]) if told["spread"] else None, told["cpu_seconds"]
        )


class Samples:
    """Collects delays until they are asked for."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.duplicates = 0
        self._cpu = time.process_time()

    def take(self, message: bytes, now: float) -> None:
        """Every stamp in a message."""
        at = message.find(STAMP)
        while at >= 0:
            start = at + len(STAMP)
            end = start
            while message[end] in b"0123456789.":
                end += 1
            self.delays.append(now - float(message[start:end]))
            at = message.find(STAMP, end)

    def report(self) -> dict[str, Any]:  # Any: JSON
        """What was collected, as JSON; the next stretch begins."""
        delays, self.delays = self.delays, []
        duplicates, self.duplicates = self.duplicates, 0
        before, self._cpu = self._cpu, time.process_time()
        return asdict(Delivered(len(delays), duplicates, spread(delays) if delays else None, self._cpu - before))
