"""The rules of a unit: it joins once, decides for itself, is suspended and resumed, and leaves for good.

`admits` is what every other aggregate's commands have to pass first. Who may ask is on the commands; holding deliveries
of a suspended unit is the bridge's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from command_handlers.domain import unit_credential as credentials
from command_handlers.domain.decider import Aggregate, Freed, Situation, Taken
from contracts.envelope import Json
from contracts.model import Command
from contracts.portal_access import PortalsRevoked, RevokePortals
from contracts.unit import (
    AddDepartment,
    ConfigureUnit,
    DepartmentAdded,
    DepartmentNotFound,
    RegisterUnit,
    ResumeUnit,
    RetireUnit,
    SuspendUnit,
    UnitAlreadyRegistered,
    UnitCommands,
    UnitConfigured,
    UnitEvents,
    UnitIsRetired,
    UnitNotFound,
    UnitRegistered,
    UnitResumed,
    UnitRetired,
    UnitSettings,
    UnitStatus,
    UnitSuspended,
)
from contracts.unit_credential import (
    EnrolmentCodeIssued,
    EnrolUnit,
    IssueEnrolmentCode,
    RevokeUnitCredential,
    RotateUnitKey,
    UnitCredentialRevoked,
    UnitEnrolled,
    UnitKeyRotated,
)
from contracts.unit_presence import NoteUnitBack, NoteUnitUnreachable, UnitBack, UnitUnreachable


@dataclass(frozen=True, slots=True)
class Unit:
    """What decisions need to know of a unit; the defaults are a unit nobody has registered."""

    registered: UnitRegistered | None = None
    """As it joined; None: never."""
    status: UnitStatus | None = None
    """None: never registered."""
    settings: UnitSettings = field(default_factory=UnitSettings)
    departments: Mapping[str, str] = field(default_factory=dict)
    """Display names by code; empty: any code is accepted."""
    credentials: credentials.Credentials = field(default_factory=credentials.Credentials)
    """Its enrolment codes and keys."""
    unreachable: bool = False
    """It was told to be without a link for too long, and not yet to be back."""

    def require(self, department: str) -> None:
        """Refuse a department that the unit does not have."""
        if self.departments and department not in self.departments:
            raise DepartmentNotFound(department=department)


def admits(command: Command, unit: Unit) -> None:
    """Whether the unit takes this command at all, before anything else is looked at; raises the refusal.

    A retired unit still takes what only Carespine itself asks, so that a deadline running there comes to its end.
    """
    if isinstance(command, RegisterUnit):
        return
    if unit.status is None:
        raise UnitNotFound
    if unit.status is UnitStatus.RETIRED and command.may:
        raise UnitIsRetired


def stream(command: UnitCommands, situation: Situation) -> str:
    """`unit-<unit_id>`."""
    return unit_stream(situation.unit_id)


def unit_stream(unit_id: str) -> str:
    """The stream of a unit's own history."""
    return f"unit-{unit_id}"


def decide(command: UnitCommands, unit: Unit, situation: Situation) -> list[UnitEvents]:
    """New events, `[]` when it is already so; expects that `admits` was asked."""
    unit_id = situation.unit_id
    match command:
        case RegisterUnit() if unit.status is UnitStatus.RETIRED:
            raise UnitIsRetired
        case RegisterUnit():
            registered = UnitRegistered(
                unit_id=unit_id,
                name=command.name,
                kind=command.kind,
                source_id=command.source_id,
                address=command.address,
                settings=command.settings,
            )
            if unit.registered not in (None, registered):
                raise UnitAlreadyRegistered
            return [] if unit.registered else [registered]
        case ConfigureUnit(settings=settings):
            return [] if settings == unit.settings else [UnitConfigured(unit_id=unit_id, settings=settings)]
        case AddDepartment(department=department, display=display):
            if unit.departments.get(department) == display:
                return []
            return [DepartmentAdded(unit_id=unit_id, department=department, display=display)]
        case SuspendUnit(reason=reason):
            return [] if unit.status is UnitStatus.SUSPENDED else [UnitSuspended(unit_id=unit_id, reason=reason)]
        case ResumeUnit():
            return [UnitResumed(unit_id=unit_id)] if unit.status is UnitStatus.SUSPENDED else []
        case RetireUnit(reason=reason):
            return [UnitRetired(unit_id=unit_id, reason=reason)]
        case NoteUnitUnreachable(since=since):
            is_news = unit.status is UnitStatus.ACTIVE and not unit.unreachable
            return [UnitUnreachable(unit_id=unit_id, since=since)] if is_news else []
        case NoteUnitBack(away_seconds=away):
            return [UnitBack(unit_id=unit_id, away_seconds=away)] if unit.unreachable else []
        case RevokePortals(roles=roles, account=account, reason=reason):
            return [PortalsRevoked(unit_id=unit_id, roles=sorted(set(roles)), account=account, reason=reason)]
        case IssueEnrolmentCode() | EnrolUnit() | RotateUnitKey() | RevokeUnitCredential():
            if unit.status is UnitStatus.RETIRED:
                raise UnitIsRetired  # these are the system's own commands, which `admits` lets through
            return list(credentials.decide(command, unit.credentials, situation))
        case _:
            assert_never(command)


def evolve(unit: Unit, event: UnitEvents) -> Unit:
    """The unit after what happened."""
    match event:
        case UnitRegistered(settings=settings):
            return replace(unit, registered=event, status=UnitStatus.ACTIVE, settings=settings)
        case UnitConfigured(settings=settings):
            return replace(unit, settings=settings)
        case DepartmentAdded(department=department, display=display):
            return replace(unit, departments={**unit.departments, department: display})
        case UnitSuspended():
            return replace(unit, status=UnitStatus.SUSPENDED)
        case UnitResumed():
            return replace(unit, status=UnitStatus.ACTIVE)
        case UnitRetired():
            return replace(unit, status=UnitStatus.RETIRED)
        case UnitUnreachable():
            return replace(unit, unreachable=True)
        case UnitBack():
            return replace(unit, unreachable=False)
        case PortalsRevoked():
            return unit  # who may open a portal is looked at where portals are opened
        case EnrolmentCodeIssued() | UnitEnrolled() | UnitKeyRotated() | UnitCredentialRevoked():
            return replace(unit, credentials=credentials.evolve(unit.credentials, event))
        case _:
            assert_never(event)


def claims(unit: Unit, event: UnitEvents) -> Sequence[Taken | Freed]:
    """Nothing: a unit is alone in its stream."""
    return ()


def answer(command: UnitCommands, unit: Unit) -> Json:
    """The unit's id and, but for its registration, where it stands; what became of its codes and keys."""
    said: Json = {"id": unit.registered.unit_id if unit.registered else None}
    if not isinstance(command, RegisterUnit):
        said["status"] = unit.status
    match command:
        case IssueEnrolmentCode() | EnrolUnit() | RotateUnitKey() | RevokeUnitCredential():
            said |= credentials.answer(command, unit.credentials)
        case _:
            pass
    return said


UNIT: Final = Aggregate(
    context="unit", initial=Unit(), stream=stream, decide=decide, evolve=evolve, claims=claims, answer=answer
)
