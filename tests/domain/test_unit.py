"""A unit joins once, decides for itself, is suspended and resumed, and leaves for good."""

from __future__ import annotations

import pytest

from command_handlers.domain.unit import Unit
from contracts.catalogue import AnyCommand, AnyEvent
from contracts.identity import Role
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
    UnitAddress,
    UnitAlreadyRegistered,
    UnitConfigured,
    UnitIsRetired,
    UnitNotFound,
    UnitRegistered,
    UnitResumed,
    UnitRetired,
    UnitSettings,
    UnitSuspended,
)
from contracts.unit_command import ExpireUnitCommand, UnitCommandExpired
from contracts.unit_presence import NoteUnitBack, NoteUnitUnreachable, UnitBack, UnitUnreachable
from tests.domain.examples import ORDER, clinic, order_queued, register_anaba, register_clinic
from tests.kit.deciding import MORNING, UNIT_ID, given

tokyo = UnitSettings(zone="Asia/Tokyo", currency="JPY")
configured = UnitConfigured(unit_id=UNIT_ID, settings=tokyo)
radiology = DepartmentAdded(unit_id=UNIT_ID, department="radiology", display="Radiology")
suspended = UnitSuspended(unit_id=UNIT_ID, reason="new network")
retired = UnitRetired(unit_id=UNIT_ID, reason="closed")


def test_a_unit_joins_with_all_that_is_told_of_it() -> None:
    address = UnitAddress(line="1 North St", city="Northam", country="GB")
    register = RegisterUnit(name="North Clinic", kind="dept", source_id="org-7", address=address, settings=tokyo)
    joined = UnitRegistered(
        unit_id=UNIT_ID, name="North Clinic", kind="dept", source_id="org-7", address=address, settings=tokyo
    )
    given().when(register).then(joined)
    given().when(register).answers(id=UNIT_ID)


def test_joining_twice_with_the_same_data_is_joining_once() -> None:
    given(clinic).when(register_clinic).then()
    given(clinic).when(register_clinic).answers(id=UNIT_ID)


def test_joining_again_as_before_changes_nothing_that_was_configured_since() -> None:
    given(clinic, configured).when(register_clinic).then()


def test_joining_with_other_data_is_refused() -> None:
    given(clinic).when(RegisterUnit(name="South Clinic")).then_refused(UnitAlreadyRegistered)
    given(clinic).when(RegisterUnit(name="North Clinic", settings=tokyo)).then_refused(UnitAlreadyRegistered)


def test_a_unit_decides_for_itself() -> None:
    given(clinic).when(ConfigureUnit(settings=tokyo)).then(configured)
    given(clinic).when(ConfigureUnit(settings=tokyo)).answers(id=UNIT_ID, status="active")
    given(clinic, configured).when(ConfigureUnit(settings=tokyo)).then()


def test_a_department_is_opened_once_and_may_be_named_anew() -> None:
    add = AddDepartment(department="Radiology", display="Radiology")
    given(clinic).when(add).then(radiology)
    given(clinic, radiology).when(add).then()
    given(clinic, radiology).when(AddDepartment(department="radiology", display="X-ray")).then(
        DepartmentAdded(unit_id=UNIT_ID, department="radiology", display="X-ray")
    )


def test_a_unit_without_departments_takes_any_and_one_with_departments_only_its_own() -> None:
    Unit().require("anything")
    with_radiology = given(clinic, radiology).history.unit
    with_radiology.require("radiology")
    with pytest.raises(DepartmentNotFound) as refused:
        with_radiology.require("general")
    assert refused.value.about == {"department": "general"}


def test_a_unit_is_suspended_and_resumed() -> None:
    given(clinic).when(SuspendUnit(reason="new network")).then(suspended)
    given(clinic).when(SuspendUnit(reason="new network")).answers(id=UNIT_ID, status="suspended")
    given(clinic, suspended).when(SuspendUnit(reason="again")).then()
    given(clinic, suspended).when(ResumeUnit()).then(UnitResumed(unit_id=UNIT_ID))
    given(clinic).when(ResumeUnit()).then()
    given(clinic, suspended, UnitResumed(unit_id=UNIT_ID)).when(SuspendUnit(reason="new network")).then(suspended)


def test_a_suspended_unit_still_takes_commands() -> None:
    given(clinic, suspended).when(ConfigureUnit(settings=tokyo)).then(configured)


@pytest.mark.parametrize("before", [(), (suspended,)], ids=["active", "suspended"])
def test_a_unit_leaves_the_network_from_wherever_it_stands(before: tuple[AnyEvent, ...]) -> None:
    given(clinic, *before).when(RetireUnit(reason="closed")).then(retired)
    given(clinic, *before).when(RetireUnit(reason="closed")).answers(id=UNIT_ID, status="retired")


@pytest.mark.parametrize(
    "command",
    [
        register_clinic,
        register_anaba,
        ConfigureUnit(settings=tokyo),
        AddDepartment(department="radiology", display="Radiology"),
        SuspendUnit(reason="new network"),
        ResumeUnit(),
        RetireUnit(reason="closed"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_retired_unit_takes_nothing_more(command: AnyCommand) -> None:
    given(clinic, retired).when(command).then_refused(UnitIsRetired)


def test_at_a_retired_unit_deadlines_still_come_to_their_end() -> None:
    expired = UnitCommandExpired(unit_command_id=ORDER, unit_id=UNIT_ID)
    given(clinic, order_queued, retired).when(ExpireUnitCommand(unit_command_id=ORDER)).then(expired)


@pytest.mark.parametrize("command", [register_anaba, ConfigureUnit(settings=tokyo), RetireUnit(reason="closed")])
def test_nothing_is_taken_for_a_unit_that_nobody_registered(command: AnyCommand) -> None:
    given().when(command).then_refused(UnitNotFound)


unreachable = UnitUnreachable(unit_id=UNIT_ID, since=MORNING)


def test_a_unit_without_a_link_is_told_to_be_unreachable_once() -> None:
    given(clinic).when(NoteUnitUnreachable(since=MORNING)).then(unreachable)
    given(clinic, unreachable).when(NoteUnitUnreachable(since=MORNING)).then()


def test_a_unit_that_is_meant_to_be_away_is_not_unreachable() -> None:
    given(clinic, suspended).when(NoteUnitUnreachable(since=MORNING)).then()
    given(clinic, retired).when(NoteUnitUnreachable(since=MORNING)).then()


def test_only_who_was_away_is_back() -> None:
    back = UnitBack(unit_id=UNIT_ID, away_seconds=480)
    given(clinic, unreachable).when(NoteUnitBack(away_seconds=480)).then(back)
    given(clinic).when(NoteUnitBack(away_seconds=480)).then()
    given(clinic, unreachable, back).when(NoteUnitUnreachable(since=MORNING)).then(unreachable)


def test_portals_are_closed_by_role_and_account_as_often_as_it_is_asked() -> None:
    lost = RevokePortals(roles=[Role.NURSE, Role.DOCTOR, Role.NURSE], reason="tablets were lost")
    closed = PortalsRevoked(unit_id=UNIT_ID, roles=[Role.DOCTOR, Role.NURSE], reason="tablets were lost")
    given(clinic).when(lost).then(closed)
    given(clinic, closed).when(lost).then(closed)
    one = PortalsRevoked(unit_id=UNIT_ID, roles=[], account="dr-7", reason="has left")
    given(clinic).when(RevokePortals(account="dr-7", reason="has left")).then(one)
