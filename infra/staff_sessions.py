"""Sessions of people: begun by a login, carried on by refresh tokens that are good once, ended by whatever comes first.

A session ends at logout, when it was idle for too long, at its absolute end, or when a refresh token comes a second
time: then two hold what one was given, and nobody can say which of them it belongs to. What ends while access tokens
are still good is told by `infra.staff_revocations`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final
from uuid import UUID, uuid4

from contracts.identity import Role
from infra.database import Connection, Pool, connected
from infra.settings import StaffAccess
from infra.tokens import Clock, mint

PRECEDENCE: Final = (
    Role.ADMIN,
    Role.DOCTOR,
    Role.NURSE,
    Role.RECEPTIONIST,
    Role.PHARMACIST,
    Role.LAB_TECHNICIAN,
    Role.RADIOLOGIST,
    Role.BILLING,
)
"""Whose of several roles is the one that a token's `role` names."""

_STANDING: Final = """
SELECT s.activated_at IS NOT NULL AND s.suspended_at IS NULL,
    ARRAY(SELECT role FROM read_staff_roles r WHERE r.account_id = s.account_id AND r.revoked_at IS NULL
        AND r.starts_at <= %(at)s AND (r.ends_at IS NULL OR r.ends_at > %(at)s)),
    (SELECT max(not_before) FROM read_staff_revocations v WHERE v.account_id = s.account_id)
FROM read_staff s WHERE s.account_id = %(account)s
"""
_BEGIN: Final = """
WITH over AS (
    DELETE FROM staff_sessions WHERE ctid = ANY (ARRAY(SELECT ctid FROM staff_sessions
        WHERE expires_at < now() - interval '1 day' ORDER BY expires_at LIMIT 20 FOR UPDATE SKIP LOCKED))
)
INSERT INTO staff_sessions (session_id, account_id, unit_id, started_at, seen_at, expires_at)
VALUES (%(session)s, %(account)s, %(unit)s, %(at)s, %(at)s, %(until)s)
"""
_SHOWN: Final = """
SELECT t.used_at IS NOT NULL, s.session_id, s.account_id, s.unit_id, s.seen_at, s.expires_at, s.ended_at IS NOT NULL
FROM staff_sessions s JOIN staff_refresh_tokens t USING (session_id) WHERE t.token_hash = %s FOR UPDATE
"""
_GIVE: Final = "INSERT INTO staff_refresh_tokens (token_hash, session_id, issued_at) VALUES (%s, %s, %s)"
_USE: Final = "UPDATE staff_refresh_tokens SET used_at = %s WHERE token_hash = %s"
_SEEN: Final = "UPDATE staff_sessions SET seen_at = %s WHERE session_id = %s"
_END: Final = """
UPDATE staff_sessions SET ended_at = clock_timestamp(), ended_because = %s WHERE session_id = %s AND ended_at IS NULL
"""
_END_ALL: Final = """
UPDATE staff_sessions SET ended_at = clock_timestamp(), ended_because = 'everywhere'
WHERE account_id = %s AND ended_at IS NULL
"""


class SessionRefused(Exception):
    """Nobody goes on with this.

    `code`: refresh_token_invalid · refresh_token_reused · session_ended · session_idle · session_expired ·
    account_not_active.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Given:
    """What somebody who logged in holds from now on."""

    account_id: UUID
    unit_id: str
    session_id: UUID
    roles: tuple[Role, ...]
    access_token: str
    access_until: datetime
    refresh_token: str
    idle_until: datetime
    """Unused until then, the refresh token is worth nothing."""
    session_until: datetime


@dataclass(frozen=True)
class _Standing:
    roles: tuple[Role, ...]
    not_before: datetime | None


class StaffSessions:
    """Begins, carries on and ends sessions."""

    def __init__(self, pool: Pool, private_key_pem: str, limits: StaffAccess, *, clock: Clock = time.time) -> None:
        self._pool = pool
        self._private_key = private_key_pem
        self._limits = limits
        self._clock = clock

    async def begin(self, account_id: UUID, unit_id: str) -> Given:
        """A new session of an account whose password was right. Raises SessionRefused, DatabaseUnavailable."""
        now = self._now()
        session_id, until = uuid4(), now + timedelta(seconds=self._limits.session_seconds)
        refresh_token = secrets.token_urlsafe(32)
        async with connected(self._pool) as connection, connection.transaction():
            standing = await self._standing(connection, account_id, now)
            if standing is None:
                raise SessionRefused("account_not_active")
            about = {"session": session_id, "account": account_id, "unit": unit_id, "at": now, "until": until}
            await connection.execute(_BEGIN, about)
            await connection.execute(_GIVE, (_hash(refresh_token), session_id, now))
        return self._given(account_id, unit_id, session_id, until, standing, refresh_token, now)

    async def carry_on(self, refresh_token: str) -> Given:
        """New tokens for an unused refresh token, which is used up. Raises SessionRefused, DatabaseUnavailable."""
        now = self._now()
        shown, new = _hash(refresh_token), secrets.token_urlsafe(32)
        async with connected(self._pool) as connection, connection.transaction():
            cursor = await connection.execute(_SHOWN, (shown,))
            row = await cursor.fetchone()
            if row is None:
                raise SessionRefused("refresh_token_invalid")
            is_used, session_id, account_id, unit_id, seen_at, until, has_ended = row
            standing = await self._standing(connection, account_id, now)
            why = self._ends(is_used=is_used, has_ended=has_ended, seen_at=seen_at, until=until, now=now)
            if why is None and standing is None:
                why = "account_not_active"
            if why is not None:
                await connection.execute(_END, (why, session_id))
            else:
                await connection.execute(_USE, (now, shown))
                await connection.execute(_GIVE, (_hash(new), session_id, now))
                await connection.execute(_SEEN, (now, session_id))
        if why is not None or standing is None:
            raise SessionRefused(why or "account_not_active")
        return self._given(account_id, unit_id, session_id, until, standing, new, now)

    async def end(self, session_id: UUID) -> int:
        """End one session. How many ended: 0 when it had ended."""
        async with connected(self._pool) as connection:
            return (await connection.execute(_END, ("logout", session_id))).rowcount

    async def end_all(self, account_id: UUID) -> int:
        """End every session of an account. How many ended."""
        async with connected(self._pool) as connection:
            return (await connection.execute(_END_ALL, (account_id,))).rowcount

    async def of_token(self, refresh_token: str) -> tuple[UUID, UUID] | None:
        """The session and the account that a refresh token, used or not, was given to."""
        async with connected(self._pool) as connection, connection.transaction():
            cursor = await connection.execute(_SHOWN, (_hash(refresh_token),))
            row = await cursor.fetchone()
        return None if row is None else (row[1], row[2])

    def _ends(self, *, is_used: bool, has_ended: bool, seen_at: datetime, until: datetime, now: datetime) -> str | None:
        """Why the session goes no further; None: it does."""
        if is_used:
            return "refresh_token_reused"
        if has_ended:
            return "session_ended"
        if now >= until:
            return "session_expired"
        if now - seen_at >= timedelta(seconds=self._limits.idle_seconds):
            return "session_idle"
        return None

    async def _standing(self, connection: Connection, account_id: UUID, now: datetime) -> _Standing | None:
        """What the account may do now; None: nothing."""
        await connection.execute("SELECT set_config('carespine.unit', '*', true)")
        cursor = await connection.execute(_STANDING, {"account": account_id, "at": now})
        row = await cursor.fetchone()
        if row is None or not row[0] or not row[1]:
            return None
        return _Standing(_in_order([Role(role) for role in row[1]]), row[2])

    def _given(
        self,
        account_id: UUID,
        unit_id: str,
        session_id: UUID,
        session_until: datetime,
        standing: _Standing,
        refresh_token: str,
        now: datetime,
    ) -> Given:
        # Tokens tell their age in whole seconds: one issued in the second of a revocation, after it, must not be older.
        revoked = standing.not_before
        issued_at = max(int(now.timestamp()), ceil(revoked.timestamp()) if revoked is not None else 0)
        until = min(issued_at + self._limits.token_seconds, int(session_until.timestamp()))
        token = mint(
            self._private_key,
            role=standing.roles[0],
            roles=standing.roles,
            unit=unit_id,
            subject=str(account_id),
            session=str(session_id),
            ttl=until - issued_at,
            clock=lambda: issued_at,
        )
        return Given(
            account_id=account_id,
            unit_id=unit_id,
            session_id=session_id,
            roles=standing.roles,
            access_token=token,
            access_until=datetime.fromtimestamp(until, UTC),
            refresh_token=refresh_token,
            idle_until=min(now + timedelta(seconds=self._limits.idle_seconds), session_until),
            session_until=session_until,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _in_order(roles: Sequence[Role]) -> tuple[Role, ...]:
    return tuple(sorted(roles, key=PRECEDENCE.index))


def _hash(refresh_token: str) -> bytes:
    return hashlib.sha256(refresh_token.encode()).digest()
