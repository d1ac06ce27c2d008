"""Postgres and RabbitMQ in containers, by whichever Docker-compatible engine answers: `infra/compose/compose.yaml`.

Used where private servers are not possible, or where CARESPINE_SERVICES=containers asks for it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.services.answers import why_postgres_is_silent, why_rabbitmq_is_silent
from infra.services.detached import Kept, ServiceTrouble, wait_until
from infra.services.ports import LOOPBACK, free_ports

COMPOSE_FILE = Path(__file__).parent.parent / "compose" / "compose.yaml"
ENGINES = (("docker", "compose"), ("podman", "compose"), ("docker-compose",), ("podman-compose",))
PULL_DEADLINE = 600
ANSWER_DEADLINE = 120


@dataclass(frozen=True)
class Keeping:
    """What must be the same at the next start, for ports and logins to stay valid."""

    project: str
    postgres_port: int
    rabbitmq_port: int
    management_port: int
    password: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CARESPINE_POSTGRES_PORT": str(self.postgres_port),
            "CARESPINE_RABBITMQ_PORT": str(self.rabbitmq_port),
            "CARESPINE_MANAGEMENT_PORT": str(self.management_port),
            "CARESPINE_SERVICE_PASSWORD": self.password,
        }


class ContainerServices:
    """The two containers of one folder, as one compose project."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "keeping.json"
        self._last_path = home / "last.json"
        self.postgres = Container(
            self,
            "postgres",
            lambda it: f"postgresql://carespine:{it.password}@{LOOPBACK}:{it.postgres_port}/carespine",
            why_postgres_is_silent,
        )
        self.rabbitmq = Container(
            self,
            "rabbitmq",
            lambda it: f"amqp://carespine:{it.password}@{LOOPBACK}:{it.rabbitmq_port}/",
            why_rabbitmq_is_silent,
        )

    def are_recorded(self) -> bool:
        """True if containers were started here and not taken down since."""
        return self._path.exists()

    def stop(self) -> None:
        """Take the project down; the volumes with the data stay."""
        self.compose("down", "--timeout", "30")
        self._path.rename(self._last_path)

    def recorded(self) -> Keeping | None:
        """Ports and logins of what was started here; None before the first start."""
        return Kept(self._path, Keeping).read()

    def ensure_recorded(self) -> Keeping:
        """Ports and logins, made up at the first start and the same at every later one."""
        if keeping := self.recorded():
            return keeping
        return Kept(self._path, Keeping).write(Kept(self._last_path, Keeping).read() or self._made_up())

    def _made_up(self) -> Keeping:
        postgres, rabbitmq, management = free_ports(3)
        digest = hashlib.sha256(str(self._home).encode()).hexdigest()[:10]
        return Keeping(f"carespine-{digest}", postgres, rabbitmq, management, secrets.token_urlsafe(24))

    def compose(self, *words: str) -> None:
        """Run one compose command with the engine that answers."""
        keeping = self.ensure_recorded()
        command = [*engine(), "--project-name", keeping.project, "--file", str(COMPOSE_FILE), *words]
        done = subprocess.run(
            command,
            env=os.environ | keeping.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PULL_DEADLINE,
        )
        if done.returncode != 0:
            raise ServiceTrouble(f"{' '.join([*engine(), *words])} failed: {done.stderr.strip()[-600:]}")


class Container:
    """One service of the compose project."""

    def __init__(
        self,
        project: ContainerServices,
        service: str,
        url_of: Callable[[Keeping], str],
        why_silent: Callable[[str], str | None],
    ) -> None:
        self._project = project
        self._service = service
        self._url_of = url_of
        self._why_silent = why_silent

    @property
    def url(self) -> str | None:
        keeping = self._project.recorded()
        return self._url_of(keeping) if keeping else None

    @property
    def pid(self) -> int | None:
        """Never known: the process belongs to the engine."""
        return None

    @property
    def management_url(self) -> str | None:
        """The URL of RabbitMQ's management interface; None before the first start."""
        keeping = self._project.recorded()
        return f"http://carespine:{keeping.password}@{LOOPBACK}:{keeping.management_port}" if keeping else None

    def is_running(self) -> bool:
        url = self.url
        return url is not None and self._why_silent(url) is None

    def start(self) -> str:
        if (url := self.url) and self._why_silent(url) is None:
            return url
        engine()  # before anything is written down: without an engine there is nothing to record
        url = self._url_of(self._project.ensure_recorded())
        self._project.compose("up", "--detach", self._service)
        wait_until(
            lambda: self._why_silent(url) is None,
            timeout=ANSWER_DEADLINE,
            what=f"a first login to the {self._service} container",
        )
        return url

    def stop(self) -> None:
        self._project.compose("stop", "--timeout", "30", self._service)

    def kill(self) -> None:
        self._project.compose("kill", self._service)

    def restart(self, *, kill: bool = False) -> str:
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()


def engine() -> list[str]:
    """The compose command of the first engine that answers; ServiceTrouble if none does."""
    seen = []
    for words in ENGINES:
        if not shutil.which(words[0]):
            continue
        probe = ["docker", "info"] if words[0].startswith("docker") else ["podman", "info"]
        for command in (probe, [*words, "version"]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
            except (OSError, subprocess.TimeoutExpired) as trouble:
                seen.append(f"{' '.join(command)}: {trouble}")
                break
            if done.returncode != 0:
                seen.append(
                    f"{' '.join(command)}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:200]}"
                )
                break
        else:
            return list(words)
    raise ServiceTrouble("no container engine answers" + (f" ({'; '.join(seen)})" if seen else ""))
