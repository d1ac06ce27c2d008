"""Staff: who works at a unit and in which roles (FHIR Practitioner, PractitionerRole) - what may be asked and happen.

An account is an id here and nothing else: addresses, names, passwords and sessions are `infra.staff_accounts`' and
`infra.staff_sessions`', in tables that the log knows nothing of. Reasons are codes, so that nobody writes a name there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, NewType
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from contracts.identity import ADMINS, CLINICAL, SERVING, Role
from contracts.model import Command, Event, Instant, Refusal
from contracts.unit_credential import CodeHash

StaffId = NewType("StaffId", UUID)

STAFF_ROLES: Final = CLINICAL | SERVING | {Role.ADMIN, Role.RECEPTIONIST}
"""What a person can be; the other roles are programs'."""
MANAGERS: Final = ADMINS
"""Who may invite people, and say what they may do."""


def _of_people(role: Role) -> Role:
    if role not in STAFF_ROLES:
        raise ValueError("must be one of " + ", ".join(sorted(one.value for one in STAFF_ROLES)))
    return role


StaffRole = Annotated[Role, AfterValidator(_of_people)]
Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""A code, for example `left` or `lost-device`; never about whom."""


class StaffStatus(StrEnum):
    """Where an account stands."""

    INVITED = "invited"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class _StaffCommand(Command):
    context: ClassVar[str] = "staff"
    account_id: StaffId


class AppointFirstAdmin(_StaffCommand):
    """Somebody is the unit's first user and its administrator. The gateway gives this command when they register."""


class InviteStaff(_StaffCommand):
    """Let one person register with a code, once, until it expires. The gateway makes the code."""

    code_hash: CodeHash
    roles: list[StaffRole] = Field(min_length=1, max_length=len(STAFF_ROLES))
    expires_at: Instant


class ActivateStaff(_StaffCommand):
    """Somebody registered with the code of their invitation. The gateway gives this command when it has the code."""

    code_hash: CodeHash


class GrantRole(_StaffCommand):
    """Somebody may do what a role may, from now or from then on, for good or for a time."""

    may: ClassVar[frozenset[Role]] = MANAGERS
    role: StaffRole
    starts_at: Instant | None = None
    """None: now."""
    ends_at: Instant | None = None
    """None: until it is revoked."""


class RevokeRole(_StaffCommand):
    """Take a role from somebody; access tokens that carry it let nobody in any more."""

    may: ClassVar[frozenset[Role]] = MANAGERS
    role: StaffRole
    reason_code: Reason = "changed-duties"


class SuspendStaff(_StaffCommand):
    """Shut somebody out: no login, and every session ends. An invitation that was not used is withdrawn."""

    may: ClassVar[frozenset[Role]] = MANAGERS
    reason_code: Reason


class ReinstateStaff(_StaffCommand):
    """End a suspension; whoever it was has to log in again."""

    may: ClassVar[frozenset[Role]] = MANAGERS


class _StaffEvent(Event):
    context: ClassVar[str] = "staff"
    account_id: StaffId


class StaffInvited(_StaffEvent):
    """One person may register with this code."""

    code_hash: CodeHash
    expires_at: Instant


class StaffActivated(_StaffEvent):
    """The account has a person and a password."""


class RoleGranted(_StaffEvent):
    """The account has a role, for that time."""

    role: Role
    starts_at: Instant
    ends_at: Instant | None = None
    """None: until it is revoked."""


class RoleRevoked(_StaffEvent):
    """The account has the role no longer; its access tokens issued before `not_before` are void."""

    role: Role
    not_before: Instant
    reason_code: str


class StaffSuspended(_StaffEvent):
    """The account lets nobody in; its access tokens issued before `not_before` are void."""

    not_before: Instant
    reason_code: str


class StaffReinstated(_StaffEvent):
    """The account lets its person in again."""


class UnitHasStaff(Refusal):
    """The unit has users already; ask one of its administrators for an invitation."""


class StaffAlreadyExists(Refusal):
    """There is such an account already, of another invitation."""


class StaffNotFound(Refusal):
    """There is no such account."""


class InvitationNotValid(Refusal):
    """This is not the code of an open invitation of this unit; ask for one."""


class InvitationExpired(Refusal):
    """The invitation has expired; ask for another."""


class RoleEndsBeforeItStarts(Refusal):
    """The role would end before it starts."""


StaffCommands = AppointFirstAdmin | InviteStaff | ActivateStaff | GrantRole | RevokeRole | SuspendStaff | ReinstateStaff
StaffEvents = StaffInvited | StaffActivated | RoleGranted | RoleRevoked | StaffSuspended | StaffReinstated
