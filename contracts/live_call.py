"""What travels on the broker for a live call: a question to a unit with a deadline, and its answer.

Published mandatory under `routing.call_key(unit_id, name)`; the answer goes to the message's `reply_to`, with the call
id as its correlation id. The link carries both as the frames `call` and `answer`.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from contracts.envelope import Json
from contracts.ids import UnitId
from contracts.model import Instant, Model

CallName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""Stands in a routing key: `waiting-room`, `patient-summary`, `statistics`, `ping`."""


class LiveCall(Model):
    """Ask a unit something now; after the deadline nobody listens."""

    call_id: UUID
    unit_id: UnitId
    name: CallName
    body: Json = Field(default_factory=dict)
    deadline: Instant


class CallOff(Model):
    """Whoever asked has left: no answer is wanted any more."""

    call_id: UUID
    unit_id: UnitId


class LiveAnswer(Model):
    """What the unit said; not `ok` carries a code instead of a body."""

    call_id: UUID
    ok: bool
    body: Json = Field(default_factory=dict)
    code: str | None = Field(None, max_length=80)
