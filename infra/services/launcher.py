"""Finds or starts the Postgres and the RabbitMQ that a checkout works with.

In this order, for each of the two: the URL in CARESPINE_POSTGRES_URL / CARESPINE_RABBITMQ_URL; what an earlier start
left running in the same `var` folder; a private server of our own (`postgres`, `rabbitmq`); a container
(`containers`) where a private one is not possible. CARESPINE_SERVICES=containers asks for containers at once,
CARESPINE_SERVICES=private forbids them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from infra.services.answers import why_postgres_is_silent, why_rabbitmq_is_silent
from infra.services.containers import Container, ContainerServices
from infra.services.detached import ServiceTrouble
from infra.services.postgres import PrivatePostgres
from infra.services.rabbitmq import PrivateRabbitMQ
from infra.services.virtual_hosts import management_of

Origin = Literal["environment", "private", "container"]


class Server(Protocol):
    """One server of ours, whatever it runs in: what a test of faults and an orderly stop need of it."""

    @property
    def url(self) -> str | None: ...
    @property
    def pid(self) -> int | None: ...
    def is_running(self) -> bool: ...
    def start(self) -> str: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self, *, kill: bool = False) -> str: ...


@dataclass(frozen=True)
class Services:
    """The two services, ready. Stopping and restarting touches only those that are ours."""

    postgres_url: str
    rabbitmq_url: str
    management_url: str | None
    """RabbitMQ's management interface with its login; None where it does not answer."""
    postgres_origin: Origin
    rabbitmq_origin: Origin
    postgres: Server | None
    """None if it was given to us by URL: then it is not ours to stop."""
    rabbitmq: Server | None

    def stop(self) -> None:
        """Stop cleanly what is ours; data stays."""
        for server in (self.rabbitmq, self.postgres):
            if server:
                server.stop()

    def restart_postgres(self, *, kill: bool = False) -> None:
        """Stop (or kill -9) our Postgres and start it again on the same port with the same data."""
        _ours(self.postgres, "Postgres").restart(kill=kill)

    def restart_rabbitmq(self, *, kill: bool = False) -> None:
        """Stop (or kill -9) our RabbitMQ and start it again on the same port with the same data."""
        _ours(self.rabbitmq, "RabbitMQ").restart(kill=kill)

    def kill_postgres(self) -> None:
        _ours(self.postgres, "Postgres").kill()

    def start_postgres(self) -> None:
        _ours(self.postgres, "Postgres").start()


def ensure_services(var: Path, *, say: Callable[[str], None] | None = None) -> Services:
    """Find or start both services for the checkout whose state is kept in `var`; blocks until both let us in.

    `say` hears one line for each step that takes time; standard error is told where it is left out.
    """
    tell = say or _tell
    var.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(var):
        private_postgres, private_rabbitmq, containers = _places(var, tell)
        postgres_url = os.environ.get("CARESPINE_POSTGRES_URL")
        rabbitmq_url = os.environ.get("CARESPINE_RABBITMQ_URL")
        postgres: Server | None = None
        rabbitmq: Server | None = None
        if postgres_url:
            if reason := why_postgres_is_silent(postgres_url):
                raise ServiceTrouble(_remedies("Postgres", [f"CARESPINE_POSTGRES_URL is set, but there: {reason}"]))
        else:
            postgres = _first_that_starts("Postgres", private_postgres, containers.postgres, tell)
            postgres_url = postgres.start()
        if rabbitmq_url:
            if reason := why_rabbitmq_is_silent(rabbitmq_url):
                raise ServiceTrouble(_remedies("RabbitMQ", [f"CARESPINE_RABBITMQ_URL is set, but there: {reason}"]))
        else:
            rabbitmq = _first_that_starts("RabbitMQ", private_rabbitmq, containers.rabbitmq, tell)
            rabbitmq_url = rabbitmq.start()
        return _services(postgres_url, postgres, rabbitmq_url, rabbitmq)


@dataclass(frozen=True)
class RunningUrls:
    """Where the services are at this moment. Given URLs are passed on untried; ours stand here only if they answer."""

    postgres: str | None
    rabbitmq: str | None


def running_urls(var: Path) -> RunningUrls:
    """Look, without starting anything."""
    private_postgres, private_rabbitmq, containers = _places(var, _tell)
    postgres = _running(private_postgres, containers.postgres)
    rabbitmq = _running(private_rabbitmq, containers.rabbitmq)
    return RunningUrls(
        postgres=os.environ.get("CARESPINE_POSTGRES_URL") or (postgres.url if postgres else None),
        rabbitmq=os.environ.get("CARESPINE_RABBITMQ_URL") or (rabbitmq.url if rabbitmq else None),
    )


def stop_services(var: Path) -> list[str]:
    """Stop cleanly what an earlier start left running in `var`, never what a URL names; answers what was stopped."""
    private_postgres, private_rabbitmq, containers = _places(var, _tell)
    stopped = []
    for name, server in (("RabbitMQ", private_rabbitmq), ("Postgres", private_postgres)):
        if server.pid is not None:
            stopped.append(name)
        server.stop()  # also clears a stale record
    if containers.are_recorded():
        containers.stop()
        stopped.append("containers")
    return stopped


def _places(var: Path, say: Callable[[str], None]) -> tuple[PrivatePostgres, PrivateRabbitMQ, ContainerServices]:
    var = var.resolve()
    return (
        PrivatePostgres(var / "postgres"),
        PrivateRabbitMQ(var / "rabbitmq", say=say),
        ContainerServices(var / "containers"),
    )


def _first_that_starts(name: str, private: Server, container: Server, say: Callable[[str], None]) -> Server:
    """What runs already, else what can be started, in the order asked for; ServiceTrouble with the remedies if none."""
    if found := _running(private, container):
        return found
    asked = os.environ.get("CARESPINE_SERVICES", "")
    if asked not in ("", "private", "containers"):
        raise ServiceTrouble(f"CARESPINE_SERVICES is {asked!r}; it may be private, containers or unset")
    choices = {"private": [private], "containers": [container]}.get(asked, [private, container])
    reasons = []
    for server in choices:
        say(f"starting {name} ({'private' if server is private else 'container'})")
        try:
            server.start()
        except (ServiceTrouble, OSError) as trouble:
            reasons.append(str(trouble))
        else:
            return server
    raise ServiceTrouble(_remedies(name, reasons))


def _running(*servers: Server) -> Server | None:
    return next((server for server in servers if server.is_running()), None)


def _services(postgres_url: str, postgres: Server | None, rabbitmq_url: str, rabbitmq: Server | None) -> Services:
    management = (
        rabbitmq.management_url if isinstance(rabbitmq, PrivateRabbitMQ | Container) else management_of(rabbitmq_url)
    )
    return Services(
        postgres_url=postgres_url,
        rabbitmq_url=rabbitmq_url,
        management_url=management,
        postgres_origin=_origin(postgres),
        rabbitmq_origin=_origin(rabbitmq),
        postgres=postgres,
        rabbitmq=rabbitmq,
    )


def _origin(server: Server | None) -> Origin:
    if server is None:
        return "environment"
    return "private" if isinstance(server, PrivatePostgres | PrivateRabbitMQ) else "container"


def _ours(server: Server | None, name: str) -> Server:
    if server is None:
        raise ServiceTrouble(f"{name} was given by its URL: it is not ours to stop")
    return server


def _remedies(name: str, reasons: list[str]) -> str:
    variable, package = {
        "Postgres": ("CARESPINE_POSTGRES_URL", "postgresql (15 or newer)"),
        "RabbitMQ": ("CARESPINE_RABBITMQ_URL", "rabbitmq-server (3.10 or newer)"),
    }[name]
    return "\n".join(
        [
            f"No {name} could be used.",
            *(f"  seen: {reason}" for reason in reasons),
            "Any one of these helps:",
            f"  - point {variable} at a running {name};",
            f"  - install {package} with the system's package manager;",
            "  - install Docker or Podman with its compose command, and set CARESPINE_SERVICES=containers.",
        ]
    )


@contextlib.contextmanager
def _one_at_a_time(var: Path) -> Iterator[None]:
    """Two commands that start services in the same folder at once take turns."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (var / ".services.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
