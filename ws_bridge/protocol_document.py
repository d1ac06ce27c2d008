"""A protocol of frames written down as AsyncAPI 3: what both of a bridge's protocols have in common.

Knows how AsyncAPI says things. What is said, and in which exchanges, is `ws_bridge.asyncapi`'s (units) and
`ws_bridge.portals.asyncapi`'s (portals).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic.json_schema import models_json_schema

from contracts.frames import Closing
from contracts.model import Model

VERSION: Final = "1.0.0"
OUT_OF_DATE: Final = 7

Json = dict[str, Any]  # Any: JSON


class Exchange(NamedTuple):
    """One thing that is said on the link, and what may be answered."""

    name: str
    action: str
    """What the bridge does in it: `send` or `receive`."""
    word: type[Model]
    answers: tuple[type[Model], ...]
    summary: str


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What one of the protocols says of itself."""

    title: str
    description: str
    channel: str
    """Its channel here; the path on the bridge is `/` and this."""
    channel_title: str
    scheme: str
    """What proves who is there: the name of the security scheme."""
    scheme_description: str
    handshake: Json
    """JSON schema of the headers of the upgrade."""
    exchanges: Sequence[Exchange]
    words: Iterable[type[Model]]
    """Every frame, up and down."""
    closings: Iterable[Closing]
    examples: Mapping[type[Model], Model]
    """A frame each, for those that are shown one."""
    extensions: Json
    """What AsyncAPI has no words for, under `x-…`."""


def document(protocol: Protocol) -> Json:
    """The whole document."""
    words = sorted(protocol.words, key=lambda word: word.__name__)
    channel = {"$ref": f"#/channels/{protocol.channel}"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": protocol.title,
            "version": VERSION,
            "description": protocol.description,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "bridge": {
                "host": "{host}",
                "protocol": "wss",
                "description": "Any bridge of the network; plain ws within one machine.",
                "variables": {"host": {"description": "Host and port, as `carespine status` names them."}},
                "security": [{"$ref": f"#/components/securitySchemes/{protocol.scheme}"}],
            }
        },
        "channels": {
            protocol.channel: {
                "address": f"/{protocol.channel}",
                "title": protocol.channel_title,
                "messages": {_name(word): {"$ref": f"#/components/messages/{_name(word)}"} for word in words},
                "bindings": {"ws": {"method": "GET", "headers": protocol.handshake, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {exchange.name: _operation(channel, exchange) for exchange in protocol.exchanges},
        "components": {
            "messages": {_name(word): _message(word, protocol.examples.get(word)) for word in words},
            "schemas": _schemas(words),
            "securitySchemes": {
                protocol.scheme: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": protocol.scheme_description,
                }
            },
        },
        **protocol.extensions,
        "x-close-codes": [
            {
                "code": int(closing.code),
                "name": closing.code.name,
                "meaning": closing.meaning,
                "mayReconnect": closing.may_reconnect,
                "remedy": closing.remedy,
            }
            for closing in protocol.closings
        ],
    }


def schema_of(word: type[Model]) -> str:
    """Where in the document the schema of a frame stands."""
    return f"#/components/schemas/{word.__name__}"


def write_or_check(protocol: Protocol, arguments: Sequence[str] | None, *, program: str) -> int:
    """Write the document, or with --check say whether the file is up to date (exit code 7 if not)."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=write_or_check.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    text = json.dumps(document(protocol), indent=2, ensure_ascii=False) + "\n"
    if not given.check:
        given.file.write_text(text, encoding="utf-8")
        return 0
    if given.file.exists() and given.file.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{given.file} is not what the code says: python -m {program} {given.file}\n")
    return OUT_OF_DATE


def _name(word: type[Model]) -> str:
    tag: str = word.model_fields["type"].default
    return tag


def _message(word: type[Model], example: Model | None) -> Json:
    about = " ".join((word.__doc__ or "").split())
    message: Json = {"name": _name(word), "summary": about, "payload": {"$ref": schema_of(word)}}
    if example is not None:
        message["examples"] = [{"name": "one", "payload": example.to_dict()}]
    return message


def _operation(channel: Json, exchange: Exchange) -> Json:
    def in_channel(word: type[Model]) -> Json:
        return {"$ref": f"{channel['$ref']}/messages/{_name(word)}"}

    operation: Json = {
        "action": exchange.action,
        "channel": channel,
        "summary": exchange.summary,
        "messages": [in_channel(exchange.word)],
    }
    if exchange.answers:
        operation["reply"] = {"channel": channel, "messages": [in_channel(answer) for answer in exchange.answers]}
    return operation


def _schemas(words: Sequence[type[Model]]) -> Json:
    _, definitions = models_json_schema(
        [(word, "validation") for word in words], by_alias=True, ref_template="#/components/schemas/{model}"
    )
    schemas: Json = definitions["$defs"]
    for word in words:  # a frame without its type is not a frame, though the models fill it in for their makers
        schema = schemas[word.__name__]
        schema["required"] = ["type", *(name for name in schema.get("required", []) if name != "type")]
    return schemas
