"""Eclipse Mosquitto as the comparison: installed, or unpacked without root from the distribution's own packages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from infra.services.ports import free_ports, is_listening
from infra.services.rabbitmq_files import user_cache
from tests.load.processes import Child, Trouble

PACKAGE = "mosquitto"
DEADLINE = 300
START_DEADLINE = 15.0


class NotObtainable(Exception):
    """The message says why; the comparison is left out."""


@dataclass(frozen=True)
class Program:
    """Where it is, and the shared libraries that were unpacked beside it."""

    path: Path
    libraries: Path | None


def program() -> Program:
    """The installed one, else one unpacked earlier, else one unpacked now. Raises NotObtainable."""
    found = shutil.which(PACKAGE, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found:
        return Program(Path(found), None)
    place = user_cache() / PACKAGE / platform.machine()
    if not (place / "usr" / "sbin" / PACKAGE).exists():
        _fetch(place)
    libraries = next(iter(sorted((place / "usr" / "lib").glob("*-linux-gnu*"))), None)
    return Program(place / "usr" / "sbin" / PACKAGE, libraries)


def _fetch(place: Path) -> None:
    if not all(shutil.which(one) for one in ("apt-get", "dpkg")):
        raise NotObtainable("mosquitto is not installed, and this machine has no apt-get to fetch its packages with")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=place.parent) as draft:
        lists, cache, archives, root = (Path(draft) / name for name in ("lists", "cache", "archives", "root"))
        for folder in (lists / "partial", cache / "archives" / "partial", archives):
            folder.mkdir(parents=True)
        options = [
            f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=",
        ]  # fmt: skip
        with contextlib.suppress(NotObtainable):  # one source that is down is no reason: a missing list shows below
            _run(["apt-get", *options, "-qq", "update"], archives)
        wanted = _run(["apt-get", *options, "-s", "install", "--no-install-recommends", PACKAGE], archives)
        names = [name for name in re.findall(r"^Inst (\S+)", wanted, re.MULTILINE) if name.startswith(("lib", PACKAGE))]
        _run(["apt-get", *options, "-qq", "download", *names], archives)
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(root)], archives)
        if not (root / "usr" / "sbin" / PACKAGE).exists():
            raise NotObtainable("the distribution's packages hold no mosquitto where one was expected")
        root.chmod(0o755)
        with contextlib.suppress(OSError):  # somebody else was quicker: theirs is as good
            root.rename(place)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=folder)
    if done.returncode != 0:
        raise NotObtainable(f"{command[0]} failed: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
    return done.stdout


@contextlib.asynccontextmanager
async def running(folder: Path, program: Program) -> AsyncIterator[tuple[Child, int]]:
    """A broker on loopback that keeps sessions and unacknowledged messages; gives its process and port."""
    port = free_ports(1)[0]
    configuration = folder / "mosquitto.conf"
    data = folder / "mosquitto"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    account = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {data}/\n"
        f"autosave_interval 30\nmax_connections -1\nmax_inflight_messages 1000\nmax_queued_messages 0\n"
        f"set_tcp_nodelay true\nlog_type warning\n{account}"
    )
    libraries = {"LD_LIBRARY_PATH": str(program.libraries)} if program.libraries else {}
    child = await Child.start(PACKAGE, [program.path, "-c", configuration], log=folder / "mosquitto.log", env=libraries)
    try:
        async with asyncio.timeout(START_DEADLINE):
            while not is_listening(port):
                if child.process.returncode is not None:
                    raise Trouble(f"mosquitto ended{child.last_words()}")
                await asyncio.sleep(0.05)
        yield child, port
    finally:
        await child.stop()
