"""Sealing: identifying fields are written encrypted under a key per person, and that key wrapped by a master key.

AES-256-GCM throughout. Destroying a person's row in `subject_keys` makes everything sealed for them unreadable for
ever, while the log itself is never rewritten. Which fields are sealed is decided by the types in `contracts`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.model import Model, sealed_fields
from infra.database import Connection
from infra.event_log import Json, StoredEvent

_NONCE = 12


class KeyNotKnown(Exception):
    """A data key was wrapped by a master key that this process was not given."""


class SealBroken(Exception):
    """What was sealed does not open under its key: it was altered, or moved to another place."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stored event with its sealed fields opened; `erased` when the key is gone and they are absent for ever."""

    event: StoredEvent
    payload: Json
    erased: bool


class MasterKey:
    """Wraps data keys and makes keyed hashes; from the environment or a KMS."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("CARESPINE_MASTER_KEY must be 32 bytes, base64: `openssl rand -base64 32`")
        self.id = hashlib.sha256(b"carespine.master" + key).hexdigest()[:12]
        self._cipher = AESGCM(hashlib.sha256(b"wrap" + key).digest())
        self._hashing = hashlib.sha256(b"hash" + key).digest()

    def wrap(self, subject: str, data_key: bytes) -> bytes:
        """The data key of `subject`, encrypted."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data_key, subject.encode())

    def unwrap(self, subject: str, wrapped: bytes) -> bytes:
        """The data key of `subject` again."""
        try:
            return self._cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], subject.encode())
        except InvalidTag as why:
            raise SealBroken(f"the wrapped key of {subject} does not open") from why

    def hashed(self, *parts: str) -> bytes:
        """A keyed hash: equal for equal values, and telling nothing without the key."""
        return hmac.digest(self._hashing, "\x1f".join(parts).encode(), "sha256")[:16]


def split(word: Model, dumped: Json) -> tuple[Json, Json | None]:
    """A word's JSON object as (clear fields, sealed fields or None)."""
    names = sealed_fields(type(word))
    if not names:
        return dumped, None
    hidden = {name: dumped[name] for name in names if dumped.get(name) is not None}
    return {name: value for name, value in dumped.items() if name not in names}, hidden or None


class Sealer:
    """Seals and opens under the data keys of subjects, which it loads, makes and caches."""

    def __init__(self, master: MasterKey, *, retired: Sequence[MasterKey] = (), cached: int = 50_000) -> None:
        self.master = master
        self._masters = {key.id: key for key in (master, *retired)}
        self._ciphers: OrderedDict[str, AESGCM] = OrderedDict()
        self._cached = cached

    async def load(self, connection: Connection, subjects: Iterable[str]) -> None:
        """Have the keys of these subjects at hand, where they exist."""
        missing = [subject for subject in set(subjects) if subject not in self._ciphers]
        if not missing:
            return
        cursor = await connection.execute(
            "SELECT subject, master_key_id, wrapped_key FROM subject_keys WHERE subject = ANY(%s)", (missing,)
        )
        for subject, master_key_id, wrapped in await cursor.fetchall():
            master = self._masters.get(master_key_id)
            if master is None:
                raise KeyNotKnown(f"the key of subject {subject} needs master key {master_key_id}")
            self._keep(subject, AESGCM(master.unwrap(subject, bytes(wrapped))))

    async def create(self, connection: Connection, subjects: Mapping[str, str]) -> None:
        """Make keys for those of `{subject: unit_id}` that have none yet, in the caller's transaction.

        A key counts only once that transaction has committed: `forget` the subjects when it did not.
        """
        await self.load(connection, subjects)
        missing = {subject: unit for subject, unit in subjects.items() if subject not in self._ciphers}
        if not missing:
            return
        made = {subject: AESGCM.generate_key(256) for subject in missing}
        cursor = await connection.execute(
            "INSERT INTO subject_keys (subject, unit_id, master_key_id, wrapped_key) "
            "SELECT s, u, %s, w FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS new (s, u, w) "
            "ON CONFLICT (subject) DO NOTHING RETURNING subject",
            (
                self.master.id,
                list(missing),
                list(missing.values()),
                [self.master.wrap(subject, key) for subject, key in made.items()],
            ),
        )
        for (subject,) in await cursor.fetchall():
            self._keep(subject, AESGCM(made[subject]))
        await self.load(connection, missing)

    def forget(self, subjects: Iterable[str]) -> None:
        """Drop keys from the cache: their transaction was rolled back, or the person is being erased."""
        for subject in subjects:
            self._ciphers.pop(subject, None)

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
