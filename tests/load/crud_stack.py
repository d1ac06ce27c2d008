"""The peer: a check-in as the sources do it (peers/crud_stack), installed when first needed, run as one process."""

from __future__ import annotations

import asyncio
import filecmp
import json
import secrets
import shutil
import time
from pathlib import Path

import jwt
import psycopg

from tests.load.processes import Child, Trouble

SOURCE = Path(__file__).parent / "peers" / "crud_stack"
READY = ".installed"
INSTALL_DEADLINE = 180.0
POOL = 20
"""Connections to Postgres, twice the default of node-postgres; 40 bring no more."""


def why_not() -> str | None:
    """None if the peer can run here, else the reason."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


async def install(folder: Path) -> None:
    """Its packages as its lock says, into `folder`; nothing is done where that has happened before."""
    if _copied(folder):
        return
    npm = shutil.which("npm") or "npm"
    child = await Child.start(
        "npm",
        [
            npm,
            "--prefix",
            folder,
            "ci",
            "--omit=dev",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ],
        log=folder / "npm.log",
    )
    try:
        async with asyncio.timeout(INSTALL_DEADLINE):
            code = await child.process.wait()
    except TimeoutError:
        raise Trouble(f"npm did not end within {INSTALL_DEADLINE:.0f} s") from None
    finally:
        await child.stop()
    if code != 0:
        raise Trouble(f"npm could not install the peer{child.last_words()}")
    (folder / READY).touch()


def _copied(folder: Path) -> bool:
    """Bring its files to `folder`; True if the packages its lock names are installed there already."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, ready = folder / "package-lock.json", folder / READY
    is_current = ready.exists() and lock.exists() and filecmp.cmp(lock, SOURCE / "package-lock.json", shallow=False)
    for name in ("package.json", "package-lock.json", "server.js"):
        shutil.copyfile(SOURCE / name, folder / name)
    if not is_current:
        ready.unlink(missing_ok=True)
    return is_current


class CrudStack:
    """The peer, running."""

    path = "/api/check-in"

    def __init__(self, child: Child, port: int, secret: str, postgres_url: str) -> None:
        self.child = child
        self.port = port
        self._secret = secret
        self._postgres_url = postgres_url

    @classmethod
    async def start(cls, folder: Path, postgres_url: str) -> CrudStack:
        """Start it over an empty database of its own."""
        secret = secrets.token_hex(32)
        child = await Child.start(
            "node",
            [shutil.which("node") or "node", folder / "server.js"],
            log=folder / "server.log",
            env={
                "NODE_ENV": "production",
                "CRUD_STACK_SECRET": secret,
                "CRUD_STACK_POSTGRES_URL": postgres_url,
                "CRUD_STACK_POOL": str(POOL),
            },
            listen=True,
        )
        try:
            port: int = json.loads(await child.line(20))["port"]
        except BaseException:
            await child.stop()
            raise
        return cls(child, port, secret, postgres_url)

    def token(self, unit: str) -> str:
        """A receptionist's token, as the sources sign theirs."""
        now = int(time.time())
        claims = {"sub": f"desk-{unit}", "role": "receptionist", "unit": unit, "iat": now, "exp": now + 3600}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def stored(self) -> int:
        """Check-ins that are there whole: visit, queue entry and notification."""
        with psycopg.connect(self._postgres_url) as connection:
            row = connection.execute(
                "SELECT least((SELECT count(*) FROM encounters), (SELECT count(*) FROM queue_entries),"
                " (SELECT count(*) FROM notifications))"
            ).fetchone()
        assert row
        return int(row[0])

    async def stop(self) -> None:
        await self.child.stop()


def prepare(postgres_url: str) -> None:
    """Its tables, into an empty database."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute((SOURCE / "schema.sql").read_text())
