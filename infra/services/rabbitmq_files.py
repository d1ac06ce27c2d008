"""Where the programs of a RabbitMQ server are: installed, or unpacked from the distribution's own packages.

Unpacking needs no root: package lists and archives go to folders of ours, nothing is installed, and the result is
kept in the user's cache, so that only the first time takes longer than a moment. Starting the server is `rabbitmq`'s
business.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.services.detached import ServiceTrouble

SERVER_PACKAGE = "rabbitmq-server"
DOWNLOAD_DEADLINE = 300


@dataclass(frozen=True)
class ServerFiles:
    """The programs of one RabbitMQ server and of the Erlang it runs on."""

    scripts: Path
    """The folder of the real `rabbitmq-server` script (not a distribution's wrapper, which insists on its own user)."""
    erlang: Path
    """The folder of `erl`."""
    epmd: Path
    libraries: Path | None = None
    """Shared libraries unpacked beside the server; None where the machine's own do."""


def find_server_files(cache: Path, say: Callable[[str], None]) -> ServerFiles:
    """The installed server, else the one unpacked earlier, else one unpacked now."""
    found = _installed() or _unpacked(_place(cache))
    if found:
        return found
    if not all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg")):
        raise ServiceTrouble(
            "no rabbitmq-server is installed, and this machine has no apt-get to fetch its packages with"
        )
    return _fetch(_place(cache), say)


def user_cache() -> Path:
    """Where unpacked programs are kept: CARESPINE_CACHE, else the user's cache folder, else the temporary folder."""
    if given := os.environ.get("CARESPINE_CACHE"):
        return Path(given)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carespine"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"carespine-cache-{os.getuid()}"
    return home if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / f"carespine-cache-{os.getuid()}"


def _place(cache: Path) -> Path:
    """One folder for each distribution, release and processor."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return cache / "rabbitmq" / f"{release.get('ID', 'unknown')}-{release.get('VERSION_ID', '0')}-{platform.machine()}"


def _installed() -> ServerFiles | None:
    path = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin"]
    )
    scripts = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    if server := shutil.which("rabbitmq-server", path=path):
        scripts.append(Path(server).resolve().parent)
    erl = shutil.which("erl", path=path)
    for folder in scripts:
        if erl and (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-env").exists():
            epmd = _epmd(Path(erl).resolve().parent.parent) or shutil.which("epmd", path=path)
            if epmd:
                return ServerFiles(scripts=folder, erlang=Path(erl).parent, epmd=Path(epmd))
    return None


def _epmd(erlang_root: Path) -> Path | None:
    return next(iter(sorted(erlang_root.glob("erts-*/bin/epmd"))), None)


def _unpacked(place: Path) -> ServerFiles | None:
    erlang = place / "usr" / "lib" / "erlang"
    scripts = sorted((place / "usr" / "lib" / "rabbitmq" / "lib").glob("rabbitmq_server-*/sbin"))
    epmd = _epmd(erlang)
    if not scripts or not epmd:
        return None
    libraries = next(iter(sorted((place / "usr" / "lib").glob("*-linux-gnu*"))), None)
    return ServerFiles(scripts=scripts[-1], erlang=erlang / "bin", epmd=epmd, libraries=libraries)


def _fetch(place: Path, say: Callable[[str], None]) -> ServerFiles:
    """Download the packages into a draft folder beside the place, unpack them, move the draft in when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=place.parent))
    try:
        say("fetching RabbitMQ from the distribution's packages (about 35 MB, once)")
        archives = _download(draft / "apt")
        say(f"unpacking {len(archives)} packages")
        root = draft / "root"
        for archive in archives:
            _run(["dpkg", "-x", str(archive), str(root)], cwd=draft)
        erl = root / "usr" / "lib" / "erlang" / "bin" / "erl"
        final = place / "usr" / "lib" / "erlang"
        erl.write_text(re.sub(r"^(\s*)ROOTDIR=.*$", rf'\1ROOTDIR="{final}"', erl.read_text(), flags=re.MULTILINE))
        root.chmod(0o755)
        try:
            root.rename(place)
        except OSError:  # somebody else was quicker: theirs is as good
            if _unpacked(place) is None:
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    files = _unpacked(place)
    if files is None:
        raise ServiceTrouble(f"the distribution's packages hold no RabbitMQ server where one was expected ({place})")
    return files


def _download(apt: Path) -> list[Path]:
    lists, cache, archives = apt / "lists", apt / "cache", apt / "archives"
    for folder in (lists / "partial", cache / "archives" / "partial", archives):
        folder.mkdir(parents=True)
    options = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User="]
    # Errors are let pass: a third-party source that is down is no reason, and a missing list shows in the next step.
    subprocess.run(
        ["apt-get", *options, "-qq", "update"],  # noqa: S607 - found on PATH on purpose
        capture_output=True,
        check=False,
        timeout=DOWNLOAD_DEADLINE,
    )
    only_needed = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    closure = _run(["apt-cache", *options, "depends", "--recurse", *only_needed, SERVER_PACKAGE], cwd=archives)
    wanted = {line for line in closure.split("\n") if re.fullmatch(rf"erlang-[\w.+-]+|{SERVER_PACKAGE}", line)}
    # What the machine lacks besides: of that only shared libraries matter here.
    missing = _run(["apt-get", *options, "-s", "install", "--no-install-recommends", SERVER_PACKAGE], cwd=archives)
    wanted |= {name for name in re.findall(r"^Inst (\S+)", missing, flags=re.MULTILINE) if name.startswith("lib")}
    _run(["apt-get", *options, "-qq", "download", *sorted(wanted)], cwd=archives)
    return sorted(archives.glob("*.deb"))


def _run(command: list[str], *, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_DEADLINE, cwd=cwd)
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise ServiceTrouble(
            f"{' '.join([command[0], *[w for w in command[1:] if not w.startswith('-o')][:2]])} failed: {complaint}"
        )
    return done.stdout
