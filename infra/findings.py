"""What a check found: the one shape that `doctor`, readiness and operators see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `remedy` says what to do when it failed."""

    id: str
    state: Literal["ok", "warning", "failed"]
    seen: str
    expected: str
    remedy: str
