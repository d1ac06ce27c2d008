"""An installation to import into, and the `carespine import` command against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from contracts.identity import Role
from tests.kit.processes import Installation, Started

CARESPINE = [sys.executable, "-c", "from infra.cli.app import main; main()"]
COMMAND_SECONDS = 240


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    summary: dict[str, Any]  # Any: JSON
    said: str
    """On standard error."""


@dataclass
class Network:
    """A gateway, handlers and projections, and the folder that commands keep their files in."""

    installation: Installation
    gateway: Started
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.environment['CARESPINE_HTTP_PORT']}"

    @property
    def report(self) -> list[dict[str, Any]]:  # Any: JSON
        """What the last import refused."""
        return [json.loads(line) for line in (self.folder / "import-report.jsonl").read_text().splitlines()]

    def begin_import(self, *arguments: str | Path, role: Role = Role.STAFF) -> subprocess.Popen[str]:
        """Start `carespine import … --json`."""
        environment = os.environ | {"CARESPINE_VAR": str(self.folder), "CARESPINE_URL": self.url}
        environment["CARESPINE_TOKEN"] = self.installation.token(role)
        words = [*CARESPINE, "import", *(str(word) for word in arguments), "--json"]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end_import(self, running: subprocess.Popen[str]) -> Done:
        """Wait for it."""
        out, said = running.communicate(timeout=COMMAND_SECONDS)
        return Done(running.returncode, json.loads(out) if out else {}, said)

    def imports(self, *arguments: str | Path, role: Role = Role.STAFF) -> Done:
        """Run `carespine import … --json` to its end."""
        return self.end_import(self.begin_import(*arguments, role=role))

    async def every(self, path: str, **query: str) -> list[dict[str, Any]]:  # Any: JSON
        """All items of a list of the read API, page by page."""
        headers = {"Authorization": f"Bearer {self.installation.token()}"}
        items: list[dict[str, Any]] = []  # Any: JSON
        cursor: dict[str, str] = {}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as client:
            while True:
                answer = await client.get(path, params={"limit": "200", **query, **cursor})
                page = answer.raise_for_status().json()
                items += page["items"]
                if page["nextCursor"] is None:
                    return items
                cursor = {"cursor": page["nextCursor"]}


@asynccontextmanager
async def network(installed: Installation, folder: Path, **for_handlers: str) -> AsyncIterator[Network]:
    """The processes an import needs, ready; `for_handlers` is environment that only the handlers get."""
    gateway = installed.start("gateway")
    others = [installed.start("command_handlers", **for_handlers), installed.start("projections")]
    for process in (gateway, *others):
        await process.ready(within=60)
    yield Network(installed, gateway, folder)
