"""The portal protocol written down as AsyncAPI 3, from the models the code uses.

`python -m ws_bridge.portals.asyncapi [--check] FILE` writes it, or says whether it is up to date. Knows how frames
answer one another; shapes, topics, roles, close codes are `contracts.portal`'s, actions `ws_bridge.portals.commands`'.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, get_args

from contracts import portal
from contracts.frames import PORTAL_SUBPROTOCOL
from contracts.model import Model
from contracts.portal import EventName, Topic
from infra.portals.following import BUDGET_BYTES
from ws_bridge import protocol_document
from ws_bridge.portals import session
from ws_bridge.portals.commands import AT_ONCE, PATIENT_ACTIONS, QUEUE_ACTIONS
from ws_bridge.protocol_document import Exchange, Json, Protocol, schema_of

EXCHANGES: Final = (
    Exchange("sayHello", "receive", portal.Hello, (portal.Welcome,), "Begin: the unit, what to follow, from where."),
    Exchange("startOver", "send", portal.Reset, (), "After `welcome`, when what was missed is too much to be told."),
    Exchange("tellEvent", "send", portal.Event, (), "What became visible; in the order of positions, never twice."),
    Exchange(
        "subscribe", "receive", portal.Subscribe, (portal.Subscribed,), "Follow more topics, or other departments."
    ),
    Exchange("unsubscribe", "receive", portal.Unsubscribe, (portal.Subscribed,), "Follow fewer topics."),
    Exchange("renewToken", "receive", portal.Renew, (portal.Renewed, portal.Declined), "Go on with a newer token."),
    Exchange(
        "updateQueue",
        "receive",
        portal.QueueUpdate,
        (portal.OutcomeOf, portal.Declined),
        "A command on a queue; how it ended, or that it is not known yet.",
    ),
    Exchange(
        "updatePatientStatus",
        "receive",
        portal.PatientStatusUpdate,
        (portal.OutcomeOf, portal.Declined),
        "A command on a visit or a record; how it ended, or that it is not known yet.",
    ),
    Exchange("pingBridge", "receive", portal.Ping, (portal.Pong,), "Is the bridge there?"),
    Exchange("pingPortal", "send", portal.Ping, (portal.Pong,), "Is the portal there? It is cut if it says nothing."),
    Exchange("sayBye", "send", portal.Bye, (), "Why the portal is closed and when to come back; the close follows."),
)

SHOWS: Final[dict[EventName, tuple[Topic, type[Model] | None]]] = {
    EventName.NOTIFICATION: (Topic.NOTIFICATIONS, portal.Notification),
    EventName.QUEUE_UPDATED: (Topic.QUEUE_BOARD, portal.QueueUpdated),
    EventName.PATIENT_STATUS_CHANGED: (Topic.PATIENT_STATUS, portal.PatientStatusChanged),
    EventName.TEST_RESULT_READY: (Topic.RESULTS, None),
    EventName.CRITICAL_RESULT: (Topic.RESULTS, None),
    EventName.UNIT_CHANGED: (Topic.UNITS, portal.UnitChanged),
}
"""The topic each event belongs to and its data; None: nothing brings it about yet."""

PROTOCOL: Final = Protocol(
    title="Carespine portals",
    description=(
        f"WebSocket subprotocol `{PORTAL_SUBPROTOCOL}` between a bridge and a portal of a unit's staff: what "
        "happens at the unit as it becomes visible, by topic and role, and commands from the portal. Frames "
        "are JSON text, one object each. This document takes the bridge's side: it receives what goes up and "
        "sends what goes down. `GET /api/stream` of the gateway gives the same events as Server-Sent Events."
    ),
    channel="portal",
    channel_title="One portal",
    scheme="staffToken",
    scheme_description="A staff role, with its unit or for the whole network; looked at before the "
    "upgrade, which is refused with 401 or 403 and a problem document.",
    handshake={
        "type": "object",
        "required": ["Sec-WebSocket-Protocol"],
        "properties": {
            "Authorization": {"type": "string", "description": "Bearer token, where headers can be set."},
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "description": f"`{PORTAL_SUBPROTOCOL}`; a browser adds `, {portal.TOKEN_OFFER}<token>`.",
            },
        },
    },
    exchanges=EXCHANGES,
    words={*get_args(portal.AnyUp), *get_args(portal.AnyDown)},
    closings=portal.CLOSINGS.values(),
    examples={},
    extensions={
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
                "data": None if data is None else {"$ref": schema_of(data)},
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
    },
)


def document() -> Json:
    """The whole document."""
    return protocol_document.document(PROTOCOL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, or with --check say whether the file is up to date (exit code 7 if not)."""
    return protocol_document.write_or_check(PROTOCOL, arguments, program="ws_bridge.portals.asyncapi")


if __name__ == "__main__":
    sys.exit(main())
