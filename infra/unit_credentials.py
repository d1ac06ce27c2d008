"""What a unit's credential is worth right now: assertions exchanged for short tokens, and who has been shut out since.

Keys and revocations are read from the read tables (`projections.unit_credentials` fills them). Used by the gateway,
where agents fetch tokens, and by bridges, where they renew them in the running session.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Final

import structlog

from contracts.identity import Role
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.tokens import Claims, Clock, mint
from infra.unit_keys import AssertionRefused, PublicKey, key_id_in, verified

LOOK_SECONDS: Final = 0.5

_KEY: Final = """
SELECT u.status, k.public_key, k.revoked_at IS NOT NULL, k.valid_until,
    (SELECT max(r.not_before) FROM read_unit_revocations r WHERE r.unit_id = u.unit_id)
FROM read_units u JOIN read_unit_keys k ON k.unit_id = u.unit_id AND k.key_id = %s
WHERE u.unit_id = %s
"""
_NOTE: Final = """
WITH over AS (
    DELETE FROM unit_assertions_seen WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM unit_assertions_seen WHERE until < now() - interval '10 minutes' ORDER BY until
        LIMIT 20 FOR UPDATE SKIP LOCKED))
)
INSERT INTO unit_assertions_seen (unit_id, assertion, until) VALUES (%s, %s, to_timestamp(%s))
ON CONFLICT DO NOTHING RETURNING true
"""
"""Kept for longer than it could be taken: the clock that decides on that is this process's, and not the database's."""
_CODE: Final = "SELECT void_at IS NULL FROM read_enrolment_codes WHERE unit_id = %s AND code_hash = %s"
_REVOKED: Final = """
SELECT r.unit_id, r.partition, r.position, r.key_id, r.not_before, ARRAY(
    SELECT k.key_id FROM read_unit_keys k WHERE k.unit_id = r.unit_id AND k.revoked_at IS NOT NULL)
FROM read_unit_revocations r LEFT JOIN unnest(%s::int[], %s::bigint[]) AS seen (partition, position) USING (partition)
WHERE r.position > coalesce(seen.position, -1) ORDER BY r.partition, r.position
"""
"""A partition is projected by one at a time and in order, so what is visible of it has no holes."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Issued:
    """A token for a unit's agent."""

    token: str | None
    """None where this process may not sign: the assertion was good all the same."""
    expires_at: datetime
    key_id: str
    issued_at: int
    """As the token says it, seconds since the epoch."""


@dataclass(frozen=True)
class Revocation:
    """No token of the unit that was issued before `not_before` is good any more."""

    unit_id: str
    key_id: str | None
    """The key that is void too; None: all of them."""
    not_before: datetime
    void: frozenset[str] = frozenset()
    """Keys of the unit that are void by now, as far as is known: no token is good that was got with one of them, be it
    after `not_before`, as happens while the revocation is not visible yet.
    """

    def ends(self, *, issued_at: int, key_id: str | None) -> bool:
        """Whether a token of that age and key is one of those."""
        return issued_at < self.not_before.timestamp() or (
            key_id is not None and (key_id == self.key_id or key_id in self.void)
        )

    def voids(self, key_id: str | None) -> bool:
        """Whether whoever holds this key (None: a token without one) has to enrol again, and not only to renew."""
        return self.key_id is None or self.key_id == key_id or key_id in self.void


class Exchange:
    """Takes assertions for tokens."""

    def __init__(
        self, pool: Pool, private_key_pem: str | None, *, token_seconds: int, clock: Clock = time.time
    ) -> None:
        self._pool = pool
        self._private_key = private_key_pem
        self._ttl = token_seconds
        self._clock = clock

    async def knows_code(self, unit_id: str, code_hash: str) -> bool:
        """Whether this was ever an enrolment code of the unit, and was not revoked. Raises DatabaseUnavailable."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', %s, true)", (unit_id,))
            cursor = await connection.execute(_CODE, (unit_id, code_hash))
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def take(self, unit_id: str, assertion: str, *, other_key: str | None = None) -> Issued:
        """A token for what the unit's key has signed. Raises AssertionRefused, DatabaseUnavailable.

        `other_key`: it has to be signed for exactly this purpose, the rotation from or to that key.
        """
        key_id = key_id_in(assertion)
        async with connected(self._pool) as connection:
            async with connection.transaction():
                # Row-level security of the gateway's role; a bridge's role sees every unit.
                await connection.execute("SELECT set_config('carespine.unit', %s, true)", (unit_id,))
                cursor = await connection.execute(_KEY, (key_id, unit_id))
                row = await cursor.fetchone()
            if row is None:
                raise AssertionRefused("key_unknown")
            status, public_key, is_revoked, valid_until, not_before = row
            signed = verified(assertion, unit_id, PublicKey.read(public_key), self._clock())
            if signed.other_key != other_key:
                raise AssertionRefused("assertion_invalid")
            now = self._clock()
            if is_revoked:
                raise AssertionRefused("key_revoked")
            if valid_until is not None and now >= valid_until.timestamp():
                raise AssertionRefused("key_replaced")
            if status == "retired":
                raise AssertionRefused("unit_retired")
            await self._note(connection, unit_id, signed.jti, signed.good_until())
        return self._issued(unit_id, key_id, now, not_before)

    async def _note(self, connection: Connection, unit_id: str, jti: str, until: float) -> None:
        cursor = await connection.execute(_NOTE, (unit_id, hashlib.sha256(jti.encode()).digest()[:16], until))
        if await cursor.fetchone() is None:
            raise AssertionRefused("assertion_replayed")

    def _issued(self, unit_id: str, key_id: str, now: float, not_before: datetime | None) -> Issued:
        # Tokens tell their age in whole seconds: one issued in the second of a revocation, after it, must not be older.
        issued_at = max(int(now), ceil(not_before.timestamp()) if not_before is not None else 0)
        token = None
        if self._private_key is not None:
            token = mint(
                self._private_key,
                role=Role.UNIT,
                unit=unit_id,
                subject=f"unit:{unit_id}",
                key_id=key_id,
                ttl=self._ttl,
                clock=lambda: issued_at,
            )
        return Issued(token, datetime.fromtimestamp(issued_at + self._ttl, UTC), key_id, issued_at)


class Revocations:
    """Every revocation this process has heard of, looked for twice a second: the push may be lost, this is not."""

    def __init__(self, pool: Pool, *, revoked: Callable[[Revocation], None] = lambda revocation: None) -> None:
        """`revoked` is told of each, soon after it has become visible."""
        self._pool = pool
        self._revoked = revoked
        self._known: dict[str, list[Revocation]] = {}
        self._through: dict[int, int] = {}
        """By partition: the last position that was seen."""
        self._trouble: str | None = "revocations not read yet"
        self._is_known = False

    def ready(self) -> str | None:
        """None when they could be read the last time, else why not."""
        return self._trouble

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
                self._trouble = None
            except DatabaseUnavailable:
                if self._trouble is None:
                    log.warning("revocations_not_read", reason="database_unavailable")
                self._trouble = "database unavailable"
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises DatabaseUnavailable."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', '*', true)")
            cursor = await connection.execute(_REVOKED, (list(self._through), list(self._through.values())))
            rows = await cursor.fetchall()
        self._is_known = True
        for unit_id, partition, position, key_id, not_before, void in rows:
            revocation = Revocation(unit_id, key_id, not_before, frozenset(void))
            self._through[partition] = position
            self._known.setdefault(unit_id, []).append(revocation)
            self._revoked(revocation)

    def forbid(self, claims: Claims) -> str | None:
        """Why a unit's token lets nobody in, as far as is known here; None when nothing speaks against it.

        `key_revoked` · `token_revoked` · `revocations_not_known`: this process has not been able to look even once.
        """
        return self.against(claims.unit or "", key_id=claims.kid, issued_at=claims.iat)

    def against(self, unit_id: str, *, key_id: str | None, issued_at: int) -> str | None:
        """The same for a token of that unit, key and age."""
        if not self._is_known:
            return "revocations_not_known"
        known = self._known.get(unit_id, [])
        found = [one for one in known if one.ends(issued_at=issued_at, key_id=key_id)]
        if any(one.voids(key_id) for one in found):
            return "key_revoked"
        return "token_revoked" if found else None
