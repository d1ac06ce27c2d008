"""One first administrator, everybody else by invitation; roles come and go, people are shut out and taken back."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from pydantic import ValidationError

from contracts.identity import Role
from contracts.staff import (
    STAFF_ROLES,
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
    StaffId,
    StaffInvited,
    StaffNotFound,
    StaffReinstated,
    StaffSuspended,
    SuspendStaff,
    UnitHasStaff,
)
from tests.domain.examples import clinic
from tests.kit.deciding import MORNING, given

BOSS, NURSE = StaffId(UUID(int=0xB055)), StaffId(UUID(int=0xA))
CODE, OTHER = "c0" * 32, "0c" * 32
TOMORROW = MORNING + timedelta(days=1)

appoint = AppointFirstAdmin(account_id=BOSS)
boss = (
    StaffActivated(account_id=BOSS),
    RoleGranted(account_id=BOSS, role=Role.ADMIN, starts_at=MORNING),
)
invite = InviteStaff(account_id=NURSE, code_hash=CODE, roles=[Role.NURSE], expires_at=TOMORROW)
invited = StaffInvited(account_id=NURSE, code_hash=CODE, expires_at=TOMORROW)
is_nurse = RoleGranted(account_id=NURSE, role=Role.NURSE, starts_at=MORNING)
register = ActivateStaff(account_id=NURSE, code_hash=CODE)
registered = StaffActivated(account_id=NURSE)
suspend = SuspendStaff(account_id=NURSE, reason_code="left")
suspended = StaffSuspended(account_id=NURSE, not_before=MORNING, reason_code="left")
revoke = RevokeRole(account_id=NURSE, role=Role.NURSE)
revoked = RoleRevoked(account_id=NURSE, role=Role.NURSE, not_before=MORNING, reason_code="changed-duties")
reinstate = ReinstateStaff(account_id=NURSE)


def test_the_first_user_of_a_unit_is_its_administrator() -> None:
    given(clinic).when(appoint).then(*boss)


def test_the_first_user_registering_twice_is_one_user() -> None:
    given(clinic, *boss).when(appoint).then()


def test_there_is_no_second_first_user() -> None:
    given(clinic, *boss).when(AppointFirstAdmin(account_id=NURSE)).then_refused(UnitHasStaff)


def test_an_open_invitation_is_somebody_already() -> None:
    given(clinic, invited, is_nurse).when(appoint).then_refused(UnitHasStaff)


def test_who_is_invited_has_the_roles_named() -> None:
    given(clinic, *boss).when(invite).then(invited, is_nurse)


def test_the_same_invitation_twice_is_one() -> None:
    given(clinic, *boss, invited, is_nurse).when(invite).then()


def test_an_account_is_invited_once() -> None:
    again = InviteStaff(account_id=NURSE, code_hash=OTHER, roles=[Role.DOCTOR], expires_at=TOMORROW)
    given(clinic, invited, is_nurse).when(again).then_refused(StaffAlreadyExists)
    given(clinic, *boss).when(
        InviteStaff(account_id=BOSS, code_hash=OTHER, roles=[Role.DOCTOR], expires_at=TOMORROW)
    ).then_refused(StaffAlreadyExists)


def test_who_has_the_code_registers_once() -> None:
    given(clinic, invited, is_nurse).when(register).then(registered)
    given(clinic, invited, is_nurse, registered).when(register).then()


def test_another_code_registers_nobody() -> None:
    wrong = ActivateStaff(account_id=NURSE, code_hash=OTHER)
    given(clinic, invited, is_nurse).when(wrong).then_refused(InvitationNotValid)
    given(clinic, invited, is_nurse, registered).when(wrong).then_refused(InvitationNotValid)
    given(clinic, *boss).when(register).then_refused(InvitationNotValid)


def test_an_invitation_runs_out() -> None:
    over = StaffInvited(account_id=NURSE, code_hash=CODE, expires_at=MORNING)
    given(clinic, over, is_nurse).when(register).then_refused(InvitationExpired)


def test_a_suspended_invitation_is_withdrawn_until_it_is_reinstated() -> None:
    given(clinic, invited, is_nurse, suspended).when(register).then_refused(InvitationNotValid)
    back = StaffReinstated(account_id=NURSE)
    given(clinic, invited, is_nurse, suspended, back).when(register).then(registered)


def test_roles_are_granted_for_a_time_and_taken_away() -> None:
    history = (clinic, invited, is_nurse, registered)
    later = MORNING + timedelta(hours=8)
    grant = GrantRole(account_id=NURSE, role=Role.PHARMACIST, ends_at=later)
    granted = RoleGranted(account_id=NURSE, role=Role.PHARMACIST, starts_at=MORNING, ends_at=later)
    given(*history).when(grant).then(granted)
    given(*history, granted).when(grant).then()
    given(*history).when(GrantRole(account_id=NURSE, role=Role.NURSE)).then()
    given(*history).when(GrantRole(account_id=NURSE, role=Role.NURSE, starts_at=TOMORROW)).then(
        RoleGranted(account_id=NURSE, role=Role.NURSE, starts_at=TOMORROW)
    )
    given(*history).when(revoke).then(revoked)
    given(*history, revoked).when(revoke).then()


def test_a_role_does_not_end_before_it_starts() -> None:
    wrong = GrantRole(account_id=NURSE, role=Role.DOCTOR, starts_at=TOMORROW, ends_at=MORNING)
    given(clinic, invited, is_nurse).when(wrong).then_refused(RoleEndsBeforeItStarts)


def test_somebody_is_shut_out_and_taken_back() -> None:
    history = (clinic, invited, is_nurse, registered)
    given(*history).when(suspend).then(suspended)
    given(*history, suspended).when(suspend).then()
    given(*history).when(reinstate).then()
    given(*history, suspended).when(reinstate).then(StaffReinstated(account_id=NURSE))


@pytest.mark.parametrize("command", [suspend, reinstate, revoke, GrantRole(account_id=NURSE, role=Role.NURSE)], ids=str)
def test_nothing_is_said_of_an_account_that_is_not_there(
    command: SuspendStaff | ReinstateStaff | RevokeRole | GrantRole,
) -> None:
    given(clinic, *boss).when(command).then_refused(StaffNotFound)


@pytest.mark.parametrize("role", sorted(set(Role) - STAFF_ROLES))
def test_nobody_is_made_a_program(role: Role) -> None:
    with pytest.raises(ValidationError):
        GrantRole(account_id=NURSE, role=role)
    with pytest.raises(ValidationError):
        InviteStaff(account_id=NURSE, code_hash=CODE, roles=[role], expires_at=TOMORROW)


def test_a_reason_is_a_code_and_holds_no_name() -> None:
    with pytest.raises(ValidationError):
        SuspendStaff(account_id=NURSE, reason_code="Ana Example has left")
