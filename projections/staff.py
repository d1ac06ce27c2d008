"""Staff accounts as the log tells of them: where each stands, its roles, and since when older access tokens are void.

Gateways read these tables when somebody logs in, and gateways and bridges while tokens are used
(`infra.staff_sessions`). Names and addresses are not known here.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Integer,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.sql.dml import UpdateBase

from contracts.identity import Role
from contracts.model import Instant, Model
from contracts.staff import (
    RoleGranted,
    RoleRevoked,
    StaffActivated,
    StaffInvited,
    StaffReinstated,
    StaffStatus,
    StaffSuspended,
)
from projections.questions import Connection, CursorNotValid, Page, Question, cursor_of, cursor_parts
from projections.read_model import Facts, ReadModel, added, changed, metadata

_INSTANT = TIMESTAMP(timezone=True)

staff = Table(
    "read_staff",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("unit_id", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("code_hash", Text),
    Column("invited_at", _INSTANT),
    Column("expires_at", _INSTANT),
    Column("activated_at", _INSTANT),
    Column("suspended_at", _INSTANT),
    Column("suspended_because", Text),
)
roles = Table(
    "read_staff_roles",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("unit_id", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("starts_at", _INSTANT, nullable=False),
    Column("ends_at", _INSTANT),
    Column("revoked_at", _INSTANT),
)
revocations = Table(
    "read_staff_revocations",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("unit_id", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("position", BigInteger, primary_key=True),
    Column("not_before", _INSTANT, nullable=False),
)

model = ReadModel("staff", (staff, roles, revocations), key="account_id")


@model.on(StaffInvited)
def may_register(facts: Facts) -> UpdateBase:
    """An account nobody has registered yet."""
    return added(
        staff,
        account_id=facts.account_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        code_hash=facts.code_hash,
        invited_at=facts.occurred_at,
        expires_at=facts.expires_at,
    ).on_conflict_do_nothing()


@model.on(StaffActivated)
def is_active(facts: Facts) -> UpdateBase:
    """The first administrator's account begins here; others were invited."""
    begun = added(
        staff,
        account_id=facts.account_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        activated_at=facts.occurred_at,
    )
    return begun.on_conflict_do_update(
        index_elements=["account_id"], set_={"activated_at": begun.excluded.activated_at}
    )


@model.on(RoleGranted)
def has_a_role(facts: Facts) -> UpdateBase:
    """A role, or another time for it."""
    granted = added(
        roles,
        account_id=facts.account_id,
        role=facts.role,
        unit_id=facts.unit_id,
        partition=facts.partition,
        starts_at=facts.starts_at,
        ends_at=facts.ends_at,
    )
    again = {name: granted.excluded[name] for name in ("starts_at", "ends_at")}
    return granted.on_conflict_do_update(index_elements=["account_id", "role"], set_={**again, "revoked_at": null()})


@model.on(RoleRevoked)
def has_a_role_no_longer(facts: Facts) -> UpdateBase:
    """The end of a role, and of the access tokens that carry it."""
    ended = changed(
        roles,
        roles.c.account_id == facts.account_id,
        roles.c.role == facts.role,
        revoked_at=facts.not_before,
    )
    return _noted(facts).add_cte(ended.cte("ended"))


@model.on(StaffSuspended)
def is_suspended(facts: Facts) -> UpdateBase:
    """Shut out, with every token."""
    out = changed(
        staff,
        staff.c.account_id == facts.account_id,
        suspended_at=facts.not_before,
        suspended_because=facts.reason_code,
    )
    return _noted(facts).add_cte(out.cte("suspended"))


@model.on(StaffReinstated)
def is_reinstated(facts: Facts) -> UpdateBase:
    """Let in again."""
    return changed(staff, staff.c.account_id == facts.account_id, suspended_at=null(), suspended_because=null())


def _noted(facts: Facts) -> UpdateBase:
    return added(
        revocations,
        account_id=facts.account_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        position=facts.position,
        not_before=facts.not_before,
    )


class StaffAccount(Model):
    """An account of a unit, without whose it is."""

    id: UUID
    status: StaffStatus
    roles: list[Role]
    """Those it has now."""
    invited_at: Instant | None
    expires_at: Instant | None
    """Until when the invitation can be used."""
    activated_at: Instant | None
    suspended_at: Instant | None
    suspended_because: str | None


_NOW = bindparam("at", type_=_INSTANT)
_HELD = (
    select(func.array_agg(aggregate_order_by(roles.c.role, roles.c.role)))
    .where(
        roles.c.account_id == staff.c.account_id,
        roles.c.revoked_at.is_(None),
        roles.c.starts_at <= _NOW,
        roles.c.ends_at.is_(None) | (roles.c.ends_at > _NOW),
    )
    .scalar_subquery()
)
_STATUS = case(
    (staff.c.suspended_at.is_not(None), StaffStatus.SUSPENDED.value),
    (staff.c.activated_at.is_not(None), StaffStatus.ACTIVE.value),
    else_=StaffStatus.INVITED.value,
)
_ACCOUNTS = select(
    staff.c.account_id.label("id"),
    _STATUS.label("status"),
    func.coalesce(_HELD, literal_column("'{}'::text[]")).label("roles"),
    staff.c.invited_at,
    staff.c.expires_at,
    staff.c.activated_at,
    staff.c.suspended_at,
    staff.c.suspended_because,
)
_OF_UNIT = Question(
    _ACCOUNTS.where(
        staff.c.unit_id == bindparam("unit_id"),
        bindparam("after", type_=Uuid()).is_(None) | (staff.c.account_id > bindparam("after", type_=Uuid())),
    )
    .order_by(staff.c.account_id)
    .limit(bindparam("most", type_=Integer())),
    StaffAccount,
)
_BY_ID = Question(_ACCOUNTS.where(staff.c.account_id == bindparam("account_id", type_=Uuid())), StaffAccount)


async def of_unit(
    connection: Connection, unit_id: str, *, at: datetime, cursor: str | None = None, limit: int = 50
) -> Page[StaffAccount]:
    """The unit's accounts and open invitations, by id."""
    after = None
    if cursor is not None:
        try:
            after = UUID(cursor_parts(cursor, 1)[0])
        except ValueError:
            raise CursorNotValid("not a cursor of this list") from None
    found = await _OF_UNIT.all(connection, unit_id=unit_id, at=at, after=after, most=limit + 1)
    return Page(found[:limit], cursor_of(found[limit - 1].id) if len(found) > limit else None)


async def by_id(connection: Connection, account_id: UUID, *, at: datetime) -> StaffAccount | None:
    """One account, or None where there is none to be seen."""
    return await _BY_ID.first(connection, account_id=account_id, at=at)
