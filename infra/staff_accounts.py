"""Accounts as the log does not know them: whose they are, their passwords' hashes, and how often somebody was wrong.

An address is found by a keyed hash and kept sealed with the name; the key of both is wrapped by the master key like a
person's (`subject_keys`, subject `staff`). What an account may do is read from the read tables (`projections.staff`).
"""

from __future__ import annotations

import asyncio
import hmac
import os
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.database import Connection, Pool, connected
from infra.master_keys import KeyRing, SealBroken

SUBJECT: Final = "staff"
LOCKED_AFTER: Final = 10
"""Wrong passwords for one address at one unit."""
LOCK_SECONDS: Final = 60
"""For the first lock; each further one is twice as long, up to `LONGEST_LOCK`."""
LONGEST_LOCK: Final = 900
KMS_SECONDS: Final = 10.0
_NONCE: Final = 12

_ATTEMPT: Final = """
WITH old AS (
    DELETE FROM staff_attempts WHERE ctid = ANY (ARRAY(SELECT ctid FROM staff_attempts
        WHERE last_at < now() - interval '1 day' ORDER BY last_at LIMIT 20 FOR UPDATE SKIP LOCKED))
)
INSERT INTO staff_attempts AS a (who, failures, last_at) VALUES (%(who)s, 1, now())
ON CONFLICT (who) DO UPDATE SET
    was_locked = coalesce(a.locked_until > now(), false),
    failures = CASE WHEN a.locked_until > now() THEN a.failures
        WHEN a.last_at < now() - interval '1 hour' THEN 1 ELSE a.failures + 1 END,
    last_at = CASE WHEN a.locked_until > now() THEN a.last_at ELSE now() END,
    locked_until = CASE WHEN a.locked_until > now() THEN a.locked_until
        WHEN a.last_at >= now() - interval '1 hour' AND a.failures + 1 >= %(after)s
        THEN now() + least(%(lock)s * 2 ^ least(a.failures + 1 - %(after)s, 10), %(longest)s) * interval '1 second' END
RETURNING was_locked, extract(epoch FROM locked_until - now())::float8
"""
_NOT_JUDGED: Final = """
UPDATE staff_attempts SET failures = failures - 1, locked_until = NULL WHERE who = %s AND failures > 0
"""
_ACCOUNT: Final = """
SELECT a.account_id, a.password_hash, coalesce(s.activated_at IS NOT NULL AND s.suspended_at IS NULL, false)
FROM staff_accounts a LEFT JOIN read_staff s USING (account_id) WHERE a.unit_id = %s AND a.address_hash = %s
"""
_ADD: Final = """
INSERT INTO staff_accounts (account_id, unit_id, address_hash, sealed, password_hash) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING RETURNING account_id
"""
_DROP: Final = """
DELETE FROM staff_accounts a WHERE account_id = %s
    AND NOT EXISTS (SELECT FROM read_staff s WHERE s.account_id = a.account_id AND s.activated_at IS NOT NULL)
"""
_INVITED: Final = "SELECT account_id FROM read_staff WHERE unit_id = %s AND code_hash = %s"
_ANYBODY: Final = "SELECT EXISTS (SELECT FROM read_staff WHERE unit_id = %s)"


@dataclass(frozen=True)
class Account:
    """What is known of an account that somebody wants to log in to."""

    account_id: UUID
    password_hash: str
    is_active: bool
    """False: suspended, or its registration has not come to its end."""


@dataclass(frozen=True)
class Person:
    """Whose account it is."""

    address: str
    name: str


class StaffAccounts:
    """The table of accounts and the one of attempts."""

    def __init__(self, pool: Pool, masters: KeyRing) -> None:
        self._pool = pool
        self._masters = masters
        self._key: bytes | None = None
        """None until it was asked for."""

    async def who(self, unit_id: str, address: str) -> bytes:
        """By what an address at a unit is found, be there an account or not. Raises DatabaseUnavailable."""
        same = unicodedata.normalize("NFKC", address).strip().casefold()
        return hmac.digest(await self._secret(), f"{unit_id}\x1f{same}".encode(), "sha256")

    async def attempt(self, who: bytes) -> float:
        """Count one more attempt, before it is looked at: seconds to wait, 0 when it may be looked at."""
        values = {"who": who, "after": LOCKED_AFTER, "lock": LOCK_SECONDS, "longest": LONGEST_LOCK}
        async with connected(self._pool) as connection:
            cursor = await connection.execute(_ATTEMPT, values)
            row = await cursor.fetchone()
        return max(1.0, float(row[1])) if row is not None and row[0] else 0.0

    async def forgive(self, who: bytes) -> None:
        """The password was right: earlier attempts count no more."""
        async with connected(self._pool) as connection:
            await connection.execute("DELETE FROM staff_attempts WHERE who = %s", (who,))

    async def not_judged(self, who: bytes) -> None:
        """There was no time to look at the attempt just counted: it counts no more, and locks nobody out."""
        async with connected(self._pool) as connection:
            await connection.execute(_NOT_JUDGED, (who,))

    async def find(self, unit_id: str, who: bytes) -> Account | None:
        """The account, or None."""
        async with self._seeing(unit_id) as connection:
            cursor = await connection.execute(_ACCOUNT, (unit_id, who))
            row = await cursor.fetchone()
        return None if row is None else Account(*row)

    async def add(self, account_id: UUID, unit_id: str, who: bytes, person: Person, password_hash: str) -> bool:
        """A new account; False when there is one of this id, or with this address at the unit."""
        sealed = await self._sealed(account_id, person)
        async with connected(self._pool) as connection:
            cursor = await connection.execute(_ADD, (account_id, unit_id, who, sealed, password_hash))
            return await cursor.fetchone() is not None

    async def drop(self, unit_id: str, account_id: UUID) -> None:
        """Nobody is to have it after all; one that is active stays."""
        async with self._seeing(unit_id) as connection:
            await connection.execute(_DROP, (account_id,))

    async def invited(self, unit_id: str, code_hash: str) -> UUID | None:
        """The account that this is the invitation of, open or not."""
        async with self._seeing(unit_id) as connection:
            cursor = await connection.execute(_INVITED, (unit_id, code_hash))
            row = await cursor.fetchone()
        return None if row is None else row[0]

    async def has_any(self, unit_id: str) -> bool:
        """Whether the unit has any account or invitation, as far as is known here: its handler knows it for certain."""
        async with self._seeing(unit_id) as connection:
            cursor = await connection.execute(_ANYBODY, (unit_id,))
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def person(self, account_id: UUID) -> Person | None:
        """Whose account it is, or None where there is no such account."""
        async with connected(self._pool) as connection:
            cursor = await connection.execute("SELECT sealed FROM staff_accounts WHERE account_id = %s", (account_id,))
            row = await cursor.fetchone()
        if row is None:
            return None
        sealed, cipher = bytes(row[0]), AESGCM(await self._secret())
        try:
            told = orjson.loads(cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], account_id.bytes))
        except InvalidTag as why:
            raise SealBroken(f"the person of account {account_id} cannot be read") from why
        return Person(told["address"], told["name"])

    async def _sealed(self, account_id: UUID, person: Person) -> bytes:
        nonce = os.urandom(_NONCE)
        told = orjson.dumps({"address": person.address, "name": person.name})
        return nonce + AESGCM(await self._secret()).encrypt(nonce, told, account_id.bytes)

    async def _secret(self) -> bytes:
        """The key of staff, made once for an installation."""
        if self._key is None:
            async with connected(self._pool) as connection, asyncio.timeout(KMS_SECONDS):
                row = await _key_row(connection, None, None)
                if row is None:
                    master = self._masters.current
                    row = await _key_row(connection, master.id, await master.wrap(SUBJECT, os.urandom(32)))
                if row is None:
                    raise SealBroken("the key of staff was not kept")
                self._key = await self._masters.named(row[0]).unwrap(SUBJECT, row[1])
        return self._key

    @asynccontextmanager
    async def _seeing(self, unit_id: str) -> AsyncIterator[Connection]:
        """A transaction that sees what row-level security shows of the unit."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', %s, true)", (unit_id,))
            yield connection


async def _key_row(connection: Connection, master_id: str | None, wrapped: bytes | None) -> tuple[str, bytes] | None:
    cursor = await connection.execute(
        "SELECT master_key_id, wrapped_key FROM staff_key(%s::text, %s::bytea)", (master_id, wrapped)
    )
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else (row[0], bytes(row[1]))
