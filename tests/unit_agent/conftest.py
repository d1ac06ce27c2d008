"""Agents as processes of their own, on a real bridge with the centre in the test's hand."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.envelope import Json
from tests.kit.processes import ROOT, Installation, Started, installation
from tests.kit.waiting import eventually
from tests.projections.logbook import MASTER_KEY
from tests.ws_bridge.centre import Centre, centre_of
from tests.ws_bridge.conftest import Bridges


@dataclass
class Agent:
    """One agent, alive or not; its store outlives it."""

    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, again when it ran before; its local API answers."""
        (self.folder / "local-api.json").unlink(missing_ok=True)
        self._spawn()
        await eventually(
            lambda: (self.folder / "local-api.json").exists() and self._address().get("url"),
            within=30,
            what="the local API",
        )

    def _spawn(self) -> None:
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Kill it, or ask it to stop."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(20)

    def _address(self) -> dict[str, Any]:  # Any: JSON
        try:
            found: dict[str, Any] = json.loads((self.folder / "local-api.json").read_text())
        except ValueError:
            return {}
        return found

    async def ask(self, method: str, path: str, body: Json | None = None, **headers: str) -> httpx.Response:
        """Ask the local API as the site's software does."""
        token = (self.folder / "local-token").read_text()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(base_url=self._address()["url"], trust_env=False) as client:
            return await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}", **named})

    async def status(self) -> Json:
        """What `/status` says."""
        answer: Json = (await self.ask("GET", "/status")).json()
        return answer

    async def is_live(self) -> bool:
        """Whether it is caught up and linked."""
        return bool((await self.status())["link"]["state"] == "live")

    def rows(self, query: str) -> list[tuple[Any, ...]]:  # Any: what the query says
        """Look into the store as an auditor does, while the agent uses it."""
        with sqlite3.connect(f"file:{self.folder / 'agent.db'}?mode=ro", uri=True) as database:
            found = database.execute(query).fetchall()
        database.close()
        return found

    def position(self) -> int:
        """What is on its disk."""
        [(position,)] = self.rows("SELECT coalesce(max(position), 0) FROM facts")
        return int(position)


NewAgent = Callable[..., Agent]


@pytest.fixture
def bridges(postgres: str, rabbitmq: str, tmp_path: Path) -> Iterator[Bridges]:
    """An installation without a bridge yet."""
    with installation(postgres, rabbitmq, tmp_path) as installed:
        installed.master_key = MASTER_KEY
        yield Bridges(installed)


@pytest.fixture
def installed(bridges: Bridges) -> Installation:
    """Its processes and keys."""
    return bridges.installed


@pytest.fixture
async def centre(postgres: str, rabbitmq: str) -> AsyncIterator[Centre]:
    """The centre."""
    async with centre_of(postgres, rabbitmq) as one:
        yield one


@pytest.fixture
async def bridge(bridges: Bridges, centre: Centre) -> Started:
    """One bridge, ready."""
    return await bridges.start()


@pytest.fixture
def agent_at(bridges: Bridges, tmp_path: Path) -> Iterator[NewAgent]:
    """Makes agents: (url, unit id, further arguments)."""
    agents: list[Agent] = []

    def make(url: str, unit_id: str, *arguments: str) -> Agent:
        folder = tmp_path / f"agent-{unit_id}-{len(agents)}"
        folder.mkdir(mode=0o700)
        credential = tmp_path / f"{unit_id}.token"
        credential.write_text(bridges.token(unit_id))
        agent = Agent(
            folder,
            [
                sys.executable, "-m", "unit_agent", "--url", url, "--credential", f"@{credential}",
                "--data", str(folder), "--http-port", "0", *arguments,
            ],
        )  # fmt: skip
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        if agent.process is not None and agent.process.poll() is None:
            agent.end()
