"""How a unit's agent proves who it is: enrolment codes and the unit's own keys. Words of the Unit aggregate.

Only hashes of codes and public halves of keys stand here; secrets never reach a command, the log or a feed. How codes
are made, keys encoded and assertions signed is `infra.unit_credentials`'.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from contracts.identity import ADMINS, Role
from contracts.ids import UnitId
from contracts.model import Command, Event, Instant, Refusal

CREDENTIAL_OPERATORS: Final = ADMINS | {Role.OPS}
"""Who may issue enrolment codes, see a unit's keys and revoke them."""
LONGEST_GRACE: Final = 24 * 3600
"""Seconds a key stays good after it was replaced, at most."""

KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""The first half of the SHA-256 of a public key's 32 bytes, in hexadecimal."""
PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""An Ed25519 public key: base64 of its 32 bytes."""
CodeHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""The SHA-256 of an enrolment code, in hexadecimal; a code has 125 random bits, so its hash tells nothing of it."""


class _CredentialCommand(Command):
    context: ClassVar[str] = "unit"


class IssueEnrolmentCode(_CredentialCommand):
    """Let one agent of the unit register its key, once, until the code expires. The gateway makes the code."""

    code_hash: CodeHash
    expires_at: Instant


class EnrolUnit(_CredentialCommand):
    """An agent registers its key with a code. The gateway gives this command when it has the code."""

    code_hash: CodeHash
    key_id: KeyId
    public_key: PublicKey


class RotateUnitKey(_CredentialCommand):
    """The unit replaces its key. The gateway gives this command when old and new key have both signed for it."""

    replaces: KeyId
    key_id: KeyId
    public_key: PublicKey
    grace_seconds: int = Field(LONGEST_GRACE, ge=0, le=LONGEST_GRACE)
    """How long the replaced key stays good."""


class RevokeUnitCredential(_CredentialCommand):
    """Shut out whoever holds the unit's key, or one of its keys.

    Every token of the unit that was issued before is refused from now on, with whatever key it was got; without
    `keyId` all keys and all unused enrolment codes are void too.
    """

    may: ClassVar[frozenset[Role]] = CREDENTIAL_OPERATORS
    key_id: KeyId | None = None
    """The key that is void; None: all of them."""
    reason: str = Field("revoked", min_length=1, max_length=200)


class _CredentialEvent(Event):
    context: ClassVar[str] = "unit"
    unit_id: UnitId


class EnrolmentCodeIssued(_CredentialEvent):
    """One agent may register its key with this code."""

    code_hash: CodeHash
    expires_at: Instant


class UnitEnrolled(_CredentialEvent):
    """An agent of the unit registered its key; the code is used up."""

    code_hash: CodeHash
    key_id: KeyId
    public_key: PublicKey


class UnitKeyRotated(_CredentialEvent):
    """The unit has a new key; the one it replaces is good for a while yet."""

    key_id: KeyId
    public_key: PublicKey
    replaces: KeyId
    replaced_until: Instant


class UnitCredentialRevoked(_CredentialEvent):
    """A key, or all of them, and every token issued before `not_before` let nobody in any more."""

    key_id: KeyId | None = None
    """None: all keys, and all unused enrolment codes."""
    not_before: Instant
    reason: str


class EnrolmentCodeNotValid(Refusal):
    """This is not an enrolment code of this unit; ask the network for one."""


class EnrolmentCodeExpired(Refusal):
    """The enrolment code has expired; ask the network for another."""


class EnrolmentCodeUsed(Refusal):
    """The enrolment code was used for another key before; ask the network for another, and who used it."""


class UnitKeyNotFound(Refusal):
    """The unit has no such key."""


class UnitKeyRevoked(Refusal):
    """The key was revoked; enrol again with a new one."""


class UnitKeyReplaced(Refusal):
    """The key was replaced and its time is over; use the key that replaced it."""


class TooManyUnitKeys(Refusal):
    """The unit has as many keys as it may have; revoke those that are not in use."""


CredentialCommands = IssueEnrolmentCode | EnrolUnit | RotateUnitKey | RevokeUnitCredential
CredentialEvents = EnrolmentCodeIssued | UnitEnrolled | UnitKeyRotated | UnitCredentialRevoked
