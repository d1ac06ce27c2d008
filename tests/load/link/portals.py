"""`python -m tests.load.link.portals`: patients check in at 500 units while 1,000 staff portals watch one bridge.

Real processes, Postgres and RabbitMQ of their own. Of each notification two times are taken at each portal that gets
it: since the check-in was sent over HTTP (the whole way of a command, and of what became of it), and since it was
recorded in the log. The portals and the callers share this process, so its own load is in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import psutil
import uvloop
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from contracts.identity import Role
from infra.services.launcher import Services, ensure_services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.leash import leashed_folder
from tests.kit.portals import opened
from tests.kit.processes import Installation, Started, installation
from tests.load.figures import Spread, spread
from tests.load.processes import Meter, Trouble, spent

TOPICS: Final = ("queue-board", "patient-status", "notifications")
ROLES: Final = (Role.DOCTOR, Role.NURSE)
AT_ONCE: Final = 50
"""Connects, and requests of the preparation, under way at a time."""
SETTLE_SECONDS: Final = 3.0
FLOOR_P99: Final = 50.0
"""Milliseconds."""
FAILED, FLOOR_MISSED = 1, 7

Say = Callable[[str], None]


@dataclass(frozen=True)
class Watched:
    """What one run came to."""

    units: int
    portals: int
    check_ins: int
    notifications: int
    missing: int
    """Notifications that a portal of the unit was not told."""
    doubled: int
    whole_way: Spread
    """From sending the check-in to the portal."""
    from_recorded: Spread
    """From the log to the portal."""
    answered: Spread
    """From sending the check-in to its HTTP answer."""
    kib_per_portal: float
    """The bridge's memory, what it keeps of the units included, without the kernel's."""
    connects_per_second: float
    cpu_seconds: dict[str, float]
    """By process while patients checked in."""
    seconds: float


@dataclass
class Watcher:
    """One portal: notes when it is told of whom."""

    socket: ClientConnection
    unit_id: str
    seen: dict[str, float] = field(default_factory=dict)
    """encounter id -> when, by the steady clock"""
    since_recorded: list[float] = field(default_factory=list)
    doubled: int = 0

    async def watch(self) -> None:
        """Until the socket is closed."""
        try:
            while True:
                frame = orjson.loads(await self.socket.recv())
                if frame["type"] == "ping":
                    await self.socket.send('{"type":"pong"}')
                elif frame.get("event") == "notification":
                    encounter_id = frame["data"]["encounterId"]
                    self.doubled += encounter_id in self.seen
                    self.seen[encounter_id] = time.perf_counter()
                    self.since_recorded.append(time.time() - datetime.fromisoformat(frame["at"]).timestamp())
        except ConnectionClosed:
            pass


@dataclass
class Desk:
    """Sends commands over HTTP."""

    client: httpx.AsyncClient
    installed: Installation
    sent: dict[str, tuple[str, float]] = field(default_factory=dict)
    """encounter id -> (unit, when its check-in was sent)"""
    answered: list[float] = field(default_factory=list)
    tokens: dict[tuple[Role, str | None], str] = field(default_factory=dict)

    async def ask(
        self, role: Role, unit_id: str | None, path: str, body: dict[str, Any]
    ) -> dict[str, Any]:  # Any: JSON
        """A command and its result."""
        answer = await self.client.post(
            path, content=orjson.dumps(body), headers={**_JSON, "Authorization": f"Bearer {self.token(role, unit_id)}"}
        )
        if answer.status_code not in (200, 201):
            raise Trouble(f"{path}: {answer.status_code} {answer.text[:200]}")
        result: dict[str, Any] = answer.json()  # Any: JSON
        return result

    async def check_in(self, unit_id: str, patient_id: str) -> None:
        """A patient arrives."""
        began = time.perf_counter()
        body = {"patientId": patient_id, "department": "general", "priority": "routine"}
        answer = await self.ask(Role.STAFF, unit_id, "/api/check-in", body)
        self.answered.append(time.perf_counter() - began)
        self.sent[answer["encounterId"]] = unit_id, began

    async def patient(self, unit_id: str) -> str:
        """A patient is registered; the id."""
        person = {"firstName": "Ana", "lastName": "Example", "dateOfBirth": "1984-02-29",
                  "medicalRecordNumber": f"MRN-{secrets.token_hex(8)}"}  # fmt: skip
        patient_id: str = (await self.ask(Role.STAFF, unit_id, "/api/patients", person))["id"]
        return patient_id

    def token(self, role: Role, unit_id: str | None) -> str:
        """A bearer token, signed once."""
        known = self.tokens.get((role, unit_id))
        if known is None:
            known = self.tokens[role, unit_id] = self.installed.token(role, unit_id)
        return known


_JSON: Final = {"Content-Type": "application/json"}


async def watched(
    services: Services, folder: Path, say: Say, *, units: int, portals: int, per_second: float, seconds: float
) -> Watched:
    """Measure one run."""
    with (
        fresh_database(services.postgres_url) as postgres_url,
        fresh_virtual_host(services) as rabbitmq_url,
        installation(postgres_url, rabbitmq_url, folder) as installed,
    ):
        processes = {
            name: installed.start(name) for name in ("gateway", "command_handlers", "projections", "ws_bridge")
        }
        for process in processes.values():
            await process.ready()
        gateway, bridge = processes["gateway"], processes["ws_bridge"]
        async with AsyncExitStack() as closing:
            client = await closing.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{gateway.environment['CARESPINE_HTTP_PORT']}",
                    timeout=30,
                    limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=2.0),
                )
            )
            desk = Desk(client, installed)
            names = [f"clinic-{number:03d}" for number in range(units)]
            say(f"{units} units, {int(per_second * seconds)} patients")
            await _all([desk.ask(Role.OPS, None, "/api/units", {"unitId": name, "name": "A clinic"}) for name in names])
            whose = list(itertools.islice(itertools.cycle(names), int(per_second * seconds)))
            patients = await _all([desk.patient(name) for name in whose])
            return await _measured(
                desk, bridge, processes, list(zip(whose, patients, strict=True)), names,
                portals=portals, per_second=per_second, say=say,
            )  # fmt: skip


async def _measured(
    desk: Desk,
    bridge: Started,
    processes: dict[str, Started],
    arrivals: Sequence[tuple[str, str]],
    names: Sequence[str],
    *,
    portals: int,
    per_second: float,
    say: Say,
) -> Watched:
    url = f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}/portal"
    warm = await _connected(url, desk, names[0], ROLES[0])  # what the first portal brings with it is not its share
    await warm.socket.close()
    await asyncio.sleep(SETTLE_SECONDS)
    before = _memory(bridge.pid)
    say(f"{portals} portals")
    began = time.perf_counter()
    watchers = await _all(
        [
            _connected(url, desk, names[number % len(names)], ROLES[number // len(names) % len(ROLES)])
            for number in range(portals)
        ]
    )
    connects = portals / (time.perf_counter() - began)
    watching = [asyncio.create_task(watcher.watch()) for watcher in watchers]
    await asyncio.sleep(SETTLE_SECONDS)
    kib = (_memory(bridge.pid) - before) / portals / 1024
    gc.collect()
    gc.freeze()

    say(f"{len(arrivals)} check-ins at {per_second:g} a second")
    meter = Meter({name: process.pid for name, process in processes.items()})
    used, began = meter.read(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, (unit_id, patient_id) in enumerate(arrivals):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            tasks.create_task(desk.check_in(unit_id, patient_id))
    await asyncio.sleep(SETTLE_SECONDS)
    taken = time.perf_counter() - began
    cpu = spent(used, meter.read())

    at_unit: dict[str, list[Watcher]] = {}
    for watcher in watchers:
        at_unit.setdefault(watcher.unit_id, []).append(watcher)
    expected = [(encounter, at, one) for encounter, (unit, at) in desk.sent.items() for one in at_unit.get(unit, [])]
    whole = [one.seen[encounter] - at for encounter, at, one in expected if encounter in one.seen]
    recorded = [seconds for watcher in watchers for seconds in watcher.since_recorded]
    for watcher in watchers:
        await watcher.socket.close()
    await asyncio.gather(*watching)
    if not whole:
        raise Trouble("no portal was told anything")
    return Watched(
        units=len(names),
        portals=portals,
        check_ins=len(desk.sent),
        notifications=len(whole),
        missing=len(expected) - len(whole),
        doubled=sum(watcher.doubled for watcher in watchers),
        whole_way=spread(whole),
        from_recorded=spread(recorded),
        answered=spread(desk.answered),
        kib_per_portal=kib,
        connects_per_second=connects,
        cpu_seconds=cpu,
        seconds=taken,
    )


async def _connected(url: str, desk: Desk, unit_id: str, role: Role) -> Watcher:
    socket = await opened(url, desk.token(role, unit_id))
    await socket.send(orjson.dumps({"type": "hello", "topics": TOPICS}).decode())
    welcome = orjson.loads(await socket.recv())
    if welcome["type"] != "welcome":
        raise Trouble(f"no welcome but {welcome}")
    return Watcher(socket, unit_id)


async def _all(work: Sequence[Any]) -> list[Any]:  # Any: whatever the coroutines return
    """Everything, so many at a time, in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Any) -> Any:  # Any: as above
        async with gate:
            return await coroutine

    return list(await asyncio.gather(*(one(coroutine) for coroutine in work)))


def _memory(pid: int) -> int:
    rss: int = psutil.Process(pid).memory_info().rss
    return rss


def as_text(found: Watched) -> list[str]:
    """For people."""

    def told(what: str, one: Spread) -> str:
        return f"  {what}: p50 {one.p50:.1f} ms, p99 {one.p99:.1f} ms, worst {one.worst:.0f} ms ({one.count})"

    cpu = ", ".join(f"{name} {seconds / found.seconds:.0%}" for name, seconds in found.cpu_seconds.items())
    return [
        f"{found.portals} portals at {found.units} units, {found.check_ins} check-ins: {found.notifications}"
        f" notifications, {found.missing} missing, {found.doubled} doubled",
        told("check-in sent to notification on the portal", found.whole_way),
        told("recorded to notification on the portal", found.from_recorded),
        told("check-in sent to its answer", found.answered),
        f"  {found.kib_per_portal:.1f} KiB a portal, {found.connects_per_second:.0f} connects/s; of one core: {cpu}",
    ]


def main() -> int:
    """Measure, print; 7 with --check when the floor is missed or a notification is."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.link.portals", description=__doc__)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--portals", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=50, help="check-ins a second altogether")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--check", action="store_true", help=f"leave with {FLOOR_MISSED} above {FLOOR_P99:g} ms p99")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with leashed_folder() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            found = runner.run(
                watched(
                    ensure_services(folder),
                    folder,
                    say,
                    units=options.units,
                    portals=options.portals,
                    per_second=options.per_second,
                    seconds=options.seconds,
                )
            )
        except Trouble as trouble:
            say(str(trouble))
            return FAILED
    sys.stdout.write("\n".join(as_text(found)) + "\n")
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    is_missed = found.whole_way.p99 > FLOOR_P99 or found.missing or found.doubled
    return FLOOR_MISSED if options.check and is_missed else 0


if __name__ == "__main__":
    sys.exit(main())
