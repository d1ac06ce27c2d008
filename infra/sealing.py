"""Sealing: identifying fields are written encrypted under a key per person, and that key wrapped by a master key.

AES-256-GCM throughout. Destroying a person's row in `subject_keys` makes everything sealed for them unreadable for
ever, while the log itself is never rewritten. Which fields are sealed is decided by the types in `contracts`.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.model import Model, sealed_fields
from infra.database import Connection
from infra.event_log import Json, StoredEvent
from infra.master_keys import KeyNotKnown as KeyNotKnown
from infra.master_keys import KeyRing as KeyRing
from infra.master_keys import Master, MasterKey, keyed_hash
from infra.master_keys import SealBroken as SealBroken

_NONCE: Final = 12
HASHING: Final = "hashing"
"""The subject whose key makes keyed hashes: no person, and the same whichever master key wraps it."""
MASTER_SECONDS: Final = 10.0
"""How long a KMS may take for the keys of one batch."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stored event with its sealed fields opened; `erased` when the key is gone and they are absent for ever."""

    event: StoredEvent
    payload: Json
    erased: bool


def split(word: Model, dumped: Json) -> tuple[Json, Json | None]:
    """A word's JSON object as (clear fields, sealed fields or None)."""
    names = sealed_fields(type(word))
    if not names:
        return dumped, None
    hidden = {name: dumped[name] for name in names if dumped.get(name) is not None}
    return {name: value for name, value in dumped.items() if name not in names}, hidden or None


class Sealer:
    """Seals and opens under the data keys of subjects, which it loads, makes and caches."""

    def __init__(self, keys: KeyRing | Master, *, retired: Sequence[Master] = (), cached: int = 50_000) -> None:
        self.keys: Final = keys if isinstance(keys, KeyRing) else KeyRing(keys, retired=retired)
        self._ciphers: OrderedDict[str, AESGCM] = OrderedDict()
        self._cached = cached
        self._hashing: bytes | None = None

    @property
    def master(self) -> Master:
        """What wraps new data keys."""
        return self.keys.current

    async def ready(self, connection: Connection) -> None:
        """Have the hashing key at hand, made once for an installation; before `hashed` is asked."""
        while self._hashing is None:
            cursor = await connection.execute(
                "SELECT master_key_id, wrapped_key FROM subject_keys WHERE subject = %s", (HASHING,)
            )
            if row := await cursor.fetchone():
                self._hashing = await self._unwrapped(HASHING, row[0], bytes(row[1]))
                return
            # Where keys were made before this one had a row, hashes were made with the master key of that time.
            cursor = await connection.execute("SELECT master_key_id FROM subject_keys ORDER BY created_at LIMIT 1")
            oldest = await cursor.fetchone()
            first = self._named(HASHING, oldest[0]) if oldest else self.master
            made = first.first_hashing if isinstance(first, MasterKey) else os.urandom(32)
            await connection.execute(
                "INSERT INTO subject_keys (subject, unit_id, master_key_id, wrapped_key) VALUES (%s, '-', %s, %s) "
                "ON CONFLICT (subject) DO NOTHING",
                (HASHING, self.master.id, await self.master.wrap(HASHING, made)),
            )

    def hashed(self, *parts: str) -> bytes:
        """A keyed hash: equal for equal values, whichever master key is in use, and telling nothing without the key."""
        if self._hashing is None:
            raise RuntimeError("the hashing key was not asked for: await ready(...)")
        return keyed_hash(self._hashing, *parts)

    async def load(self, connection: Connection, subjects: Iterable[str]) -> None:
        """Have the keys of these subjects at hand, where they exist."""
        missing = [subject for subject in set(subjects) if subject not in self._ciphers]
        if not missing:
            return
        cursor = await connection.execute(
            "SELECT subject, master_key_id, wrapped_key FROM subject_keys WHERE subject = ANY(%s)", (missing,)
        )
        async with asyncio.timeout(MASTER_SECONDS):
            for subject, master_key_id, wrapped in await cursor.fetchall():
                self._keep(subject, AESGCM(await self._unwrapped(subject, master_key_id, bytes(wrapped))))

    async def create(self, connection: Connection, subjects: Mapping[str, str]) -> None:
        """Make keys for those of `{subject: unit_id}` that have none yet, in the caller's transaction.

        A key counts only once that transaction has committed: `forget` the subjects when it did not. Somebody who was
        erased never gets a key again (the table sees to it); `holds` says so afterwards.
        """
        await self.load(connection, subjects)
        missing = {subject: unit for subject, unit in subjects.items() if subject not in self._ciphers}
        if not missing:
            return
        self.keys.look()
        master = self.master
        made = {subject: AESGCM.generate_key(256) for subject in missing}
        async with asyncio.timeout(MASTER_SECONDS):
            wrapped = [await master.wrap(subject, key) for subject, key in made.items()]
        cursor = await connection.execute(
            "INSERT INTO subject_keys (subject, unit_id, master_key_id, wrapped_key) "
            "SELECT s, u, %s, w FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS new (s, u, w) "
            "ON CONFLICT (subject) DO NOTHING RETURNING subject",
            (master.id, list(missing), list(missing.values()), wrapped),
        )
        for (subject,) in await cursor.fetchall():
            self._keep(subject, AESGCM(made[subject]))
        await self.load(connection, missing)

    def holds(self, subject: str) -> bool:
        """Whether the subject's key is at hand."""
        return subject in self._ciphers

    def forget(self, subjects: Iterable[str]) -> int:
        """Drop keys from the cache: their transaction was rolled back, or the person was erased. How many it had."""
        return sum(self._ciphers.pop(subject, None) is not None for subject in subjects)

    def seal(self, subject: str, place: str, hidden: Json) -> bytes:
        """Encrypt `hidden` under the subject's key, bound to `place` so that it opens nowhere else."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher(subject).encrypt(nonce, orjson.dumps(hidden), place.encode())

    def unseal(self, subject: str, place: str, sealed: bytes) -> Json | None:
        """What was sealed, or None when the subject's key is gone; its key must have been loaded."""
        cipher = self._ciphers.get(subject)
        if cipher is None:
            return None
        try:
            opened: Json = orjson.loads(cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode()))
        except InvalidTag as why:
            raise SealBroken(f"sealed fields at {place} do not open") from why
        return opened

    async def open(self, connection: Connection, events: Sequence[StoredEvent]) -> list[Opened]:
        """Stored events with their sealed fields opened, in the order given; missing keys are loaded in one query."""
        await self.load(connection, (event.subject for event in events if event.sealed and event.subject))
        return [self._opened(event) for event in events]

    def _opened(self, event: StoredEvent) -> Opened:
        if event.sealed is None or event.subject is None:
            return Opened(event, event.payload, False)
        hidden = self.unseal(event.subject, place(event.stream, event.stream_version), bytes(event.sealed))
        if hidden is None:
            return Opened(event, event.payload, True)
        return Opened(event, {**event.payload, **hidden}, False)

    async def _unwrapped(self, subject: str, master_key_id: str, wrapped: bytes) -> bytes:
        return await self._named(subject, master_key_id).unwrap(subject, wrapped)

    def _named(self, subject: str, master_key_id: str) -> Master:
        try:
            return self.keys.named(master_key_id)
        except KeyNotKnown as why:
            raise KeyNotKnown(f"the key of subject {subject} needs master key {master_key_id}") from why

    def _cipher(self, subject: str) -> AESGCM:
        self._ciphers.move_to_end(subject)
        return self._ciphers[subject]

    def _keep(self, subject: str, cipher: AESGCM) -> None:
        self._ciphers[subject] = cipher
        while len(self._ciphers) > self._cached:
            self._ciphers.popitem(last=False)


def place(stream: str, version: int) -> str:
    """Where in the log something is sealed: the additional data its encryption is bound to."""
    return f"{stream}@{version}"
