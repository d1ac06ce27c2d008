"""What holds of any AsyncAPI document: references lead somewhere, every message belongs to an operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def references(part: object) -> Iterator[str]:
    """Every `$ref` below this part of a document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def leading_nowhere(document: dict[str, Any]) -> set[str]:  # Any: JSON
    """References to what is not in the document."""
    return {reference for reference in references(document) if not _found(document, reference)}


def used_messages(document: dict[str, Any]) -> set[str]:  # Any: JSON
    """Names of the messages that operations speak of."""
    return {name.rpartition("/")[2] for name in references(document["operations"]) if "messages" in name}


def _found(document: dict[str, Any], reference: str) -> object:  # Any: JSON
    found: Any = document  # Any: JSON
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found
