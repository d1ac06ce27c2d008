"""The rules of a unit's keys: a code registers one key, a key may be replaced by another, and a revoked one is void.

Part of the Unit aggregate (`command_handlers.domain.unit`). Whether whoever asks really holds a code or key was proved
at the gateway; here it is decided what the proof is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from command_handlers.domain.decider import Situation
from contracts.envelope import Json
from contracts.unit_credential import (
    CredentialCommands,
    CredentialEvents,
    EnrolmentCodeExpired,
    EnrolmentCodeIssued,
    EnrolmentCodeNotValid,
    EnrolmentCodeUsed,
    EnrolUnit,
    IssueEnrolmentCode,
    RevokeUnitCredential,
    RotateUnitKey,
    TooManyUnitKeys,
    UnitCredentialRevoked,
    UnitEnrolled,
    UnitKeyNotFound,
    UnitKeyReplaced,
    UnitKeyRevoked,
    UnitKeyRotated,
)

MOST_KEYS: Final = 8
"""Keys of one unit that are good at the same time."""
REMEMBERED_CODES: Final = 20
"""Codes of one unit that are known at the same time, the latest; older ones are no longer good."""


@dataclass(frozen=True, slots=True)
class Code:
    """An enrolment code, by its hash."""

    expires_at: datetime
    used_by: str | None = None
    """The key that was registered with it; None: it is unused."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the unit, by its id."""

    until: datetime | None = None
    """Good until then, because it was replaced; None: it was not."""
    is_revoked: bool = False

    def is_good(self, at: datetime) -> bool:
        """Whether it lets anybody in."""
        return not self.is_revoked and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What decisions need to know of a unit's codes and keys."""

    codes: Mapping[str, Code] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    not_before: datetime | None = None
    """Of the last revocation."""


def decide(command: CredentialCommands, known: Credentials, situation: Situation) -> list[CredentialEvents]:
    """New events, `[]` when it is already so."""
    unit_id, at = situation.unit_id, situation.at
    match command:
        case IssueEnrolmentCode(code_hash=code_hash, expires_at=expires_at):
            if code_hash in known.codes:
                return []
            return [EnrolmentCodeIssued(unit_id=unit_id, code_hash=code_hash, expires_at=expires_at)]
        case EnrolUnit(code_hash=code_hash, key_id=key_id, public_key=public_key):
            if not _may_enrol(known, command, at):
                return []
            return [UnitEnrolled(unit_id=unit_id, code_hash=code_hash, key_id=key_id, public_key=public_key)]
        case RotateUnitKey():
            return _rotated(command, known, unit_id, at)
        case RevokeUnitCredential(key_id=key_id, reason=reason):
            if key_id is not None and key_id not in known.keys:
                raise UnitKeyNotFound(key_id=key_id)
            if key_id is not None and known.keys[key_id].is_revoked:
                return []
            not_before = _later_than_every_token(at, known.not_before)
            return [UnitCredentialRevoked(unit_id=unit_id, key_id=key_id, not_before=not_before, reason=reason)]
        case _:
            assert_never(command)


def _later_than_every_token(at: datetime, last: datetime | None) -> datetime:
    # Tokens tell their age in whole seconds, and one issued after a revocation says the next whole second: a second
    # revocation before then has to reach beyond it, or it would leave that token good.
    if last is None:
        return at
    newest = last if last.microsecond == 0 else last.replace(microsecond=0) + timedelta(seconds=1)
    return max(at, newest + timedelta(microseconds=1))


def _may_enrol(known: Credentials, command: EnrolUnit, at: datetime) -> bool:
    """False when this very key was registered with this code before: the answer was lost on its way."""
    code, key = known.codes.get(command.code_hash), known.keys.get(command.key_id)
    if code is None:
        raise EnrolmentCodeNotValid
    if key is not None and key.is_revoked:
        raise UnitKeyRevoked(key_id=command.key_id)
    if code.used_by == command.key_id:
        return False
    if code.used_by is not None:
        raise EnrolmentCodeUsed
    if at >= code.expires_at:
        raise EnrolmentCodeExpired(expires_at=code.expires_at)
    _room(known, at)
    return True


def _rotated(command: RotateUnitKey, known: Credentials, unit_id: str, at: datetime) -> list[CredentialEvents]:
    old, new = known.keys.get(command.replaces), known.keys.get(command.key_id)
    if old is None:
        raise UnitKeyNotFound(key_id=command.replaces)
    if old.is_revoked or (new is not None and new.is_revoked):
        raise UnitKeyRevoked(key_id=command.replaces if old.is_revoked else command.key_id)
    if new is not None:
        return []
    if not old.is_good(at):
        raise UnitKeyReplaced(key_id=command.replaces)
    _room(known, at)
    until = at + timedelta(seconds=command.grace_seconds)
    return [
        UnitKeyRotated(
            unit_id=unit_id,
            key_id=command.key_id,
            public_key=command.public_key,
            replaces=command.replaces,
            replaced_until=until if old.until is None else min(until, old.until),
        )
    ]


def _room(known: Credentials, at: datetime) -> None:
    if sum(key.is_good(at) for key in known.keys.values()) >= MOST_KEYS:
        raise TooManyUnitKeys(most=MOST_KEYS)


def evolve(known: Credentials, event: CredentialEvents) -> Credentials:
    """What is known after what happened."""
    match event:
        case EnrolmentCodeIssued(code_hash=code_hash, expires_at=expires_at):
            latest = list(known.codes.items())[1 - REMEMBERED_CODES :]
            return replace(known, codes={**dict(latest), code_hash: Code(expires_at)})
        case UnitEnrolled(code_hash=code_hash, key_id=key_id):
            used = replace(known.codes[code_hash], used_by=key_id)
            return replace(known, codes={**known.codes, code_hash: used}, keys={**known.keys, key_id: Key()})
        case UnitKeyRotated(key_id=key_id, replaces=replaces, replaced_until=until):
            old = replace(known.keys[replaces], until=until)
            return replace(known, keys={**known.keys, replaces: old, key_id: Key()})
        case UnitCredentialRevoked(key_id=None, not_before=not_before):
            used_codes = {hashed: code for hashed, code in known.codes.items() if code.used_by is not None}
            void = {key_id: replace(key, is_revoked=True) for key_id, key in known.keys.items()}
            return Credentials(used_codes, void, not_before)
        case UnitCredentialRevoked(key_id=str(key_id), not_before=not_before):
            void = {**known.keys, key_id: replace(known.keys[key_id], is_revoked=True)}
            return replace(known, keys=void, not_before=not_before)
        case _:
            raise TypeError(f"not an event of credentials: {type(event).__name__}")


def answer(command: CredentialCommands, known: Credentials) -> Json:
    """What the gateway is told: when a code expires, which key it is."""
    match command:
        case IssueEnrolmentCode(code_hash=code_hash):
            code = known.codes.get(code_hash)
            return {"expiresAt": (code.expires_at if code else command.expires_at).isoformat()}
        case EnrolUnit(key_id=key_id):
            return {"keyId": key_id}
        case RotateUnitKey(key_id=key_id, replaces=replaces):
            until = known.keys[replaces].until
            return {"keyId": key_id, "replaces": replaces, "replacedUntil": until.isoformat() if until else None}
        case RevokeUnitCredential(key_id=revoked):
            return {"keyId": revoked}
        case _:
            assert_never(command)
