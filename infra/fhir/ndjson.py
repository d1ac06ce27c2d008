"""NDJSON files line by line: each line is a resource of the expected type, or a reason why it is not.

What a resource means is `infra.fhir.records`'. A reason names a field at most, never what stood in it: that may be
about a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from contracts.envelope import Json

MAX_LINE_BYTES = 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotUsable(Exception):
    """A line cannot be imported. `code` is stable, for programs; `field` says where to look."""

    def __init__(self, code: str, field: str | None = None) -> None:
        super().__init__(f"{code} ({field})" if field else code)
        self.code = code
        self.field = field


@dataclass(frozen=True, slots=True)
class Line:
    """One line that holds something: where it stands, and the resource or what is wrong with it."""

    number: int
    """Counted from 1, as editors do."""
    found: Json | NotUsable


def read(path: Path, resource_type: str) -> Iterator[Line]:
    """The lines of a file, one at a time however large it is, without the empty ones. `OSError` as `open` raises it."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            whole = len(raw) <= MAX_LINE_BYTES
            while not raw.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
                raw, whole = rest, False
            text = raw.removeprefix(BYTE_ORDER_MARK).strip() if number == 1 else raw.strip()
            if not whole:
                yield Line(number, NotUsable("line_too_long"))
            elif text:
                yield Line(number, _resource(text, resource_type))


def _resource(text: bytes, resource_type: str) -> Json | NotUsable:
    try:
        resource = orjson.loads(text)
    except orjson.JSONDecodeError:
        return NotUsable("not_json")
    if not isinstance(resource, dict):
        return NotUsable("not_an_object")
    if resource.get("resourceType") != resource_type:
        return NotUsable("wrong_resource_type", "resourceType")
    return resource
