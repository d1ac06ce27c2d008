"""The demo's units: real agents as their own processes, or many in one (the fleet), each with its own folder and store.

Starts, kills and stops them, and gives commands at a unit through its agent's local API. What is in their stores is
`infra.demo.units`' to read.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from contracts.envelope import Json
from contracts.ids import keyed_command_id
from infra.demo.ledger import Ledger
from infra.demo.units import UnitStore, read_position, read_store
from infra.services.detached import Identity, end, spawn, write_private

STOP_SECONDS = 15.0
START_SECONDS = 30.0


class Agents:
    """One process with the agents of one unit or of several."""

    def __init__(
        self, name: str, folder: Path, tokens: Mapping[str, str], *, bridge_urls: Sequence[str], site_url: str
    ) -> None:
        """`tokens` by unit id; the units take turns at the bridges. Everything they write is in `folder`."""
        self.name = name
        self.units = list(tokens)
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._members = folder / f"{name}.json"
        self._identity: Identity | None = None
        members = []
        for number, (unit_id, token) in enumerate(tokens.items()):
            credential = folder / unit_id / "credential"
            write_private(credential, token)
            members.append(
                {
                    "credential": f"@{credential}",
                    "url": bridge_urls[number % len(bridge_urls)],
                    "data": str(folder / unit_id),
                    "httpPort": 0 if len(tokens) == 1 else None,
                    "webhook": f"{site_url}/orders",
                }
            )
        write_private(self._members, json.dumps(members))

    @property
    def is_running(self) -> bool:
        return self._identity is not None and self._identity.process() is not None

    def start(self) -> None:
        """Start the process, which finds its stores where it left them."""
        command = [sys.executable, "-m", "unit_agent"]
        command += self._own_arguments() if len(self.units) == 1 else ["--fleet", str(self._members)]
        self._identity = spawn(command, log=self._log)
        self._identity.write(self._folder / f"{self.name}.pid")

    def kill(self) -> int:
        """Kill -9; answers the process id that is no more."""
        return self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def store(self, unit_id: str) -> UnitStore:
        """What stands on a unit's disk now."""
        return read_store(self._folder / unit_id / "agent.db")

    def position(self, unit_id: str) -> int:
        """Through where the unit has its feed on disk; 0 before its first start."""
        return read_position(self._folder / unit_id / "agent.db")

    def submit(self, type_name: str, payload: Json, *, key: str, ledger: Ledger) -> Json:
        """Give a command at the unit, as the site's software does; whether the link is up makes no difference.

        Answers what the agent said: the command's id and those of what it brings into being.
        """
        (unit_id,) = self.units
        entry = ledger.sent(keyed_command_id("agent", unit_id, key), unit_id, type_name, payload, via="unit")
        url, token = self._local_api(unit_id)
        answer = httpx.post(
            f"{url}/commands",
            json={"type": type_name, "payload": payload, "subject": "reception"},
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
            timeout=10,
            trust_env=False,
        ).raise_for_status()
        told: Json = answer.json()
        entry.taken = told["commandId"] == str(entry.command_id)
        return told

    def _local_api(self, unit_id: str) -> tuple[str, str]:
        """Address and token of the local API of the process that runs now."""
        folder = self._folder / unit_id
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                told: dict[str, Any] = json.loads((folder / "local-api.json").read_text())  # Any: JSON
                if self._identity and told["pid"] == self._identity.pid:
                    return str(told["url"]), (folder / "local-token").read_text().strip()
            except (OSError, ValueError):
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"the agent of {unit_id} does not serve its local API; see {self._log}")
            time.sleep(0.05)

    def _own_arguments(self) -> list[str]:
        (member,) = json.loads(self._members.read_text())
        return ["--url", member["url"], "--credential", member["credential"], "--data", member["data"],
                "--http-port", "0", "--webhook", member["webhook"]]  # fmt: skip

    def _end(self, by: signal.Signals) -> int:
        identity, self._identity = self._identity, None
        if identity is None:
            return 0
        end(identity, by=by, timeout=STOP_SECONDS)
        return identity.pid


def end_leftovers(folder: Path) -> None:
    """End agents that an earlier demo left behind because it was killed itself."""
    for path in folder.glob("*.pid"):
        if identity := Identity.read(path):
            end(identity, by=signal.SIGTERM, timeout=STOP_SECONDS)
        path.unlink()


def behind(agents: Sequence[Agents], heads: Mapping[str, int]) -> list[str]:
    """The units whose disk does not have its feed up to its head yet."""
    return [
        unit_id for process in agents for unit_id in process.units if process.position(unit_id) < heads.get(unit_id, 0)
    ]
