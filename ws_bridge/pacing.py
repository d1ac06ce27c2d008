"""How fast things may come, and when they had better come back, without I/O. Clocks are passed in."""

from __future__ import annotations

import random


def jittered(most: float) -> float:
    """When to come back: a random share, so that a thousand units do not come back as one."""
    return round(random.uniform(most / 4, most), 2)  # noqa: S311 - jitter, not a secret
