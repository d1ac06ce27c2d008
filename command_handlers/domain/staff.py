"""The rules of staff: a first administrator, then by invitation; roles for a time; suspended and taken back.

Whether whoever registers really has the code, and a password, was looked at in the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, assert_never
from uuid import UUID

from command_handlers.domain.decider import Aggregate, Counted, Freed, Situation, Taken
from contracts.envelope import Json
from contracts.identity import Role
from contracts.staff import (
    ActivateStaff,
    AppointFirstAdmin,
    GrantRole,
    InvitationExpired,
    InvitationNotValid,
    InviteStaff,
    ReinstateStaff,
    RevokeRole,
    RoleEndsBeforeItStarts,
    RoleGranted,
    RoleRevoked,
    StaffActivated,
    StaffAlreadyExists,
    StaffCommands,
    StaffEvents,
    StaffInvited,
    StaffNotFound,
    StaffReinstated,
    StaffStatus,
    StaffSuspended,
    SuspendStaff,
    UnitHasStaff,
)

ACCOUNTS: Final = "staff"
"""What is counted: accounts and open invitations. While a unit has none, whoever comes first is its administrator."""


@dataclass(frozen=True, slots=True)
class Period:
    """From when until when somebody has a role."""

    starts_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Staff:
    """What decisions need to know of an account; the defaults are one that nobody has made."""

    account_id: UUID | None = None
    """None: there is no such account."""
    invited: StaffInvited | None = None
    """None too for the unit's first administrator, whom nobody invited."""
    is_activated: bool = False
    is_suspended: bool = False
    roles: Mapping[Role, Period] = field(default_factory=dict)

    @property
    def status(self) -> StaffStatus | None:
        """None: there is no such account."""
        if self.account_id is None:
            return None
        if self.is_suspended:
            return StaffStatus.SUSPENDED
        return StaffStatus.ACTIVE if self.is_activated else StaffStatus.INVITED


def staff_stream(account_id: UUID) -> str:
    """The stream of one account."""
    return f"staff-{account_id}"


def stream(command: StaffCommands, situation: Situation) -> str:
    """`staff-<account_id>`."""
    return staff_stream(command.account_id)


def decide(command: StaffCommands, staff: Staff, situation: Situation) -> list[StaffEvents]:
    """New events, `[]` when it is already so."""
    account_id, at = command.account_id, situation.at
    match command:
        case AppointFirstAdmin():
            if staff.is_activated and staff.invited is None:
                return []
            if situation.count(ACCOUNTS):
                raise UnitHasStaff
            granted = RoleGranted(account_id=account_id, role=Role.ADMIN, starts_at=at)
            return [StaffActivated(account_id=account_id), granted]
        case InviteStaff():
            return _invited(command, staff, at)
        case ActivateStaff(code_hash=code_hash):
            return _activated(staff, code_hash, at)
        case _ if staff.account_id is None:
            raise StaffNotFound(account_id=str(account_id))
        case GrantRole(role=role, starts_at=starts_at, ends_at=ends_at):
            period = Period(starts_at or at, ends_at)
            if period.ends_at is not None and period.ends_at <= max(period.starts_at, at):
                raise RoleEndsBeforeItStarts
            known = staff.roles.get(role)
            if known is not None and (known == period or (starts_at is None and _holds(known, period, at))):
                return []
            return [RoleGranted(account_id=account_id, role=role, starts_at=period.starts_at, ends_at=period.ends_at)]
        case RevokeRole(role=role, reason_code=reason_code):
            if role not in staff.roles:
                return []
            return [RoleRevoked(account_id=account_id, role=role, not_before=at, reason_code=reason_code)]
        case SuspendStaff(reason_code=reason_code):
            if staff.is_suspended:
                return []
            return [StaffSuspended(account_id=account_id, not_before=at, reason_code=reason_code)]
        case ReinstateStaff():
            return [StaffReinstated(account_id=account_id)] if staff.is_suspended else []
        case _:
            assert_never(command)


def _holds(known: Period, period: Period, at: datetime) -> bool:
    """Whether the role is had now already and ends at the same time."""
    return known.starts_at <= at and known.ends_at == period.ends_at


def _invited(command: InviteStaff, staff: Staff, at: datetime) -> list[StaffEvents]:
    account_id = command.account_id
    if staff.account_id is not None:
        if staff.invited is not None and staff.invited.code_hash == command.code_hash:
            return []
        raise StaffAlreadyExists(account_id=str(account_id))
    invited = StaffInvited(account_id=account_id, code_hash=command.code_hash, expires_at=command.expires_at)
    roles = sorted(set(command.roles))
    return [invited, *(RoleGranted(account_id=account_id, role=role, starts_at=at) for role in roles)]


def _activated(staff: Staff, code_hash: str, at: datetime) -> list[StaffEvents]:
    if staff.invited is None or staff.invited.code_hash != code_hash or staff.is_suspended:
        raise InvitationNotValid
    if staff.is_activated:
        return []
    if at >= staff.invited.expires_at:
        raise InvitationExpired(expires_at=staff.invited.expires_at)
    return [StaffActivated(account_id=staff.invited.account_id)]


def evolve(staff: Staff, event: StaffEvents) -> Staff:
    """The account after what happened."""
    match event:
        case StaffInvited(account_id=account_id):
            return replace(staff, account_id=account_id, invited=event)
        case StaffActivated(account_id=account_id):
            return replace(staff, account_id=account_id, is_activated=True)
        case RoleGranted(role=role, starts_at=starts_at, ends_at=ends_at):
            return replace(staff, roles={**staff.roles, role: Period(starts_at, ends_at)})
        case RoleRevoked(role=role):
            return replace(staff, roles={had: period for had, period in staff.roles.items() if had is not role})
        case StaffSuspended():
            return replace(staff, is_suspended=True)
        case StaffReinstated():
            return replace(staff, is_suspended=False)
        case _:
            assert_never(event)


def claims(staff: Staff, event: StaffEvents) -> Sequence[Taken | Freed | Counted]:
    """How many accounts and invitations the unit has."""
    if isinstance(event, StaffInvited | StaffActivated) and staff.account_id is None:
        return (Counted(ACCOUNTS, 1),)
    return ()


def answer(command: StaffCommands, staff: Staff) -> Json:
    """The account's id, where it stands and its roles; until when an invitation is good."""
    said: Json = {"id": str(command.account_id), "status": staff.status, "roles": sorted(staff.roles)}
    if isinstance(command, InviteStaff) and staff.invited is not None:
        said["expiresAt"] = staff.invited.expires_at.isoformat()
    return said


STAFF: Final = Aggregate(
    context="staff", initial=Staff(), stream=stream, decide=decide, evolve=evolve, claims=claims, answer=answer
)
