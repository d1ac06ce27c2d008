"""Agents that live in the test's own process, so that a test can set their clocks, their disks and their patience."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from tests.faults.link.conftest import Scene
from unit_agent.agent import Options, running
from unit_agent.credential import Credential
from unit_agent.link_state import Shared


@asynccontextmanager
async def resident_agents(
    scene: Scene, *, folder: Path | None = None, credentials: Mapping[str, Path] | None = None
) -> AsyncIterator[dict[str, Shared]]:
    """Agents for the scene's units while the block lasts, by unit; `credentials` are files that somebody renews."""
    async with AsyncExitStack() as closing:
        agents = {}
        for unit_id in scene.units:
            options = Options(
                url=scene.line.url,
                credential=Credential(f"@{credentials[unit_id]}" if credentials else scene.token(unit_id)),
                unit_id=unit_id,
                folder=(folder or scene.folder) / unit_id,
                http_port=0,
                webhook=f"{scene.site.url}/{unit_id}",
            )
            agents[unit_id] = await closing.enter_async_context(running(options, version="test"))
        yield agents


def set_agents_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Every clock that agents in this process read goes that much ahead (or behind); the centre's are others'."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + ahead

    for name, module in list(sys.modules.items()):
        if name.startswith("unit_agent.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Shifted)
