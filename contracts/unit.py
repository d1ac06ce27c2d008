"""Unit: a healthcare unit (FHIR Organization, Location, Endpoint) - what may be asked and what can have happened."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints

from contracts.identity import ADMINS, Role
from contracts.ids import Department, UnitId
from contracts.model import Command, Event, Model, Refusal
from contracts.portal_access import PortalsRevoked, RevokePortals
from contracts.unit_credential import CredentialCommands, CredentialEvents
from contracts.unit_presence import PresenceCommands, PresenceEvents

OPERATORS = ADMINS | {Role.OPS}

DEFAULT_MRN_PATTERN = r"MRN-[A-Za-z0-9-]{1,60}"


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("not an IANA time zone, for example Europe/Berlin") from None
    return value


_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_MOST_REPEATS = 4
_MOST_ALTERNATIVES = 8


def _harmless(value: str) -> str:
    """A pattern that no medical record number, however long or odd, can keep busy for more than milliseconds."""
    try:
        re.compile(value)
    except re.error as why:
        raise ValueError(f"not a regular expression: {why}") from None
    plain = _ATOM.sub("x", value)
    if "(?" in plain or re.search(r"\\[1-9]", value):
        raise ValueError("look-around, flags and back references are not allowed in an MRN pattern")
    if re.search(r"\)[*+{]", plain):
        raise ValueError("a group may not be repeated in an MRN pattern")
    if len(re.findall(r"[*+?]|\{\d*,\d*\}", plain)) > _MOST_REPEATS or plain.count("|") > _MOST_ALTERNATIVES:
        raise ValueError(
            f"at most {_MOST_REPEATS} open repeats and {_MOST_ALTERNATIVES} alternatives are allowed in an MRN pattern"
        )
    return value


Zone = Annotated[str, StringConstraints(max_length=50), AfterValidator(_known_zone)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
MrnPattern = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_harmless)]


class UnitAddress(Model):
    """Where a unit is; public, so not sealed."""

    line: str | None = Field(None, max_length=200)
    city: str | None = Field(None, max_length=100)
    state: str | None = Field(None, max_length=100)
    postal_code: str | None = Field(None, max_length=20)
    country: str | None = Field(None, max_length=60)


class UnitSettings(Model):
    """What a unit decides for itself."""

    zone: Zone = "UTC"
    currency: Currency = "EUR"
    mrn_pattern: MrnPattern = DEFAULT_MRN_PATTERN
    ageing_minutes: int = Field(30, ge=1, le=24 * 60)
    """Waiting this long lifts a queue entry by one priority (never above `asap`)."""
    mailbox_limit: int | None = Field(None, ge=1, le=100_000)
    """Open unit commands the unit may have at once; None: 1,000."""


class UnitStatus(StrEnum):
    """Where a registered unit stands."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


class _UnitCommand(Command):
    context: ClassVar[str] = "unit"
    may: ClassVar[frozenset[Role]] = OPERATORS


class RegisterUnit(_UnitCommand):
    """A unit joins the network; the envelope's unit id is its id."""

    name: str = Field(min_length=1, max_length=200)
    kind: str = Field("prov", max_length=40)
    """FHIR organization-type code."""
    source_id: str | None = Field(None, max_length=100)
    """Its id in the system it was imported from."""
    address: UnitAddress | None = None
    settings: UnitSettings = UnitSettings()


class ConfigureUnit(_UnitCommand):
    """Change what a unit decides for itself."""

    settings: UnitSettings


class AddDepartment(_UnitCommand):
    """A department is opened, or named anew. Until a unit has one, it accepts any department code."""

    department: Department
    display: str = Field(min_length=1, max_length=100)


class SuspendUnit(_UnitCommand):
    """Keep what is meant for the unit, deliver nothing."""

    reason: str = Field(min_length=1, max_length=200)


class ResumeUnit(_UnitCommand):
    """End a suspension."""


class RetireUnit(_UnitCommand):
    """The unit leaves the network; nothing more is accepted for it."""

    reason: str = Field(min_length=1, max_length=200)


class _UnitEvent(Event):
    context: ClassVar[str] = "unit"
    unit_id: UnitId


class UnitRegistered(_UnitEvent):
    """A unit joined the network."""

    name: str
    kind: str
    source_id: str | None = None
    address: UnitAddress | None = None
    settings: UnitSettings


class UnitConfigured(_UnitEvent):
    """A unit's own settings changed."""

    settings: UnitSettings


class DepartmentAdded(_UnitEvent):
    """A department was opened, or has another display name."""

    department: Department
    display: str


class UnitSuspended(_UnitEvent):
    """Deliveries to the unit are held."""

    reason: str


class UnitResumed(_UnitEvent):
    """Deliveries to the unit go on."""


class UnitRetired(_UnitEvent):
    """The unit left the network."""

    reason: str


class UnitNotFound(Refusal):
    """No unit with this id has been registered."""


class UnitAlreadyRegistered(Refusal):
    """A unit with this id is registered with other data; use ConfigureUnit to change its settings."""


class UnitIsRetired(Refusal):
    """The unit has left the network and accepts nothing more."""


class DepartmentNotFound(Refusal):
    """The unit has no such department; add it first or use one it has."""


UnitCommands = (
    RegisterUnit
    | ConfigureUnit
    | AddDepartment
    | SuspendUnit
    | ResumeUnit
    | RetireUnit
    | CredentialCommands
    | PresenceCommands
    | RevokePortals
)
UnitEvents = (
    UnitRegistered
    | UnitConfigured
    | DepartmentAdded
    | UnitSuspended
    | UnitResumed
    | UnitRetired
    | CredentialEvents
    | PresenceEvents
    | PortalsRevoked
)
