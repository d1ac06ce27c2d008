"""Where an agent keeps its key: in its data folder, readable by its owner alone; it never leaves the machine.

`unit-key.pem` is the key in use, `unit-key.next.pem` one that the network may know already but that is not in use yet,
so a crash at any moment of an enrolment or rotation loses neither. `enrolment.json` says with whom it is registered.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.ids import UnitId
from infra.unit_keys import KeyNotUsable, SigningKey

KEY: Final = "unit-key.pem"
NEXT: Final = "unit-key.next.pem"
ENROLMENT: Final = "enrolment.json"


class KeyFileUnusable(Exception):
    """A key file is there and cannot be used; the message says what to do and shows nothing of it."""


class Enrolment(BaseModel):
    """With whom the key is registered."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    unit_id: UnitId
    key_id: str
    gateway_url: str


class KeyFolder:
    """The agent's keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.key_file: Final = folder / KEY

    def key(self) -> SigningKey | None:
        """The key in use; None: this agent has not enrolled. Raises KeyFileUnusable."""
        return self._read(KEY)

    def next_key(self) -> SigningKey | None:
        """The key that is to be used next; None: none was begun with. Raises KeyFileUnusable."""
        return self._read(NEXT)

    def begin(self) -> SigningKey:
        """The key that is to be used next, made now unless it was before; on disk before anybody hears of it."""
        found = self.next_key()
        if found is not None:
            return found
        key = SigningKey.generate()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(self._folder / NEXT, key.pem())
        return key

    def adopt(self, enrolment: Enrolment) -> None:
        """The next key is the one in use from now on: the network knows it."""
        # The key goes last: before it is in place, the next start begins where this one ended.
        _write_private(self._folder / ENROLMENT, enrolment.model_dump_json())
        os.replace(self._folder / NEXT, self.key_file)
        _settle(self._folder)

    def give_up_next(self) -> None:
        """The next key will never be used."""
        (self._folder / NEXT).unlink(missing_ok=True)

    def enrolment(self) -> Enrolment | None:
        """With whom the key is registered; None: with nobody. Raises KeyFileUnusable."""
        path = self._folder / ENROLMENT
        try:
            return Enrolment.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise KeyFileUnusable(f"{path} cannot be read: enrol again") from None

    def _read(self, name: str) -> SigningKey | None:
        path = self._folder / name
        try:
            if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise KeyFileUnusable(f"others may read {path}: chmod 600 it, or better, enrol again with a new key")
            return SigningKey.read(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, KeyNotUsable) as why:
            raise KeyFileUnusable(f"{path} cannot be used ({type(why).__name__}): enrol again") from None


def _write_private(path: Path, text: str) -> None:
    """On disk for good, readable by us alone; a reader sees the old text or the new, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Make renames in the folder outlast a power cut; Windows has no way to ask, and does so by itself."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
