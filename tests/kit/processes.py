"""Real processes of the system, started and killed by tests: one environment for all, logs kept, readiness awaited."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from contracts.identity import Role
from infra.services.ports import free_ports
from infra.tokens import generate_key_pair, mint
from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 2.0


@dataclass
class Started:
    """One process of ours."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    health_url: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again with the same environment when it ran before."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def running(self) -> bool:
        """Whether it still lives."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code. Whatever ended before it was told to is an error."""
        assert self.process is None or self.process.poll() in (None, 0), (
            f"{self.name} had ended:\n{self.log_text()[-3000:]}"
        )
        return self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: alive, holding everything, doing nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def ready(self, *, within: float = 90) -> None:
        """Wait until its own readiness says so."""
        async with httpx.AsyncClient(timeout=2) as client:

            async def asked() -> bool:
                if not self.running():
                    raise AssertionError(f"{self.name} ended:\n{self.log_text()[-3000:]}")
                try:
                    return (await client.get(self.health_url + "/health/ready")).status_code == 200
                except httpx.HTTPError:
                    return False

            await eventually(asked, within=within, what=f"{self.name} ready")

    def log_text(self) -> str:
        """Everything it has said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
            if how is signal.SIGTERM:
                self.process.send_signal(signal.SIGCONT)
        return self.process.wait(40)


@dataclass
class Installation:
    """The processes of one installation on one database and one virtual host."""

    postgres_url: str
    rabbitmq_url: str
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    """Environment for every process, besides the usual."""

    def __post_init__(self) -> None:
        self.private_key, self.public_key = generate_key_pair()
        self.master_key = os.urandom(32)
        self.started: dict[str, Started] = {}

    def token(self, role: Role = Role.STAFF, unit: str | None = None, ttl: int = 3600) -> str:
        """A bearer token of this installation."""
        return mint(self.private_key, role=Role(role), unit=unit, ttl=ttl)

    def start(self, module: str, *arguments: str, name: str | None = None, **environment: str) -> Started:
        """Start `python -m <module>`; ports and keys are its own or this installation's."""
        name = name or f"{module.replace('_', '-')}-{1 + sum(one.module == module for one in self.started.values())}"
        health, service = free_ports(2)
        everything = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CARESPINE_")},
            "CARESPINE_POSTGRES_URL": self.postgres_url,
            "CARESPINE_RABBITMQ_URL": self.rabbitmq_url,
            "CARESPINE_MODE": "development",
            "CARESPINE_MASTER_KEY": base64.b64encode(self.master_key).decode(),
            "CARESPINE_TOKEN_PRIVATE_KEY": self.private_key,
            "CARESPINE_TOKEN_PUBLIC_KEY": self.public_key,
            "CARESPINE_INSTANCE": name,
            "CARESPINE_HEALTH_PORT": str(health),
            "CARESPINE_HTTP_PORT": str(service),
            "CARESPINE_BRIDGE_PORT": str(service),
            "CARESPINE_LEASE_SECONDS": str(LEASE_SECONDS),
            "CARESPINE_VAR": str(self.folder / "var"),
            **self.extra,
            **environment,
        }
        started = Started(
            name, module, arguments, everything, self.folder / f"{name}.log", f"http://127.0.0.1:{health}"
        )
        self.started[name] = started
        started.start()
        return started

    def end(self) -> None:
        """Stop what still runs."""
        for one in self.started.values():
            if one.running():
                one.kill()


@contextmanager
def installation(postgres_url: str, rabbitmq_url: str, folder: Path, **extra: str) -> Iterator[Installation]:
    """An installation whose processes end with the block; `extra` is environment for all of them."""
    installed = Installation(postgres_url, rabbitmq_url, folder, extra)
    try:
        yield installed
    finally:
        installed.end()
