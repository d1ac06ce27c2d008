"""Postgres and RabbitMQ for a test run in containers, by testcontainers; asked for with CARESPINE_SERVICES=containers.

The images are those of `infra/compose/compose.yaml`, and like them can be named by CARESPINE_POSTGRES_IMAGE and
CARESPINE_RABBITMQ_IMAGE.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator

from testcontainers.core.container import DockerContainer

from infra.services.answers import why_postgres_is_silent, why_rabbitmq_is_silent
from infra.services.containers import COMPOSE_FILE
from infra.services.detached import wait_until
from infra.services.launcher import Services
from infra.services.ports import LOOPBACK, free_ports


class ContainedServer:
    """One server in a container of its own; stopping keeps the container, and with it the data."""

    def __init__(self, container: DockerContainer, url: str, why_silent: Callable[[str], str | None]) -> None:
        self._container = container
        self._why_silent = why_silent
        self.url: str | None = url

    @property
    def pid(self) -> int | None:
        """Never known: the process belongs to the engine."""
        return None

    def is_running(self) -> bool:
        return self._why_silent(self.url or "") is None

    def start(self) -> str:
        wrapped = self._container._container  # None before the first start; there is no public way to ask
        if wrapped is None:
            self._container.start()
        else:
            wrapped.start()
        wait_until(self.is_running, timeout=120, what="a first login to the container")
        return self.url or ""

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def restart(self, *, kill: bool = False) -> str:
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def remove(self) -> None:
        """Take the container away with all it holds."""
        self._container.stop()


@contextlib.contextmanager
def contained_services() -> Iterator[Services]:
    """Both servers, gone afterwards."""
    password = secrets.token_urlsafe(24)
    postgres_port, rabbitmq_port, management_port = free_ports(3)
    postgres = ContainedServer(
        on_loopback(
            DockerContainer(image("postgres"))
            .with_envs(POSTGRES_USER="carespine", POSTGRES_DB="carespine", POSTGRES_PASSWORD=password)
            .with_command(["postgres", "-cmax_connections=300"]),
            {5432: postgres_port},
        ),
        f"postgresql://carespine:{password}@{LOOPBACK}:{postgres_port}/carespine",
        why_postgres_is_silent,
    )
    rabbitmq = ContainedServer(
        on_loopback(
            DockerContainer(image("rabbitmq"))
            .with_envs(RABBITMQ_DEFAULT_USER="carespine", RABBITMQ_DEFAULT_PASS=password)
            .with_kwargs(hostname="carespine"),  # a node finds its data again by its name
            {5672: rabbitmq_port, 15672: management_port},
        ),
        f"amqp://carespine:{password}@{LOOPBACK}:{rabbitmq_port}/",
        why_rabbitmq_is_silent,
    )
    with contextlib.ExitStack() as stack:
        for server in (postgres, rabbitmq):
            stack.callback(server.remove)
            server.start()
        yield Services(
            postgres_url=postgres.url or "",
            rabbitmq_url=rabbitmq.url or "",
            management_url=f"http://carespine:{password}@{LOOPBACK}:{management_port}",
            postgres_origin="container",
            rabbitmq_origin="container",
            postgres=postgres,
            rabbitmq=rabbitmq,
        )


def on_loopback(container: DockerContainer, ports: dict[int, int]) -> DockerContainer:
    """Publish ports of the container for this machine alone; the library's own way publishes them for everybody."""
    bindings = {f"{inside}/tcp": (LOOPBACK, outside) for inside, outside in ports.items()}
    container.ports.update(bindings)  # type: ignore[arg-type]  # its engine takes an address, its annotation does not
    return container


def image(service: str) -> str:
    """The image of a service: the one named by the environment, else the compose file's."""
    variable = f"CARESPINE_{service.upper()}_IMAGE"
    found = re.search(rf"\$\{{{variable}:-(\S+)\}}", COMPOSE_FILE.read_text())
    assert found, f"the compose file names no image for {service}"
    return os.environ.get(variable) or found.group(1)
