"""Patient: a person's record at one unit (FHIR Patient) - what may be asked of it and what can have happened.

Everything that identifies the person is sealed; ids, codes and times stay clear.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field, StringConstraints

from contracts.identity import ADMINS, Role
from contracts.ids import PatientId
from contracts.model import Command, Day, Event, Instant, Model, Offline, Refusal, Sealed

REGISTRARS = ADMINS | {Role.RECEPTIONIST, Role.UNIT}

PersonName = Annotated[
    str, StringConstraints(min_length=1, max_length=50, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Mrn = Annotated[
    str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]+$")
]
PlaceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_ -]{0,39}$")]
"""A kind of thing that was purged: words of ours, never of the person's."""
RoomNumber = Annotated[str, StringConstraints(min_length=1, max_length=10, strip_whitespace=True)]


class ErasureBasis(StrEnum):
    """Why a person's data are erased."""

    PERSON_ASKED = "person-asked"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    RETENTION_OVER = "retention-over"
    COURT_ORDER = "court-order"
    ENTERED_IN_ERROR = "entered-in-error"


class Gender(StrEnum):
    """FHIR administrative-gender."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"
    UNKNOWN = "unknown"


class Contact(Model):
    """How to reach the person; sealed as a whole where it is used."""

    phone: str | None = Field(None, max_length=40)
    email: str | None = Field(None, max_length=200)
    line: str | None = Field(None, max_length=200)
    city: str | None = Field(None, max_length=100)
    state: str | None = Field(None, max_length=100)
    postal_code: str | None = Field(None, max_length=20)
    country: str | None = Field(None, max_length=60)


class _PatientCommand(Command):
    context: ClassVar[str] = "patient"
    may: ClassVar[frozenset[Role]] = REGISTRARS
    patient_id: PatientId


class RegisterPatient(_PatientCommand):
    """A person's record is opened at the unit."""

    offline: ClassVar[Offline] = Offline.LOCAL
    medical_record_number: Sealed[Mrn]
    first_name: Sealed[PersonName]
    last_name: Sealed[PersonName]
    date_of_birth: Sealed[Day]
    gender: Gender = Gender.UNKNOWN
    contact: Sealed[Contact | None] = None
    room_number: Sealed[RoomNumber | None] = None
    source_id: str | None = Field(None, max_length=100)
    """Id of the record in the system it was imported from (a UUID there, not an identifier of the person)."""
    deceased_at: Instant | None = None


class UpdateDemographics(_PatientCommand):
    """Correct or complete who the person is; a new MRN may come with it (reserved like a first one).

    Offline: waits, for the record as the centre has it is what is corrected, and that may have moved on.
    """

    offline: ClassVar[Offline] = Offline.LATER
    first_name: Sealed[PersonName]
    last_name: Sealed[PersonName]
    date_of_birth: Sealed[Day]
    gender: Gender = Gender.UNKNOWN
    contact: Sealed[Contact | None] = None
    room_number: Sealed[RoomNumber | None] = None
    medical_record_number: Sealed[Mrn | None] = None
    """None: keep the number."""


class AssignMrn(_PatientCommand):
    """Give the record another medical record number.

    Offline: never; only the centre knows which numbers are free, and a wristband must not carry one that is not.
    """

    offline: ClassVar[Offline] = Offline.NEVER
    medical_record_number: Sealed[Mrn]


class DeactivatePatient(_PatientCommand):
    """The record is no longer in use; nothing is deleted."""

    may: ClassVar[frozenset[Role]] = ADMINS
    reason: Sealed[str | None] = Field(None, max_length=500)


class ReactivatePatient(_PatientCommand):
    """The record is in use again; a death noted by mistake is taken back."""

    may: ClassVar[frozenset[Role]] = ADMINS


class MarkDeceased(_PatientCommand):
    """The person has died."""

    may: ClassVar[frozenset[Role]] = ADMINS | {Role.DOCTOR}
    deceased_at: Instant


class PlaceLegalHold(_PatientCommand):
    """What is known of the person must be kept until the hold is lifted, whoever asks for erasure."""

    may: ClassVar[frozenset[Role]] = ADMINS
    hold_id: UUID
    reason: Sealed[str | None] = Field(None, max_length=500)


class LiftLegalHold(_PatientCommand):
    """The hold's matter is over; others stay."""

    may: ClassVar[frozenset[Role]] = ADMINS
    hold_id: UUID


class RequestErasure(_PatientCommand):
    """Make everything that identifies the person unreadable for ever, everywhere; nothing brings it back.

    Refused: `under_legal_hold`. The facts stay, without words; the medical record number is free again.
    """

    may: ClassVar[frozenset[Role]] = ADMINS
    basis: ErasureBasis


class ReportErasure(_PatientCommand):
    """What a unit's agent has purged of a person who was erased, by kind of thing.

    Offline: waits with what else waits for the link, for it is made in the transaction that purges.
    """

    may: ClassVar[frozenset[Role]] = frozenset({Role.UNIT})
    offline: ClassVar[Offline] = Offline.LATER
    counts: dict[PlaceName, int] = Field(max_length=30)


class _PatientEvent(Event):
    context: ClassVar[str] = "patient"
    patient_id: PatientId

    def subject(self) -> str | None:
        return str(self.patient_id)


class PatientRegistered(_PatientEvent):
    """A record was opened."""

    medical_record_number: Sealed[Mrn | None] = None
    first_name: Sealed[PersonName | None] = None
    last_name: Sealed[PersonName | None] = None
    date_of_birth: Sealed[date | None] = None
    gender: Gender = Gender.UNKNOWN
    contact: Sealed[Contact | None] = None
    room_number: Sealed[RoomNumber | None] = None
    source_id: str | None = None


class DemographicsUpdated(_PatientEvent):
    """Who the person is was corrected or completed; the whole of it stands here."""

    first_name: Sealed[PersonName | None] = None
    last_name: Sealed[PersonName | None] = None
    date_of_birth: Sealed[date | None] = None
    gender: Gender = Gender.UNKNOWN
    contact: Sealed[Contact | None] = None
    room_number: Sealed[RoomNumber | None] = None


class MrnAssigned(_PatientEvent):
    """The record has another medical record number; the old one is free again."""

    medical_record_number: Sealed[Mrn | None] = None


class PatientDeactivated(_PatientEvent):
    """The record is no longer in use."""

    reason: Sealed[str | None] = None


class PatientReactivated(_PatientEvent):
    """The record is in use again."""


class PatientDied(_PatientEvent):
    """The person has died."""

    deceased_at: Instant


class LegalHoldPlaced(_PatientEvent):
    """The person's data must be kept."""

    hold_id: UUID
    reason: Sealed[str | None] = None


class LegalHoldLifted(_PatientEvent):
    """A hold is over."""

    hold_id: UUID


class PatientErased(_PatientEvent):
    """The person's key was destroyed with this fact: whoever holds something of theirs lets go of it."""

    basis: ErasureBasis


class ErasureReported(_PatientEvent):
    """What was purged at the unit."""

    counts: dict[PlaceName, int]


class PatientNotFound(Refusal):
    """The unit has no patient with this id."""


class PatientAlreadyRegistered(Refusal):
    """A patient with this id is registered with other data."""


class RecordErased(Refusal):
    """What identified this patient has been erased; the record accepts nothing more."""

    @classmethod
    def code(cls) -> str:
        return "patient_erased"


class UnderLegalHold(Refusal):
    """This patient's data must be kept: a legal hold stands."""


class PatientNotActive(Refusal):
    """The patient's record is not active; reactivate it first."""


class MrnTaken(Refusal):
    """Another patient of this unit has this medical record number."""


class MrnNotValid(Refusal):
    """The medical record number does not match the unit's pattern."""


class BirthDateInFuture(Refusal):
    """The date of birth lies in the future."""


class DeathInFuture(Refusal):
    """The time of death lies in the future."""


PatientCommands = (
    RegisterPatient
    | UpdateDemographics
    | AssignMrn
    | DeactivatePatient
    | ReactivatePatient
    | MarkDeceased
    | PlaceLegalHold
    | LiftLegalHold
    | RequestErasure
    | ReportErasure
)
PatientEvents = (
    PatientRegistered
    | DemographicsUpdated
    | MrnAssigned
    | PatientDeactivated
    | PatientReactivated
    | PatientDied
    | LegalHoldPlaced
    | LegalHoldLifted
    | PatientErased
    | ErasureReported
)
