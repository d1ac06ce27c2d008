"""Real handler processes on a fresh database and virtual host, and a caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.kit.commands import Caller
from tests.kit.processes import Installation, installation


@pytest.fixture
def installed(postgres: str, rabbitmq: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation without processes yet."""
    with installation(postgres, rabbitmq, tmp_path) as one:
        yield one


@pytest.fixture
async def caller(rabbitmq: str) -> AsyncIterator[Caller]:
    """Somebody who gives commands."""
    async with Caller(rabbitmq) as caller:
        yield caller


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """To look at what is there."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection
