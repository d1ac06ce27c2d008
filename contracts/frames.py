"""The unit link's protocol `carespine.unit.v1`: frames up and down, close codes, limits. JSON text, one object a frame.

Who sends what when is the two ends' (`ws_bridge.session`, `unit_agent.link`); here are the shapes. docs/protocol tells
the whole of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from contracts.envelope import Fact, Json, Outcome
from contracts.ids import UnitId
from contracts.model import Instant, Model

SUBPROTOCOL: Final = "carespine.unit.v1"
PORTAL_SUBPROTOCOL: Final = "carespine.portal.v1"
MAX_FRAME_BYTES: Final = 256 * 1024
"""Of a frame up; a frame down is cut to it where it can be."""
MAX_FRAME_DOWN_BYTES: Final = 4 * 1024 * 1024
"""An agent takes this much: a single fact may be larger than a frame should be."""
PAGE: Final = 500
"""Facts in one frame at most."""
ASK_AT_MOST: Final = 100
"""Command ids in one `ask`."""
LONGEST_CREDENTIAL: Final = 4096
"""Characters of a token or assertion."""
FARTHEST: Final = 2**63 - 1
"""The last position a log can have (`bigint`)."""


class Hello(Model):
    """First frame up: who, and the feed position that is safely on this agent's disk (0: nothing yet)."""

    type: Literal["hello"] = "hello"
    unit_id: UnitId
    position: int = Field(ge=0, le=FARTHEST)
    agent_version: str = Field(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")
    window: int = Field(2000, ge=1, le=100_000)
    """Facts the agent takes unacknowledged."""
    instance: UUID | None = None
    """Which agent this is, made once with its store: two of them with one identity are told apart."""
    snapshot_beyond: int | None = Field(None, ge=1, le=FARTHEST)
    """Further behind than this many events, the agent takes a snapshot of the unit's state instead; None: never."""


class Ack(Model):
    """Up: everything up to `position` is on disk (cumulative)."""

    type: Literal["ack"] = "ack"
    epoch: int
    position: int = Field(ge=0)


class Submit(Model):
    """Up: a command made at the unit. Answered by `accepted` (after the broker's confirm), `refused` or `retry`."""

    type: Literal["submit"] = "submit"
    epoch: int
    command_id: UUID
    command: str = Field(max_length=100)
    payload: Json
    issued_at: Instant
    subject: str = Field("agent", max_length=100)
    """Account id of whoever acted at the site."""


class Answer(Model):
    """Up: the answer to a live call."""

    type: Literal["answer"] = "answer"
    epoch: int
    call_id: UUID
    ok: bool
    body: Json = Field(default_factory=dict)
    code: str | None = None


class Ask(Model):
    """Up: what became of these commands? Answered by `outcomes`; those without an answer yet are left out."""

    type: Literal["ask"] = "ask"
    epoch: int
    command_ids: list[UUID] = Field(min_length=1, max_length=ASK_AT_MOST)


class Renew(Model):
    """Up: a newer credential for this session, before the old one runs out. Answered by `renewed`, or the close."""

    type: Literal["renew"] = "renew"
    epoch: int
    assertion: str | None = Field(None, max_length=LONGEST_CREDENTIAL)
    """Signed with the unit's own key; the answer brings a token for it."""
    token: str | None = Field(None, max_length=LONGEST_CREDENTIAL)
    """A token that the agent has from elsewhere."""


class Ping(Model):
    """Both ways: are you there."""

    type: Literal["ping"] = "ping"


class Pong(Model):
    """Both ways: yes."""

    type: Literal["pong"] = "pong"


class Welcome(Model):
    """First frame down: the session's epoch, which every further frame up carries."""

    type: Literal["welcome"] = "welcome"
    epoch: int
    head: int
    """Position up to which the centre has something for the unit right now."""
    heartbeat_seconds: float
    max_frame_bytes: int
    server_time: Instant
    credential_expires_at: Instant | None = None
    """When the credential of this session runs out: renew it before, or the link is closed then."""


class Facts(Model):
    """Down: everything of the unit's feed in (after, through], in order; `facts` may be empty."""

    type: Literal["facts"] = "facts"
    epoch: int
    after: int
    through: int
    facts: list[Fact]


class SnapshotRecord(Model):
    """One thing of a snapshot as the centre knows it: what kind, and its fields."""

    kind: str = Field(max_length=40)
    body: Json


class Snapshot(Model):
    """Down: a part of the unit's state as of `position`, instead of the events up to there; in order, `last` ends it.

    Records replace what the agent knew; `facts` are the unit commands that are still to be executed. Facts go on after
    `position` once the last part is sent; it is acknowledged like facts, when all of it is on disk.
    """

    type: Literal["snapshot"] = "snapshot"
    epoch: int
    position: int
    part: int = Field(ge=0)
    last: bool
    records: list[SnapshotRecord] = Field(default_factory=list)
    facts: list[Fact] = Field(default_factory=list)


class Check(Model):
    """Down: the unit was told everything through `position`. Whoever is not there has a gap and reconnects."""

    type: Literal["check"] = "check"
    epoch: int
    position: int


class Renewed(Model):
    """Down: the session goes on until `expires_at`; `token` is for the next connection."""

    type: Literal["renewed"] = "renewed"
    epoch: int
    expires_at: Instant
    token: str | None = None


class Accepted(Model):
    """Down: the submitted command is safe with the broker."""

    type: Literal["accepted"] = "accepted"
    epoch: int
    command_id: UUID


class Refused(Model):
    """Down: the submitted command cannot be taken as it is; sending it again will not help."""

    type: Literal["refused"] = "refused"
    epoch: int
    command_id: UUID
    code: str
    detail: str


class Retry(Model):
    """Down: the centre cannot take the submitted command now; keep it and send it again after this many seconds."""

    type: Literal["retry"] = "retry"
    epoch: int
    command_id: UUID
    after_seconds: float


class Outcomes(Model):
    """Down: how commands of this unit ended."""

    type: Literal["outcomes"] = "outcomes"
    epoch: int
    outcomes: list[Outcome]


class Call(Model):
    """Down: a live call; answer before the deadline or not at all."""

    type: Literal["call"] = "call"
    epoch: int
    call_id: UUID
    name: str
    body: Json = Field(default_factory=dict)
    deadline: Instant


class Bye(Model):
    """Down, before the close: why, and when to come back."""

    type: Literal["bye"] = "bye"
    code: int
    reason: str
    retry_after_seconds: float | None = None


AnyUp = Hello | Ack | Submit | Answer | Ask | Renew | Ping | Pong
AnyDown = (
    Welcome | Facts | Snapshot | Check | Renewed | Accepted | Refused | Retry | Outcomes | Call | Bye | Ping | Pong
)
FrameUp = Annotated[AnyUp, Field(discriminator="type")]
FrameDown = Annotated[AnyDown, Field(discriminator="type")]

UP: Final[TypeAdapter[AnyUp]] = TypeAdapter(FrameUp)
DOWN: Final[TypeAdapter[AnyDown]] = TypeAdapter(FrameDown)


class CloseCode(IntEnum):
    """Why a link is closed (RFC 6455 private range)."""

    GOING_AWAY = 1001
    NOT_THE_PROTOCOL = 4400
    TOKEN_NOT_VALID = 4401
    CREDENTIAL_REVOKED = 4402
    NOT_ALLOWED = 4403
    UNIT_NOT_FOUND = 4404
    HELLO_TIMEOUT = 4408
    SUPERSEDED = 4409
    CONTESTED = 4410
    FRAME_TOO_LARGE = 4413
    POSITION_AHEAD = 4416
    UNIT_SUSPENDED = 4423
    TOO_SLOW = 4428
    TRY_LATER = 4429
    TROUBLE = 4500


@dataclass(frozen=True)
class Closing:
    """What a close code means for whoever is told it."""

    code: CloseCode
    meaning: str
    may_reconnect: bool
    remedy: str


CLOSINGS: Final[dict[CloseCode, Closing]] = {
    closing.code: closing
    for closing in (
        Closing(CloseCode.GOING_AWAY, "the bridge is leaving", True, "reconnect after the time in `bye`"),
        Closing(CloseCode.NOT_THE_PROTOCOL, "a frame was not the protocol's", True, "update the agent; it backs off"),
        Closing(CloseCode.TOKEN_NOT_VALID, "the token is missing, expired or not ours", True, "renew the credential"),
        Closing(
            CloseCode.CREDENTIAL_REVOKED,
            "the unit's credential was revoked",
            False,
            "ask the network for an enrolment code and enrol again",
        ),
        Closing(CloseCode.NOT_ALLOWED, "the token is not for this unit", False, "use the unit's own credential"),
        Closing(CloseCode.UNIT_NOT_FOUND, "no such unit is registered", False, "register the unit first"),
        Closing(CloseCode.HELLO_TIMEOUT, "no hello came in time", True, "say hello first"),
        Closing(CloseCode.SUPERSEDED, "a newer session of this unit took over", True, "run one agent per unit"),
        Closing(
            CloseCode.CONTESTED,
            "two agents with this identity keep taking the link from one another; the longer-lived one keeps it",
            True,
            "stop one of them: each unit has one agent",
        ),
        Closing(CloseCode.FRAME_TOO_LARGE, "a frame was larger than allowed", True, "send smaller frames"),
        Closing(
            CloseCode.POSITION_AHEAD,
            "the agent's position lies beyond the log: its store belongs to another installation",
            False,
            "set the agent's store aside and let it start from an empty one",
        ),
        Closing(CloseCode.UNIT_SUSPENDED, "the unit is suspended", True, "an operator resumes it; retry later"),
        Closing(CloseCode.TOO_SLOW, "the agent does not read or acknowledge", True, "reconnect and resume"),
        Closing(
            CloseCode.TRY_LATER, "too many connections or frames at once", True, "reconnect after the time in `bye`"
        ),
        Closing(
            CloseCode.TROUBLE, "the bridge lost its broker or database", True, "reconnect, another bridge may serve"
        ),
    )
}


def closing(code: int) -> Closing | None:
    """What a close code means; None when it is not one of ours (the network or a proxy closed)."""
    return CLOSINGS.get(CloseCode(code)) if code in CloseCode._value2member_map_ else None
