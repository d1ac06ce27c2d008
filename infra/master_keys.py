"""Master keys: what wraps the data keys of persons, the one in use first and retired ones after it.

A master key is anything that can wrap and unwrap a few bytes under an id: `MasterKey` does it here with a key from the
environment or a file, a KMS would do it elsewhere. Wrapping all data keys anew is `infra.key_rotation`'s.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.settings import KEY_BYTES, Keys, SettingsError, master_keys_in

_NONCE: Final = 12


class KeyNotKnown(Exception):
    """A data key was wrapped by a master key that this process was not given."""


class SealBroken(Exception):
    """What was sealed does not open under its key: it was altered, or moved to another place."""


class Master(Protocol):
    """The port: a master key here, or one that never leaves a KMS. Both calls end by a deadline of the caller's."""

    @property
    def id(self) -> str:
        """Stands beside everything it has wrapped; the same for the life of the key."""

    async def wrap(self, subject: str, data_key: bytes) -> bytes:
        """The data key of `subject`, encrypted and bound to the subject."""

    async def unwrap(self, subject: str, wrapped: bytes) -> bytes:
        """The data key of `subject` again. Raises SealBroken."""


class MasterKey:
    """A master key of 32 bytes, held in memory."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("CARESPINE_MASTER_KEY must be 32 bytes, base64: `openssl rand -base64 32`")
        self.id = hashlib.sha256(b"carespine.master" + key).hexdigest()[:12]
        self._cipher = AESGCM(hashlib.sha256(b"wrap" + key).digest())
        self.first_hashing: Final = hashlib.sha256(b"hash" + key).digest()
        """What claims were hashed with while the hashing key had no row of its own."""

    async def wrap(self, subject: str, data_key: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data_key, subject.encode())

    async def unwrap(self, subject: str, wrapped: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], subject.encode())
        except InvalidTag as why:
            raise SealBroken(f"the wrapped key of {subject} does not open") from why


class KeyRing:
    """The master key in use and those retired; a file of keys is read again when it has changed."""

    def __init__(self, current: Master, *, retired: Sequence[Master] = (), file: Path | None = None) -> None:
        self.current = current
        self._by_id = {key.id: key for key in (current, *retired)}
        self._file = file
        self._read_at = None if file is None else _changed_at(file)

    @classmethod
    def of(cls, keys: Keys) -> KeyRing:
        """As the settings say. Raises SettingsError naming what is missing."""
        keys.sealing()
        current, *retired = (MasterKey(key.get_secret_value()) for key in keys.master_keys())
        return cls(current, retired=retired, file=keys.master_key_file)

    @property
    def ids(self) -> frozenset[str]:
        """All that are known."""
        return frozenset(self._by_id)

    def named(self, key_id: str) -> Master:
        """The key with this id, looked for once more in the file. Raises KeyNotKnown."""
        if key_id not in self._by_id:
            self.look()
        try:
            return self._by_id[key_id]
        except KeyError:
            raise KeyNotKnown(key_id) from None

    def look(self) -> None:
        """Read the file again if it has changed; a file that cannot be used as it is changes nothing."""
        if self._file is None or (changed := _changed_at(self._file)) in (None, self._read_at):
            return
        try:
            found = [MasterKey(key) for key in master_keys_in(self._file.read_text(encoding="ascii"))]
        except (OSError, ValueError):  # it is being written: the next look finds it whole
            return
        self.current, self._read_at = found[0], changed
        # Those known so far stay known: what they have wrapped may still be under way.
        self._by_id |= {key.id: key for key in found}


def keyed_hash(key: bytes, *parts: str) -> bytes:
    """Equal for equal values, and telling nothing without the key."""
    return hmac.digest(key, "\x1f".join(parts).encode(), "sha256")[:16]


def ring_of(given: str) -> KeyRing:
    """What a variable holds: keys, or the path of a file of them. Raises SettingsError."""
    keys = Keys.of_master_keys(given)
    if keys is None:
        raise SettingsError({"MASTER_KEY": "is not base64 of 32 bytes"})
    return KeyRing.of(keys)


def _changed_at(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None
