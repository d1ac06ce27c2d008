"""Units' keys and enrolment codes: which are good, which were replaced, used or revoked, and since when.

Bridges and gateways read these tables too, whenever somebody shows a credential (`infra.unit_credentials`).
"""

from __future__ import annotations

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Integer,
    Table,
    Text,
    bindparam,
    select,
)
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Instant, Model
from contracts.unit_credential import EnrolmentCodeIssued, UnitCredentialRevoked, UnitEnrolled, UnitKeyRotated
from projections.questions import Connection, Question
from projections.read_model import Facts, ReadModel, added, changed, metadata

_INSTANT = TIMESTAMP(timezone=True)

keys = Table(
    "read_unit_keys",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("code_hash", Text),
    Column("replaces", Text),
    Column("registered_at", _INSTANT, nullable=False),
    Column("valid_until", _INSTANT),
    Column("revoked_at", _INSTANT),
    Column("revoked_because", Text),
)
revocations = Table(
    "read_unit_revocations",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("position", BigInteger, primary_key=True),
    Column("key_id", Text),
    Column("not_before", _INSTANT, nullable=False),
)
codes = Table(
    "read_enrolment_codes",
    metadata,
    Column("unit_id", Text, primary_key=True),
    Column("code_hash", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("issued_at", _INSTANT, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("key_id", Text),
    Column("used_at", _INSTANT),
    Column("void_at", _INSTANT),
)

model = ReadModel("unit_credentials", (keys, revocations, codes), key="unit_id")


@model.on(EnrolmentCodeIssued)
def may_enrol(facts: Facts) -> UpdateBase:
    """A code that is good until it is used or expires."""
    return added(
        codes,
        unit_id=facts.unit_id,
        code_hash=facts.code_hash,
        partition=facts.partition,
        issued_at=facts.occurred_at,
        expires_at=facts.expires_at,
    )


@model.on(UnitEnrolled)
def is_enrolled(facts: Facts) -> UpdateBase:
    """A key, and the code it was registered with, which is used up."""
    used = changed(
        codes,
        codes.c.unit_id == facts.unit_id,
        codes.c.code_hash == facts.code_hash,
        key_id=facts.key_id,
        used_at=facts.occurred_at,
    )
    enrolled = added(
        keys,
        unit_id=facts.unit_id,
        key_id=facts.key_id,
        partition=facts.partition,
        public_key=facts.public_key,
        code_hash=facts.code_hash,
        registered_at=facts.occurred_at,
    )
    # Two codes may register one key, after a restore of the agent's folder for instance.
    return enrolled.on_conflict_do_nothing().add_cte(used.cte("used"))


@model.on(UnitKeyRotated)
def has_another_key(facts: Facts) -> UpdateBase:
    """A new key, and the end of the one it replaces."""
    replaced = changed(
        keys,
        keys.c.unit_id == facts.unit_id,
        keys.c.key_id == facts.replaces,
        valid_until=facts.replaced_until,
    )
    new = added(
        keys,
        unit_id=facts.unit_id,
        key_id=facts.key_id,
        partition=facts.partition,
        public_key=facts.public_key,
        replaces=facts.replaces,
        registered_at=facts.occurred_at,
    )
    return new.add_cte(replaced.cte("replaced"))


@model.on(UnitCredentialRevoked)
def is_shut_out(facts: Facts) -> UpdateBase:
    """What lets nobody in any more: one key or all of them, unused codes, and every token issued before."""
    void_keys = changed(
        keys,
        keys.c.unit_id == facts.unit_id,
        facts.key_id.is_(None) | (keys.c.key_id == facts.key_id),
        keys.c.revoked_at.is_(None),
        revoked_at=facts.not_before,
        revoked_because=facts.reason,
    )
    void_codes = changed(
        codes,
        codes.c.unit_id == facts.unit_id,
        facts.key_id.is_(None),
        codes.c.key_id.is_(None),
        codes.c.void_at.is_(None),
        void_at=facts.not_before,
    )
    noted = added(
        revocations,
        unit_id=facts.unit_id,
        partition=facts.partition,
        position=facts.position,
        key_id=facts.key_id,
        not_before=facts.not_before,
    )
    return noted.add_cte(void_keys.cte("void_keys"), void_codes.cte("void_codes"))


class UnitKey(Model):
    """A key of a unit; its private half never leaves the unit."""

    key_id: str
    public_key: str
    replaces: str | None
    registered_at: Instant
    valid_until: Instant | None
    """End of its time, where it was replaced."""
    revoked_at: Instant | None
    revoked_because: str | None


class EnrolmentCode(Model):
    """An enrolment code, of which nobody knows more than its hash."""

    code_hash: str
    issued_at: Instant
    expires_at: Instant
    key_id: str | None
    """The key that was registered with it; null: it is unused."""
    used_at: Instant | None
    void_at: Instant | None
    """When it was revoked together with everything else."""


def _selected(table: Table, answer: type[Model]) -> list[Column[object]]:
    return [table.c[name] for name in answer.model_fields]


_KEYS = Question(
    select(*_selected(keys, UnitKey))
    .where(keys.c.unit_id == bindparam("unit_id"))
    .order_by(keys.c.registered_at.desc(), keys.c.key_id),
    UnitKey,
)
_CODES = Question(
    select(*_selected(codes, EnrolmentCode))
    .where(codes.c.unit_id == bindparam("unit_id"))
    .order_by(codes.c.issued_at.desc(), codes.c.code_hash)
    .limit(20),
    EnrolmentCode,
)


async def keys_of(connection: Connection, unit_id: str) -> list[UnitKey]:
    """Every key the unit has had, the newest first."""
    return await _KEYS.all(connection, unit_id=unit_id)


async def codes_of(connection: Connection, unit_id: str) -> list[EnrolmentCode]:
    """The latest enrolment codes, the newest first."""
    return await _CODES.all(connection, unit_id=unit_id)
