"""The portal protocol written down as AsyncAPI 3, from the models the code uses.

`python -m ws_bridge.portals.asyncapi [--check] FILE` writes it, or says whether it is up to date. Knows how frames
answer one another; shapes, topics, roles, close codes are `contracts.portal`'s, actions `ws_bridge.portals.commands`'.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic.json_schema import models_json_schema

from contracts import portal
from contracts.frames import PORTAL_SUBPROTOCOL
from contracts.model import Model
from contracts.portal import EventName, Topic
from infra.portals.following import BUDGET_BYTES
from ws_bridge.portals import session
from ws_bridge.portals.commands import AT_ONCE, PATIENT_ACTIONS, QUEUE_ACTIONS

VERSION: Final = "1.0.0"
CHANNEL: Final = {"$ref": "#/channels/portal"}

Json = dict[str, Any]  # Any: JSON

EXCHANGES: Final[Sequence[tuple[str, str, type[Model], tuple[type[Model], ...], str]]] = (
    ("sayHello", "receive", portal.Hello, (portal.Welcome,), "Begin: the unit, what to follow, from where."),
    ("startOver", "send", portal.Reset, (), "After `welcome`, when what was missed is too much to be told."),
    ("tellEvent", "send", portal.Event, (), "What became visible; in the order of positions, never twice."),
    ("subscribe", "receive", portal.Subscribe, (portal.Subscribed,), "Follow more topics, or other departments."),
    ("unsubscribe", "receive", portal.Unsubscribe, (portal.Subscribed,), "Follow fewer topics."),
    ("renewToken", "receive", portal.Renew, (portal.Renewed, portal.Declined), "Go on with a newer token."),
    (
        "updateQueue",
        "receive",
        portal.QueueUpdate,
        (portal.OutcomeOf, portal.Declined),
        "A command on a queue; how it ended, or that it is not known yet.",
    ),
    (
        "updatePatientStatus",
        "receive",
        portal.PatientStatusUpdate,
        (portal.OutcomeOf, portal.Declined),
        "A command on a visit or a record; how it ended, or that it is not known yet.",
    ),
    ("pingBridge", "receive", portal.Ping, (portal.Pong,), "Is the bridge there?"),
    ("pingPortal", "send", portal.Ping, (portal.Pong,), "Is the portal there? It is cut if it says nothing."),
    ("sayBye", "send", portal.Bye, (), "Why the portal is closed and when to come back; the close follows."),
)
"""Operation, what the bridge does in it, the frame, its answers, and what it is for."""

SHOWS: Final[dict[EventName, tuple[Topic, type[Model] | None]]] = {
    EventName.NOTIFICATION: (Topic.NOTIFICATIONS, portal.Notification),
    EventName.QUEUE_UPDATED: (Topic.QUEUE_BOARD, portal.QueueUpdated),
    EventName.PATIENT_STATUS_CHANGED: (Topic.PATIENT_STATUS, portal.PatientStatusChanged),
    EventName.TEST_RESULT_READY: (Topic.RESULTS, None),
    EventName.CRITICAL_RESULT: (Topic.RESULTS, None),
    EventName.UNIT_CHANGED: (Topic.UNITS, portal.UnitChanged),
}
"""The topic each event belongs to and its data; None: nothing brings it about yet."""


def document() -> Json:
    """The whole document."""
    words: list[type[Model]] = sorted(
        {*get_args(portal.AnyUp), *get_args(portal.AnyDown)}, key=lambda word: word.__name__
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Carespine portals",
            "version": VERSION,
            "description": (
                f"WebSocket subprotocol `{PORTAL_SUBPROTOCOL}` between a bridge and a portal of a unit's staff: what "
                "happens at the unit as it becomes visible, by topic and role, and commands from the portal. Frames "
                "are JSON text, one object each. This document takes the bridge's side: it receives what goes up and "
                "sends what goes down. `GET /api/stream` of the gateway gives the same events as Server-Sent Events."
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
                "security": [{"$ref": "#/components/securitySchemes/staffToken"}],
            }
        },
        "channels": {
            "portal": {
                "address": "/portal",
                "title": "One portal",
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
                "staffToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A staff role, with its unit or for the whole network; looked at before the "
                    "upgrade, which is refused with 401 or 403 and a problem document.",
                }
            },
        },
        "x-topics": {
            topic.value: {
                "roles": sorted(role.value for role in portal.TOPIC_READERS[topic]),
                "events": [event.value for event, (of, _) in SHOWS.items() if of is topic],
            }
            for topic in Topic
        },
        "x-events": {
            event.value: {
                "topic": topic.value,
                "data": None if data is None else {"$ref": f"#/components/schemas/{data.__name__}"},
            }
            for event, (topic, data) in SHOWS.items()
        },
        "x-actions": {
            "queue-update": {action: word.type_name() for action, word in QUEUE_ACTIONS.items()},
            "patient-status-update": {action: word.type_name() for action, word in PATIENT_ACTIONS.items()},
        },
        "x-limits": {
            "maxFrameBytesUp": portal.MAX_FRAME_BYTES,
            "departmentsFollowed": portal.MOST_DEPARTMENTS,
            "framesUpASecond": session.FRAMES_A_SECOND,
            "framesUpAtOnce": session.FRAMES_AT_ONCE,
            "commandsUnderWay": AT_ONCE,
            "bytesWaiting": BUDGET_BYTES,
            "heartbeatSeconds": session.HEARTBEAT_SECONDS,
            "silentSeconds": session.SILENT_SECONDS,
        },
        "x-close-codes": [
            {
                "code": int(closing.code),
                "name": closing.code.name,
                "meaning": closing.meaning,
                "mayReconnect": closing.may_reconnect,
                "remedy": closing.remedy,
            }
            for closing in portal.CLOSINGS.values()
        ],
    }


def text() -> str:
    """The document as it stands in docs/."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


_HANDSHAKE: Final[Json] = {
    "type": "object",
    "required": ["Sec-WebSocket-Protocol"],
    "properties": {
        "Authorization": {"type": "string", "description": "Bearer token, where headers can be set."},
        "Sec-WebSocket-Protocol": {
            "type": "string",
            "description": f"`{PORTAL_SUBPROTOCOL}`; a browser adds `, {portal.TOKEN_OFFER}<token>`.",
        },
    },
}


def _name(word: type[Model]) -> str:
    tag: str = word.model_fields["type"].default
    return tag


def _message(word: type[Model]) -> Json:
    about = " ".join((word.__doc__ or "").split())
    return {"name": _name(word), "summary": about, "payload": {"$ref": f"#/components/schemas/{word.__name__}"}}


def _operation(action: str, word: type[Model], answers: Sequence[type[Model]], summary: str) -> Json:
    operation: Json = {"action": action, "channel": CHANNEL, "summary": summary, "messages": [_in_channel(word)]}
    if answers:
        operation["reply"] = {"channel": CHANNEL, "messages": [_in_channel(answer) for answer in answers]}
    return operation


def _in_channel(word: type[Model]) -> Json:
    return {"$ref": f"#/channels/portal/messages/{_name(word)}"}


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
    parser = argparse.ArgumentParser(prog="python -m ws_bridge.portals.asyncapi", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    if not given.check:
        given.file.write_text(text(), encoding="utf-8")
        return 0
    if given.file.exists() and given.file.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{given.file} is not what the code says: python -m ws_bridge.portals.asyncapi {given.file}\n")
    return 7


if __name__ == "__main__":
    sys.exit(main())
