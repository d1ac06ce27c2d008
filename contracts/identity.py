"""Who asks: roles, the actor written into every envelope, and groups of roles that rules name.

Tokens are `infra.tokens`'; what a role may ask stands on each command (`Command.may`).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Role(StrEnum):
    """The eight roles of a healthcare unit's people, and the callers that are not one person."""

    ADMIN = "admin"
    DOCTOR = "doctor"
    NURSE = "nurse"
    RECEPTIONIST = "receptionist"
    PHARMACIST = "pharmacist"
    LAB_TECHNICIAN = "lab_technician"
    RADIOLOGIST = "radiologist"
    BILLING = "billing"
    STAFF = "staff"
    """A trusted staff system (a portal's backend, a local trial): whatever an admin may."""
    UNIT = "unit"
    """The agent of one healthcare unit."""
    OPS = "ops"
    """An operator of the network: units, dead letters, projections; no patient data."""
    SYSTEM = "system"
    """Carespine itself (processes, timers); never in a token."""


CLINICAL = frozenset({Role.DOCTOR, Role.NURSE})
SERVING = frozenset({Role.PHARMACIST, Role.LAB_TECHNICIAN, Role.RADIOLOGIST, Role.BILLING})
ADMINS = frozenset({Role.ADMIN, Role.STAFF})
PEOPLE = CLINICAL | SERVING | ADMINS | {Role.RECEPTIONIST}
"""Everybody who works at a unit and may look at its patients and queues."""


class Actor(BaseModel):
    """Who asked, as written into envelopes, events and receipts. Never a person's name: an account id."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    subject: str = Field(max_length=100)
    role: Role
    unit: str | None = None
    """The one unit this actor works for; None: the whole network (operators, integration callers)."""


SYSTEM = Actor(subject="carespine", role=Role.SYSTEM)
