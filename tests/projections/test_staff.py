"""Where accounts stand, which roles they have now, and since when older tokens are void."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from contracts.identity import Role
from contracts.staff import (
    RoleGranted,
    RoleRevoked,
    StaffActivated,
    StaffId,
    StaffInvited,
    StaffReinstated,
    StaffStatus,
    StaffSuspended,
)
from infra.database import connected
from migrations.versions.r0009_staff import READ_TABLES
from projections import staff
from projections.catalogue import read_model_named
from projections.questions import CursorNotValid
from projections.rebuild import rebuild
from tests.projections.facts import NORTH, SOUTH, unit
from tests.projections.readside import ReadSide

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
BOSS, NURSE = StaffId(UUID(int=1)), StaffId(UUID(int=2))
boss = (StaffActivated(account_id=BOSS), RoleGranted(account_id=BOSS, role=Role.ADMIN, starts_at=NOW))
invited = StaffInvited(account_id=NURSE, code_hash="a" * 64, expires_at=NOW + timedelta(days=1))
is_nurse = RoleGranted(account_id=NURSE, role=Role.NURSE, starts_at=NOW)
registered = StaffActivated(account_id=NURSE)
suspended = StaffSuspended(account_id=NURSE, not_before=NOW, reason_code="left")


def later(hours: int) -> datetime:
    return NOW + timedelta(hours=hours)


async def known(side: ReadSide, at: datetime = NOW, unit_id: str = NORTH) -> dict[UUID, staff.StaffAccount]:
    async with side.asking(unit_id) as connection:
        return {one.id: one for one in (await staff.of_unit(connection, unit_id, at=at)).items}


async def test_accounts_are_invited_and_become_active(side: ReadSide) -> None:
    await side.write(NORTH, unit(), *boss, invited, is_nurse)
    found = await known(side)
    assert (found[BOSS].status, found[BOSS].roles) == (StaffStatus.ACTIVE, [Role.ADMIN])
    assert (found[NURSE].status, found[NURSE].roles) == (StaffStatus.INVITED, [Role.NURSE])
    await side.write(NORTH, registered)
    assert (await known(side))[NURSE].status is StaffStatus.ACTIVE


async def test_a_role_is_had_from_its_beginning_to_its_end(side: ReadSide) -> None:
    granted = RoleGranted(account_id=BOSS, role=Role.DOCTOR, starts_at=later(1), ends_at=later(3))
    await side.write(NORTH, unit(), *boss, granted)
    for hours, roles in ((0, [Role.ADMIN]), (1, [Role.ADMIN, Role.DOCTOR]), (3, [Role.ADMIN])):
        assert (await known(side, later(hours)))[BOSS].roles == roles


async def test_what_is_taken_away_is_noted_with_since_when(side: ReadSide) -> None:
    revoked = RoleRevoked(account_id=NURSE, role=Role.NURSE, not_before=later(1), reason_code="changed-duties")
    await side.write(NORTH, unit(), invited, is_nurse, registered, revoked, suspended)
    found = (await known(side, later(2)))[NURSE]
    assert (found.status, found.roles, found.suspended_because) == (StaffStatus.SUSPENDED, [], "left")
    cursor = await side.admin.execute("SELECT account_id, not_before FROM read_staff_revocations ORDER BY position")
    assert await cursor.fetchall() == [(NURSE, later(1)), (NURSE, NOW)]
    await side.write(NORTH, StaffReinstated(account_id=NURSE), is_nurse)
    found = (await known(side, later(2)))[NURSE]
    assert (found.status, found.roles, found.suspended_because) == (StaffStatus.ACTIVE, [Role.NURSE], None)


async def test_a_rebuild_comes_to_the_same(side: ReadSide) -> None:
    await side.write(NORTH, unit(), *boss, invited, is_nurse, registered, suspended)
    before = await known(side)
    async for _ in rebuild(side.pool, side.sealer, read_model_named("staff"), page=2):
        pass
    assert await known(side) == before


async def test_another_unit_s_staff_are_not_seen_nor_written(side: ReadSide) -> None:
    await side.write(NORTH, unit(), *boss)
    assert await known(side, unit_id=SOUTH) == {}
    async with connected(side.gateway) as connection:
        for table in READ_TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - ours


async def test_accounts_come_in_pages_and_one_by_one(side: ReadSide) -> None:
    await side.write(NORTH, unit(), *boss, invited, is_nurse)
    async with side.asking(NORTH) as connection:
        first = await staff.of_unit(connection, NORTH, at=NOW, limit=1)
        second = await staff.of_unit(connection, NORTH, at=NOW, limit=1, cursor=first.next_cursor)
        assert ([one.id for one in first.items], [one.id for one in second.items]) == ([BOSS], [NURSE])
        assert second.next_cursor is None
        assert await staff.by_id(connection, NURSE, at=NOW) == second.items[0]
        with pytest.raises(CursorNotValid):
            await staff.of_unit(connection, NORTH, at=NOW, cursor="bm9wZQ")
    async with side.asking(SOUTH) as connection:
        assert await staff.by_id(connection, NURSE, at=NOW) is None
