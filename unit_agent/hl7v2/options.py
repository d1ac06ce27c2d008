"""What a site configures of its HL7 v2 interfaces: `[hl7.listen]` and `[hl7.send]` of the configuration file."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from contracts.ids import Department
from contracts.unit_command import UnitCommandType
from unit_agent.hl7v2.person import Numbering

Trigger = Annotated[str, StringConstraints(pattern=r"^A\d\d$")]
Name = Annotated[str, StringConstraints(max_length=60, pattern=r"^[^|^~\\&\x00-\x1f]*$")]

FACTS: Final[dict[str, Trigger]] = {
    "patient.PatientRegistered": "A28",
    "patient.DemographicsUpdated": "A31",
    "patient.MrnAssigned": "A31",
    "patient.PatientDied": "A31",
    "encounter.PatientArrived": "A04",
    "encounter.PatientDischarged": "A03",
    "encounter.VisitCancelled": "A11",
    "encounter.MovedToDepartment": "A02",
}
"""Facts that can be sent, and as what. An inpatient's arrival is A01 unless the configuration says otherwise."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Tls(_Options):
    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None
    """Certificates of whom to trust: the senders' (mutual TLS) when listening, the receiver's when sending."""


class Listen(_Tls):
    """Taking ADT messages of the site's own system."""

    host: str = "127.0.0.1"
    port: int = Field(2575, ge=0, le=65535)
    """0: any free one."""
    authority: str = ""
    """PID-3.4 of the medical record number; empty: whichever has the type MR, else the first."""
    department: Department | None = None
    """Where a visit goes whose PV1-3.1 is empty; None: such a message is refused."""
    departments: dict[str, Department] = Field(default_factory=dict)
    """PV1-3.1 -> department; what is not listed is read as a department's code itself."""
    charset: Literal["utf-8", "ascii", "iso8859-1"] = "utf-8"
    """Of messages without MSH-18."""
    processing: frozenset[str] = frozenset({"P"})
    """MSH-11 that are taken; add T for tests."""
    allow: tuple[str, ...] = ()
    """Networks that may connect, like `10.1.0.0/16`; empty: whoever reaches the port."""
    largest_bytes: int = Field(1024 * 1024, ge=1024)
    connections: int = Field(16, ge=1)
    idle_seconds: float = Field(3600, gt=0)
    """A connection without a message for so long is closed."""
    keep_days: float = Field(30, gt=0)
    """How long a message is kept, and how long its repetition is recognised."""

    @field_validator("allow")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for network in given:
            ipaddress.ip_network(network)
        return given

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self

    def may_connect(self, address: str) -> bool:
        """Whether this address is of a network that may."""
        if not self.allow:
            return True
        one = ipaddress.ip_address(address.partition("%")[0])
        return any(one in ipaddress.ip_network(network) for network in self.allow)

    @property
    def numbering(self) -> Numbering:
        """How the site numbers patients."""
        return Numbering(self.authority)


class Send(_Tls):
    """Telling the site's own system by ADT messages."""

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    tls: bool = False
    authority: str = ""
    """PID-3.4 of the medical record number."""
    application: Name = "CARESPINE"
    facility: Name = ""
    """MSH-4; empty: the unit's id."""
    to_application: Name = ""
    to_facility: Name = ""
    version: Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"] = "2.5"
    facts: dict[str, Trigger] = Field(default_factory=lambda: dict(FACTS))
    """Facts of the feed that are sent, and as which event; empty: none."""
    commands: dict[UnitCommandType, Trigger] = Field(default_factory=dict)
    """Types of unit commands that this interface executes, and as which event."""
    resend_is_safe: bool = False
    """The receiver knows a message again by MSH-10: one whose answer was lost is then sent again."""
    timeout_seconds: float = Field(30, gt=0)
    attempts: int = Field(5, ge=1)
    """How often a message answered AE is sent before it is set aside; AR sets it aside at once."""

    @field_validator("facts")
    @classmethod
    def _sendable(cls, given: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(given) - set(FACTS)):
            raise ValueError(f"cannot be sent: {', '.join(unknown)}; can be: {', '.join(FACTS)}")
        return given

    @property
    def numbering(self) -> Numbering:
        """How the receiver numbers patients."""
        return Numbering(self.authority)
