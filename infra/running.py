"""The processes of one installation as they are now: started, looked at, waited for, stopped.

Knows what the supervisor recorded and asks every process whether it is ready; starts and ends the supervisor. Services
(Postgres, RabbitMQ) are `infra.services`' business.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from infra.installation import Places, Plan
from infra.services.detached import Identity, ServiceTrouble, end, last_lines, spawn, wait_until

STOP_DEADLINE = 240.0
"""Longer than every process in turn being given its time by the supervisor."""
HOPELESS_RESTARTS = 5
"""A process that ended this often before it was ready once will not get ready by waiting."""


class StartFailed(Exception):
    """A process ends again and again instead of getting ready; says which, and the end of its log."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process of ours."""

    name: str
    pid: int | None
    """None while it is not running."""
    state: str
    """ready, unready (it says itself that it cannot do its work), silent (runs, does not answer), crashed, stopped."""
    health_url: str
    restarts: int
    why: str = ""
    """What it said of itself, if it is not ready."""


def supervisor(places: Places) -> Identity | None:
    """The supervisor if it runs; a record of one that is gone counts for nothing."""
    recorded = _state(places).get("supervisor")
    identity = Identity(**recorded) if recorded else None
    return identity if identity and identity.process() else None


def processes(places: Places) -> list[ProcessStatus]:
    """Every process of the plan and what it answers right now; empty if no supervisor runs."""
    plan = Plan.read(places.plan)
    if plan is None or supervisor(places) is None:
        return []
    recorded = {entry["name"]: entry for entry in _state(places).get("processes", [])}
    urls = {program.name: program.health_url for program in plan.programs}
    with ThreadPoolExecutor(max_workers=len(urls)) as threads:
        return list(threads.map(lambda name: _look_at(recorded.get(name, {}), name, urls[name]), urls))


def start(places: Places, plan: Plan) -> None:
    """Start the processes of the plan, after ending what an earlier supervisor may have left behind."""
    stop(places)
    plan.write(places.plan)
    places.logs.mkdir(parents=True, exist_ok=True)
    log = places.logs / "supervisor.log"
    command: list[str] = [sys.executable, "-m", "infra.supervisor", str(places.var)]
    identity = spawn(command, log=log)

    def recorded() -> bool:
        if identity.process() is None:
            raise ServiceTrouble(f"the supervisor did not start; the end of {log}:\n{last_lines(log)}")
        return supervisor(places) is not None

    wait_until(recorded, timeout=30, what="the start of the supervisor")


def wait_until_ready(
    places: Places, *, timeout: float, hear: Callable[[ProcessStatus], None] | None = None
) -> list[ProcessStatus]:
    """Wait until every process is ready. TimeoutError names the process that is not and its failed check; StartFailed
    comes before the time is over where a process ends again and again.

    `hear` is told of each process once, when it is ready.
    """
    deadline = time.monotonic() + timeout
    told: set[str] = set()
    while True:
        seen = processes(places)
        for process in seen:
            if process.state == "ready" and process.name not in told:
                told.add(process.name)
                if hear:
                    hear(process)
        behind = [process for process in seen if process.state != "ready"]
        if seen and not behind:
            return seen
        hopeless = [process for process in behind if process.restarts >= HOPELESS_RESTARTS]
        if hopeless or not seen:
            raise StartFailed("\n".join(_explain(places, process) for process in hopeless) or "the supervisor is gone")
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(_explain(places, process) for process in behind))
        time.sleep(0.1)


def stop(places: Places) -> bool:
    """End the supervisor and all its processes, cleanly; True if there was anything to end."""
    recorded = _state(places)
    running = supervisor(places)
    if running:
        end(running, by=signal.SIGTERM, timeout=STOP_DEADLINE)
    orphans = [Identity(entry["pid"], entry["started"]) for entry in recorded.get("processes", []) if entry["pid"]]
    alive = [orphan for orphan in reversed(orphans) if orphan.process()]
    for orphan in alive:  # those of a supervisor that was killed itself
        end(orphan, by=signal.SIGTERM, timeout=30)
    places.state.unlink(missing_ok=True)
    return bool(running or alive)


def _state(places: Places) -> dict[str, Any]:  # Any: the JSON the supervisor writes
    try:
        content: dict[str, Any] = json.loads(places.state.read_text())
    except (OSError, ValueError):
        return {}
    return content


def _look_at(recorded: dict[str, Any], name: str, health_url: str) -> ProcessStatus:
    identity = Identity(recorded["pid"], recorded["started"]) if recorded.get("pid") else None
    process = identity.process() if identity else None
    state, why = ("silent", "") if process else ("crashed", f"exit code {recorded.get('last_exit')}")
    if process:
        state, why = _ask(health_url)
    return ProcessStatus(
        name=name,
        pid=process.pid if process else None,
        state=state,
        health_url=health_url,
        restarts=recorded.get("restarts", 0),
        why=why,
    )


def _ask(health_url: str) -> tuple[str, str]:
    # Plain http.client: asked ten times a second while a whole installation starts, it should cost next to nothing.
    connection = HTTPConnection(urlsplit(health_url).netloc, timeout=3)
    try:
        connection.request("GET", "/health/ready?verbose=1")
        answer = connection.getresponse()
        said = answer.read(2000).decode(errors="replace")
    except (OSError, HTTPException) as trouble:
        return "silent", type(trouble).__name__
    finally:
        connection.close()
    return ("ready", "") if answer.status == 200 else ("unready", said)


def _explain(places: Places, process: ProcessStatus) -> str:
    log = places.logs / f"{process.name}.log"
    said = {
        "unready": f"it says: {process.why}",
        "silent": f"it does not answer at {process.health_url} ({process.why})",
        "crashed": f"it ended with {process.why} and is started again and again",
    }.get(process.state, process.state)
    return f"{process.name} is not ready: {said}\nthe end of {log}:\n{last_lines(log)}"
