"""The portal protocol `carespine.portal.v1`: topics and who may read them, frames, what events tell, close codes.

The same events go over the socket (`/portal` of a bridge) and as Server-Sent Events (`GET /api/stream`). Identity is
never pushed: events carry ids, codes, tickets and times; who a patient is stands where it is asked for, over HTTP.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import date
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from contracts.envelope import Json
from contracts.frames import FARTHEST, LONGEST_CREDENTIAL, CloseCode, Closing
from contracts.identity import ADMINS, CLINICAL, PEOPLE, Role
from contracts.ids import Department, UnitId
from contracts.model import Instant, Model

MAX_FRAME_BYTES: Final = 64 * 1024
"""Of a frame up."""
MOST_DEPARTMENTS: Final = 50
TOKEN_OFFER: Final = "bearer."  # noqa: S105 - what stands before it
"""A browser cannot set headers, so it offers its token as a second subprotocol: `bearer.<token>`."""


class Topic(StrEnum):
    """What a portal can follow."""

    QUEUE_BOARD = "queue-board"
    PATIENT_STATUS = "patient-status"
    RESULTS = "results"
    NOTIFICATIONS = "notifications"
    UNITS = "units"


READERS: Final = PEOPLE | {Role.OPS}
"""Who may open a portal. A unit's agent has its own link."""
TOPIC_READERS: Final[dict[Topic, Set[Role]]] = {
    Topic.QUEUE_BOARD: PEOPLE,
    Topic.PATIENT_STATUS: PEOPLE,
    Topic.RESULTS: ADMINS | CLINICAL | {Role.LAB_TECHNICIAN, Role.RADIOLOGIST},
    Topic.NOTIFICATIONS: PEOPLE - {Role.RECEPTIONIST, Role.BILLING},
    Topic.UNITS: PEOPLE | {Role.OPS},
}
"""Who may follow what: never more than the role may read over HTTP. Whoever treats or serves is notified."""


def granted(role: Role, wanted: Set[Topic]) -> frozenset[Topic]:
    """The topics of these that the role may follow."""
    return frozenset(topic for topic in wanted if role in TOPIC_READERS[topic])


class EventName(StrEnum):
    """What a portal can be told."""

    NOTIFICATION = "notification"
    QUEUE_UPDATED = "queue-updated"
    PATIENT_STATUS_CHANGED = "patient-status-changed"
    TEST_RESULT_READY = "test-result-ready"
    CRITICAL_RESULT = "critical-result"
    UNIT_CHANGED = "unit-changed"


class BoardEntry(Model):
    """A place in a queue as the board shows it, whole: the newest one of an entry replaces those before."""

    id: UUID
    patient_id: UUID
    encounter_id: UUID
    ticket: int
    priority: str
    status: str
    """waiting, called, in-service, no-show, done, left or transferred."""
    counter: str | None = None
    calls: int = 0
    arrived_at: Instant
    called_at: Instant | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    transferred_from: UUID | None = None
    transferred_to: UUID | None = None


class QueueUpdated(Model):
    """A queue has changed: the entry that did, and how many stand where."""

    department: Department
    service_day: date
    change: str
    """What happened, for example `PatientCalled`."""
    entry: BoardEntry
    counts: dict[str, int]
    """Entries of this queue by status, zeros included."""


class Visit(Model):
    """Where a visit stands, whole."""

    encounter_id: UUID
    department: Department
    queue_entry_id: UUID
    priority: str
    encounter_class: str
    status: str
    """arrived, triaged, in-progress, finished or cancelled."""
    acuity: int | None = None
    room: str | None = None
    practitioner_id: str | None = None
    arrived_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None


class PatientStatusChanged(Model):
    """A patient's visit or record has changed: one of `visit` and `recordStatus` is there."""

    patient_id: UUID
    change: str
    visit: Visit | None = None
    record_status: str | None = None
    """active, inactive or deceased."""


class Notification(Model):
    """Somebody is to know that a patient waits."""

    department: Department
    encounter_id: UUID
    patient_id: UUID
    queue_entry_id: UUID
    priority: str
    practitioner_id: str | None = None
    """Account id of the one it is meant for; None: whoever is on duty in the department."""


class UnitChanged(Model):
    """A unit's standing has changed; whole."""

    status: str
    """active, suspended or retired."""
    reachable: bool
    """Its agent has a link, or was away for less than the threshold."""
    change: str


class Event(Model):
    """Down: something became visible. `position` is the unit's, and the one to resume from."""

    type: Literal["event"] = "event"
    event: EventName
    topic: Topic
    position: int
    unit_id: UnitId
    at: Instant
    """When it was recorded."""
    data: QueueUpdated | PatientStatusChanged | Notification | UnitChanged


class Hello(Model):
    """First frame up: which unit (left out: the token's), what to follow, and from where."""

    type: Literal["hello"] = "hello"
    unit_id: UnitId | None = None
    topics: frozenset[Topic] = Field(min_length=1)
    departments: frozenset[Department] | None = Field(None, max_length=MOST_DEPARTMENTS)
    """Only these departments' queues, visits and notifications; None: all."""
    position: int | None = Field(None, ge=0, le=FARTHEST)
    """The last position seen: what came after it is sent first. None: from now on."""


class Subscribe(Model):
    """Up: follow these topics too, from now on. Answered by `subscribed`."""

    type: Literal["subscribe"] = "subscribe"
    topics: frozenset[Topic]
    departments: frozenset[Department] | None = Field(None, max_length=MOST_DEPARTMENTS)
    """As in hello; it replaces what was said before."""


class Unsubscribe(Model):
    """Up: no longer follow these topics. Answered by `subscribed`."""

    type: Literal["unsubscribe"] = "unsubscribe"
    topics: frozenset[Topic]


class Renew(Model):
    """Up: a newer token of the same account. Answered by `renewed` or `declined`."""

    type: Literal["renew"] = "renew"
    token: str = Field(max_length=LONGEST_CREDENTIAL)


class _Update(Model):
    request_id: str = Field(min_length=1, max_length=80)
    """The answer carries it."""
    action: str = Field(max_length=40)
    """As the last part of the HTTP path, for example `call-next`."""
    payload: Json
    """The command's own fields."""
    idempotency_key: str | None = Field(None, pattern=r"^[\x21-\x7e]{1,200}$")
    """As over HTTP: the same key, the same command, the first answer again."""


class PatientStatusUpdate(_Update):
    """Up: change where a patient's visit or record stands. Answered by `outcome` or `declined`."""

    type: Literal["patient-status-update"] = "patient-status-update"


class QueueUpdate(_Update):
    """Up: call, serve, move somebody in a queue. Answered by `outcome` or `declined`."""

    type: Literal["queue-update"] = "queue-update"


class Ping(Model):
    """Both ways: are you there? From the bridge with how far the portal has been told."""

    type: Literal["ping"] = "ping"
    position: int | None = None
    server_time: Instant | None = None


class Pong(Model):
    """Both ways: yes."""

    type: Literal["pong"] = "pong"


class Welcome(Model):
    """First frame down: what is followed, from where, and until when."""

    type: Literal["welcome"] = "welcome"
    unit_id: UnitId
    partition: int
    position: int
    """Where the portal stands: what it said in hello if something was missed, else now. `<partition>:<position>` is a
    `Carespine-Position` for reading over HTTP.
    """
    topics: list[Topic]
    denied: list[Topic]
    """Asked for, and not for this role."""
    subject: str
    role: Role
    expires_at: Instant
    """When the token runs out: renew it before, or the portal is closed then."""
    heartbeat_seconds: float
    server_time: Instant


class Reset(Model):
    """Down: too much was missed to be told one by one. Read over HTTP what is shown, then go on from `position`."""

    type: Literal["reset"] = "reset"
    position: int
    reason: Literal["too_far_back", "unknown_position"]


class Subscribed(Model):
    """Down: what is followed from `position` on."""

    type: Literal["subscribed"] = "subscribed"
    topics: list[Topic]
    denied: list[Topic]
    departments: list[Department] | None = None
    position: int


class Renewed(Model):
    """Down: the portal goes on until `expiresAt`, with what the (perhaps other) role may follow."""

    type: Literal["renewed"] = "renewed"
    expires_at: Instant
    role: Role
    topics: list[Topic]


class OutcomeOf(Model):
    """Down: how a command ended, or `pending` while that is not known; then one more follows, or ask over HTTP."""

    type: Literal["outcome"] = "outcome"
    request_id: str
    command_id: UUID
    status: str
    """accepted, unchanged, refused, failed or pending."""
    code: str | None = None
    detail: str | None = None
    about: dict[str, str] | None = None
    result: Json | None = None
    position: int | None = None
    """Of what was written: the events about it carry positions up to this."""


class Declined(Model):
    """Down: a request was not taken, nothing came of it."""

    type: Literal["declined"] = "declined"
    request_id: str | None = None
    code: str
    detail: str
    retry_after_seconds: float | None = None


class Bye(Model):
    """Down, before the close: why, and when to come back."""

    type: Literal["bye"] = "bye"
    code: int
    reason: str
    may_reconnect: bool
    retry_after_seconds: float | None = None


AnyUp = Hello | Subscribe | Unsubscribe | Renew | PatientStatusUpdate | QueueUpdate | Ping | Pong
AnyDown = Welcome | Event | Reset | Subscribed | Renewed | OutcomeOf | Declined | Bye | Ping | Pong
FrameUp = Annotated[AnyUp, Field(discriminator="type")]
FrameDown = Annotated[AnyDown, Field(discriminator="type")]

UP: Final[TypeAdapter[AnyUp]] = TypeAdapter(FrameUp)
DOWN: Final[TypeAdapter[AnyDown]] = TypeAdapter(FrameDown)

CLOSINGS: Final[dict[CloseCode, Closing]] = {
    closing.code: closing
    for closing in (
        Closing(CloseCode.GOING_AWAY, "the process is leaving", True, "reconnect after the time in `bye`"),
        Closing(CloseCode.NOT_THE_PROTOCOL, "a frame was not the protocol's", False, "update the portal"),
        Closing(CloseCode.TOKEN_NOT_VALID, "the token has expired", True, "get a new token, then reconnect"),
        Closing(CloseCode.CREDENTIAL_REVOKED, "the role's portals were revoked", False, "sign in again"),
        Closing(CloseCode.NOT_ALLOWED, "not for this role, account or unit", False, "ask for what is yours"),
        Closing(CloseCode.UNIT_NOT_FOUND, "no such unit is registered, or it was retired", False, "name another unit"),
        Closing(CloseCode.HELLO_TIMEOUT, "no hello came, or no sign of life", True, "say hello first, answer pings"),
        Closing(CloseCode.FRAME_TOO_LARGE, "a frame was larger than allowed", True, "send smaller frames"),
        Closing(CloseCode.TOO_SLOW, "the portal does not read what it is sent", True, "reconnect and resume"),
        Closing(CloseCode.TRY_LATER, "too many frames or portals at once", True, "reconnect after the time in `bye`"),
        Closing(CloseCode.TROUBLE, "the database or broker is away", True, "reconnect after the time in `bye`"),
    )
}
