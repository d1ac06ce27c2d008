"""The unit link written down as AsyncAPI 3, from the models the code uses.

`python -m ws_bridge.asyncapi [--check] FILE` writes it, or says whether it is up to date. Knows how frames answer one
another; their shapes, limits and close codes are `contracts.frames`'.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, get_args

from contracts import frames
from ws_bridge import protocol_document
from ws_bridge.frame_examples import EXAMPLES
from ws_bridge.protocol_document import Exchange, Json, Protocol

EXCHANGES: Final = (
    Exchange(
        "sayHello", "receive", frames.Hello, (frames.Welcome,), "Begin: the unit, and the position safe on its disk."
    ),
    Exchange("tellFacts", "send", frames.Facts, (frames.Ack,), "The feed, in order; acknowledged when it is on disk."),
    Exchange(
        "tellSnapshot",
        "send",
        frames.Snapshot,
        (frames.Ack,),
        "The unit's state instead of the events that led to it, for an agent that was away for very long and asks for "
        "that; in parts, and acknowledged once when all of it is on disk.",
    ),
    Exchange("checkPosition", "send", frames.Check, (), "Now and then on a quiet link: has everything arrived?"),
    Exchange(
        "renewCredential",
        "receive",
        frames.Renew,
        (frames.Renewed,),
        "The session goes on beyond the life of the credential it began with.",
    ),
    Exchange(
        "submitCommand",
        "receive",
        frames.Submit,
        (frames.Accepted, frames.Refused, frames.Retry),
        "A command made at the unit; answers come in the order of the commands.",
    ),
    Exchange(
        "askOutcomes", "receive", frames.Ask, (frames.Outcomes,), "How commands ended; unknown ones are left out."
    ),
    Exchange(
        "callUnit",
        "send",
        frames.Call,
        (frames.Answer,),
        "A question to be answered before its deadline or not at all.",
    ),
    Exchange("pingBridge", "receive", frames.Ping, (frames.Pong,), "Is the bridge there?"),
    Exchange("pingUnit", "send", frames.Ping, (frames.Pong,), "Is the unit there?"),
    Exchange("sayBye", "send", frames.Bye, (), "Why the link is closed and when to come back; the close follows."),
)

PROTOCOL: Final = Protocol(
    title="Carespine unit link",
    description=(
        f"WebSocket subprotocol `{frames.SUBPROTOCOL}` between a bridge and the agent of one healthcare unit: "
        "one ordered feed down, commands up, live calls. Frames are JSON text, one object each. This document "
        "takes the bridge's side: it receives what goes up and sends what goes down."
    ),
    channel="unit",
    channel_title="The link of one unit",
    scheme="unitToken",
    scheme_description="Role `unit` with the unit's id; looked at before the upgrade, which is refused "
    "with 401 or 403 and a problem document.",
    handshake={
        "type": "object",
        "required": ["Authorization", "Sec-WebSocket-Protocol"],
        "properties": {
            "Authorization": {"type": "string", "description": "Bearer token of the unit."},
            "Sec-WebSocket-Protocol": {"type": "string", "const": frames.SUBPROTOCOL},
        },
    },
    exchanges=EXCHANGES,
    words={*get_args(frames.AnyUp), *get_args(frames.AnyDown)},
    closings=frames.CLOSINGS.values(),
    examples=EXAMPLES,
    extensions={
        "x-limits": {
            "maxFrameBytesUp": frames.MAX_FRAME_BYTES,
            "maxFrameBytesDown": frames.MAX_FRAME_DOWN_BYTES,
            "factsInOneFrame": frames.PAGE,
            "commandIdsInOneAsk": frames.ASK_AT_MOST,
        },
    },
)


def document() -> Json:
    """The whole document."""
    return protocol_document.document(PROTOCOL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, or with --check say whether the file is up to date (exit code 7 if not)."""
    return protocol_document.write_or_check(PROTOCOL, arguments, program="ws_bridge.asyncapi")


if __name__ == "__main__":
    sys.exit(main())
