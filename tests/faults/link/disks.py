"""A disk that a test can fill: a file system of its own where it may be mounted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE = "96m"


@dataclass(frozen=True)
class SmallDisk:
    """Mounted at `folder`."""

    folder: Path

    def fill(self) -> None:
        """Not a byte is free."""
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            for piece in (1 << 20, 1 << 12, 1):
                while True:
                    try:
                        ballast.write(b"\0" * piece)
                    except OSError as full:
                        if full.errno != errno.ENOSPC:
                            raise
                        break

    def make_room(self) -> None:
        """All of that is free again."""
        (self.folder / "ballast").unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount one while the block lasts; skips the test where that is not allowed."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir(mode=0o700)
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([umount, "-l", str(folder)], capture_output=True, check=False)
