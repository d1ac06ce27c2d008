"""A real bridge on real services, with the centre in the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contracts.identity import Role
from tests.kit.processes import Installation, Started, installation
from tests.projections.logbook import MASTER_KEY
from tests.ws_bridge.centre import Centre, centre_of


class Bridges:
    """Bridge processes of one installation."""

    def __init__(self, installed: Installation) -> None:
        self.installed = installed

    async def start(self, **environment: str) -> Started:
        """One more bridge, ready."""
        bridge = self.installed.start("ws_bridge", **environment)
        await bridge.ready()
        return bridge

    def token(self, unit_id: str, *, ttl: int = 3600, role: Role = Role.UNIT) -> str:
        """A unit's own token."""
        return self.installed.token(role, unit_id, ttl=ttl)


def url_of(bridge: Started, path: str = "/unit") -> str:
    """Where its units connect."""
    return f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}{path}"


@pytest.fixture
def bridges(postgres: str, rabbitmq: str, tmp_path: Path) -> Iterator[Bridges]:
    """An installation without a bridge yet."""
    with installation(postgres, rabbitmq, tmp_path) as installed:
        installed.master_key = MASTER_KEY
        yield Bridges(installed)


@pytest.fixture
async def centre(postgres: str, rabbitmq: str) -> AsyncIterator[Centre]:
    """The centre."""
    async with centre_of(postgres, rabbitmq) as one:
        yield one


@pytest.fixture
async def bridge(bridges: Bridges, centre: Centre) -> Started:
    """One bridge, ready."""
    return await bridges.start()
