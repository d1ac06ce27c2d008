"""Fixtures every test may ask for; what they do is in `tests.kit`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from infra.services.launcher import Services, ensure_services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.leash import leashed_folder


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Postgres and RabbitMQ for the whole run: those the environment names, else ones that end with it."""
    given = all(os.environ.get(f"CARESPINE_{name}_URL") for name in ("POSTGRES", "RABBITMQ"))
    if os.environ.get("CARESPINE_SERVICES") == "containers" and not given:
        from tests.kit.containers import contained_services  # late: the library asks for an engine when it is imported

        with contained_services() as contained:
            yield contained
    else:
        with leashed_folder() as folder:
            yield ensure_services(folder)


@pytest.fixture(scope="session")
def breakable_services(services: Services) -> Iterator[Services]:
    """Services that a test may restart and kill: ours, even where the environment names others for everything else."""
    if services.postgres and services.rabbitmq:
        yield services
        return
    with pytest.MonkeyPatch.context() as patch, leashed_folder() as folder:
        for name in ("CARESPINE_POSTGRES_URL", "CARESPINE_RABBITMQ_URL"):
            patch.delenv(name, raising=False)
        ours = ensure_services(folder)
        patch.undo()
        yield ours


@pytest.fixture
def postgres(services: Services) -> Iterator[str]:
    """The URL of a fresh database with this release's schema."""
    with fresh_database(services.postgres_url) as url:
        yield url


@pytest.fixture
def rabbitmq(services: Services) -> Iterator[str]:
    """The AMQP URL of a fresh, empty virtual host."""
    with fresh_virtual_host(services) as url:
        yield url
