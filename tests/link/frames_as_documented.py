"""Every frame against the AsyncAPI document: what goes over a line in tests is looked at here."""

from __future__ import annotations

import json
from functools import cache

import jsonschema

from contracts.frames import AnyDown, AnyUp
from ws_bridge.asyncapi import document
from ws_bridge.protocol_document import schema_of


def fits(frame: bytes | str, *, up: bool) -> None:
    """Raise unless the frame is one that the document has for this direction."""
    said = json.loads(frame)
    validator(said["type"], up=up).validate(said)


@cache
def validator(kind: str, *, up: bool) -> jsonschema.protocols.Validator:
    """Of one type of frame."""
    words = (AnyUp if up else AnyDown).__args__
    [word] = [word for word in words if word.model_fields["type"].default == kind]
    return jsonschema.Draft7Validator({**_document(), "$ref": schema_of(word)})


@cache
def _document() -> dict[str, object]:
    return document()
