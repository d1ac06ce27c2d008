"""One request's passage through the gateway: what every part of it needs to know, read from the headers once.

The edge makes it and puts it into the ASGI scope; routes take it from there.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from gateway.problems import Problem

KEY: Final = "carespine.passage"
DEFAULT_WAIT: Final = 5.0
LONGEST_WAIT: Final = 30.0

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_WAIT: Final = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
_VERSION: Final = re.compile(r'(?:W/)?"(\d{1,9})"')


@dataclass(slots=True)
class Passage:
    """Headers (names lower case, as bytes) and the trace they belong to."""

    headers: dict[bytes, bytes]
    trace_id: str
    traceparent: str | None
    """As the caller sent it; None when there was none or it was not one."""
    route: str = "unmatched"
    """The path template, for the metrics: never the path itself."""

    def text(self, name: bytes) -> str | None:
        """One header's value, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()


def passage_of(scope: Scope) -> Passage:
    """Read the headers of a request that has just arrived."""
    headers = dict(scope["headers"])
    given = headers.get(b"traceparent")
    if given is not None:
        traceparent = given.decode("latin-1")
        match = _TRACEPARENT.fullmatch(traceparent)
        if match:
            return Passage(headers, match[1], traceparent)
    return Passage(headers, os.urandom(16).hex(), None)


def passage(request: Request) -> Passage:
    """The passage of a request inside a route."""
    found: Passage = request.scope[KEY]
    return found


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the caller wants a command treated."""

    wait: float
    """Seconds to wait for the outcome; 0: not at all."""
    applied: str | None
    """What `Preference-Applied` says; None when nothing was preferred."""
    key: str | None
    """`Idempotency-Key`."""
    expected_version: int | None
    """`If-Match`."""


_NO_WISHES: Final = Wishes(DEFAULT_WAIT, None, None, None)


def wishes(asked: Passage) -> Wishes:
    """`Prefer`, `Idempotency-Key` and `If-Match`; raises Problem where the latter two cannot be read.

    `respond-async, wait=2` waits two seconds (RFC 7240); preferences that mean nothing here are ignored, as it says.
    """
    headers = asked.headers
    if b"idempotency-key" not in headers and b"prefer" not in headers and b"if-match" not in headers:
        return _NO_WISHES
    key = asked.text(b"idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Problem("header_invalid", "Idempotency-Key must be 1 to 200 visible ASCII characters.")
    expected = asked.text(b"if-match")
    match = _VERSION.fullmatch(expected) if expected and expected != "*" else None
    if expected and expected != "*" and match is None:
        raise Problem("header_invalid", 'If-Match must be one version as this API gave it, for example "3".')
    wait, applied = _preference(asked.text(b"prefer") or "")
    return Wishes(wait, applied, key, int(match[1]) if match else None)


def _preference(prefer: str) -> tuple[float, str | None]:
    seconds: float | None = None
    is_async = False
    for part in prefer.split(","):
        preference = part.strip()
        if preference.lower().partition(";")[0].strip() == "respond-async":
            is_async = True
        elif match := _WAIT.match(preference):
            seconds = min(float(match[1]), LONGEST_WAIT)
    if seconds is not None:
        return seconds, f"wait={seconds:.0f}"
    return (0.0, "respond-async") if is_async else (DEFAULT_WAIT, None)
