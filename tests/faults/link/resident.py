"""Agents that live in the test's own process, so that a test can set their clocks, their disks and their patience."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from contracts.identity import Role
from tests.faults.link.conftest import Scene
from unit_agent.agent import Options, running
from unit_agent.credential import Credential, KeyCredential
from unit_agent.enrolment import enrol
from unit_agent.link_state import Shared


@asynccontextmanager
async def resident_agents(
    scene: Scene,
    *,
    folder: Path | None = None,
    credentials: Mapping[str, Credential] | None = None,
) -> AsyncIterator[dict[str, Shared]]:
    """Agents for the scene's units while the block lasts, by unit; `credentials`: None, a long-lived token each."""
    async with AsyncExitStack() as closing:
        agents = {}
        for unit_id in scene.units:
            options = Options(
                url=scene.line.url,
                credential=credentials[unit_id] if credentials else Credential(scene.token(unit_id)),
                unit_id=unit_id,
                folder=(folder or scene.folder) / unit_id,
                http_port=0,
                webhook=f"{scene.site.url}/{unit_id}",
            )
            agents[unit_id] = await closing.enter_async_context(running(options, version="test"))
        yield agents


async def own_keys(scene: Scene, *, ahead: timedelta = timedelta()) -> dict[str, Credential]:
    """Each agent enrols with a key of its own and gets short tokens with it; by a clock that may be wrong."""
    credentials: dict[str, Credential] = {}
    for unit_id in scene.units:
        answer = await scene.client.post(
            f"{scene.network.gateway}/api/units/{unit_id}/enrolment-codes",
            json={},
            headers={"Authorization": f"Bearer {scene.network.installed.token(Role.OPS)}", "Prefer": "wait=30"},
        )
        assert answer.status_code in (200, 201), answer.text
        folder = scene.folder / unit_id
        await enrol(gateway_url=scene.network.gateway, unit_id=unit_id, code=answer.json()["code"], folder=folder)
        credentials[unit_id] = KeyCredential(folder, clock=lambda: time.time() + ahead.total_seconds())
    return credentials


def set_agents_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Every clock that agents in this process read goes that much ahead (or behind); the centre's are others'."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + ahead

    for name, module in list(sys.modules.items()):
        if name.startswith("unit_agent.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Shifted)
