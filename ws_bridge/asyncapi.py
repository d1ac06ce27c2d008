"""The unit link written down as AsyncAPI 3, from the models the code uses.

`python -m ws_bridge.asyncapi [--check] FILE` writes it, or says whether it is up to date. Knows how frames answer one
another; their shapes, limits and close codes are `contracts.frames`'.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic.json_schema import models_json_schema

from contracts import frames
from contracts.model import Model
from ws_bridge.frame_examples import EXAMPLES

VERSION: Final = "1.0.0"
CHANNEL: Final = {"$ref": "#/channels/unit"}

Json = dict[str, Any]  # Any: JSON

EXCHANGES: Final[Sequence[tuple[str, str, type[Model], tuple[type[Model], ...], str]]] = (
    ("sayHello", "receive", frames.Hello, (frames.Welcome,), "Begin: the unit, and the position safe on its disk."),
    ("tellFacts", "send", frames.Facts, (frames.Ack,), "The feed, in order; acknowledged when it is on disk."),
    (
        "tellSnapshot",
        "send",
        frames.Snapshot,
        (frames.Ack,),
        "The unit's state instead of the events that led to it, for an agent that was away for very long and asks for "
        "that; in parts, and acknowledged once when all of it is on disk.",
    ),
    ("checkPosition", "send", frames.Check, (), "Now and then on a quiet link: has everything arrived?"),
    (
        "renewCredential",
        "receive",
        frames.Renew,
        (frames.Renewed,),
        "The session goes on beyond the life of the credential it began with.",
    ),
    (
        "submitCommand",
        "receive",
        frames.Submit,
        (frames.Accepted, frames.Refused, frames.Retry),
        "A command made at the unit; answers come in the order of the commands.",
    ),
    ("askOutcomes", "receive", frames.Ask, (frames.Outcomes,), "How commands ended; unknown ones are left out."),
    ("callUnit", "send", frames.Call, (frames.Answer,), "A question to be answered before its deadline or not at all."),
    ("pingBridge", "receive", frames.Ping, (frames.Pong,), "Is the bridge there?"),
    ("pingUnit", "send", frames.Ping, (frames.Pong,), "Is the unit there?"),
    ("sayBye", "send", frames.Bye, (), "Why the link is closed and when to come back; the close follows."),
)
"""Operation, what the bridge does in it, the frame, its answers, and what it is for."""


def document() -> Json:
    """The whole document."""
    words: list[type[Model]] = sorted(
        {*get_args(frames.AnyUp), *get_args(frames.AnyDown)}, key=lambda word: word.__name__
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Carespine unit link",
            "version": VERSION,
            "description": (
                f"WebSocket subprotocol `{frames.SUBPROTOCOL}` between a bridge and the agent of one healthcare unit: "
                "one ordered feed down, commands up, live calls. Frames are JSON text, one object each. This document "
                "takes the bridge's side: it receives what goes up and sends what goes down."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "bridge": {
                "host": "{host}",
                "protocol": "wss",
                "description": "Any bridge of the network; plain ws within one machine.",
                "variables": {"host": {"description": "Host and port, as `carespine status` names them."}},
                "security": [{"$ref": "#/components/securitySchemes/unitToken"}],
            }
        },
        "channels": {
            "unit": {
                "address": "/unit",
                "title": "The link of one unit",
                "messages": {_name(word): {"$ref": f"#/components/messages/{_name(word)}"} for word in words},
                "bindings": {"ws": {"method": "GET", "headers": _HANDSHAKE, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            name: _operation(action, word, answers, summary) for name, action, word, answers, summary in EXCHANGES
        },
        "components": {
            "messages": {_name(word): _message(word) for word in words},
            "schemas": _schemas(words),
            "securitySchemes": {
                "unitToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Role `unit` with the unit's id; looked at before the upgrade, which is refused "
                    "with 401 or 403 and a problem document.",
                }
            },
        },
        "x-limits": {
            "maxFrameBytesUp": frames.MAX_FRAME_BYTES,
            "maxFrameBytesDown": frames.MAX_FRAME_DOWN_BYTES,
            "factsInOneFrame": frames.PAGE,
            "commandIdsInOneAsk": frames.ASK_AT_MOST,
        },
        "x-close-codes": [
            {
                "code": int(closing.code),
                "name": closing.code.name,
                "meaning": closing.meaning,
                "mayReconnect": closing.may_reconnect,
                "remedy": closing.remedy,
            }
            for closing in frames.CLOSINGS.values()
        ],
    }


def schema_of(word: type[Model]) -> str:
    """Where in the document the schema of a frame stands."""
    return f"#/components/schemas/{word.__name__}"


def text() -> str:
    """The document as it stands in docs/."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


_HANDSHAKE: Final[Json] = {
    "type": "object",
    "required": ["Authorization", "Sec-WebSocket-Protocol"],
    "properties": {
        "Authorization": {"type": "string", "description": "Bearer token of the unit."},
        "Sec-WebSocket-Protocol": {"type": "string", "const": frames.SUBPROTOCOL},
    },
}


def _name(word: type[Model]) -> str:
    tag: str = word.model_fields["type"].default
    return tag


def _message(word: type[Model]) -> Json:
    about = " ".join((word.__doc__ or "").split())
    return {
        "name": _name(word),
        "summary": about,
        "payload": {"$ref": schema_of(word)},
        "examples": [{"name": "one", "payload": EXAMPLES[word].to_dict()}],
    }


def _operation(action: str, word: type[Model], answers: Sequence[type[Model]], summary: str) -> Json:
    operation: Json = {"action": action, "channel": CHANNEL, "summary": summary, "messages": [_in_channel(word)]}
    if answers:
        operation["reply"] = {"channel": CHANNEL, "messages": [_in_channel(answer) for answer in answers]}
    return operation


def _in_channel(word: type[Model]) -> Json:
    return {"$ref": f"#/channels/unit/messages/{_name(word)}"}


def _schemas(words: Sequence[type[Model]]) -> Json:
    _, definitions = models_json_schema(
        [(word, "validation") for word in words], by_alias=True, ref_template="#/components/schemas/{model}"
    )
    schemas: Json = definitions["$defs"]
    for word in words:  # a frame without its type is not a frame, though the models fill it in for their makers
        schema = schemas[word.__name__]
        schema["required"] = ["type", *(name for name in schema.get("required", []) if name != "type")]
    return schemas


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, or with --check say whether the file is up to date (exit code 7 if not)."""
    parser = argparse.ArgumentParser(prog="python -m ws_bridge.asyncapi", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    if not given.check:
        given.file.write_text(text(), encoding="utf-8")
        return 0
    if given.file.exists() and given.file.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{given.file} is not what the code says: python -m ws_bridge.asyncapi {given.file}\n")
    return 7


if __name__ == "__main__":
    sys.exit(main())
