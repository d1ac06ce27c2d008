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
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import uvloop

from contracts.identity import Role
from infra.services.launcher import Services, ensure_services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.leash import leashed_folder
from tests.kit.processes import Started, installation
from tests.kit.waiting import eventually
from tests.load.figures import Spread, spread
from tests.load.link.watchers import Desk, Watcher
from tests.load.processes import Meter, Trouble, spent

ROLES: Final = (Role.DOCTOR, Role.NURSE)
AT_ONCE: Final = 50
"""Connects, and requests of the preparation, under way at a time."""
SETTLE_SECONDS: Final = 3.0
MISSED: Final = 200
"""Check-ins while the bridge is away."""
STORM_DEADLINE: Final = 60.0
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
    storm_seconds: float | None
    """From a killed bridge's return until every portal was back and told what it had missed; None: not tried."""


async def watched(
    services: Services,
    folder: Path,
    say: Say,
    *,
    units: int,
    portals: int,
    per_second: float,
    seconds: float,
    storm: bool = False,
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
            checked_in = int(per_second * seconds)
            patients_needed = checked_in + (MISSED if storm else 0)
            say(f"{units} units, {patients_needed} patients")
            await _all([desk.ask(Role.OPS, None, "/api/units", {"unitId": name, "name": "A clinic"}) for name in names])
            whose = list(itertools.islice(itertools.cycle(names), patients_needed))
            arrivals = list(zip(whose, await _all([desk.patient(name) for name in whose]), strict=True))
            return await _measured(
                desk, bridge, processes, arrivals[:checked_in], arrivals[checked_in:], names,
                portals=portals, per_second=per_second, say=say,
            )  # fmt: skip


async def _measured(
    desk: Desk,
    bridge: Started,
    processes: dict[str, Started],
    arrivals: Sequence[tuple[str, str]],
    meanwhile: Sequence[tuple[str, str]],
    names: Sequence[str],
    *,
    portals: int,
    per_second: float,
    say: Say,
) -> Watched:
    url = f"ws://127.0.0.1:{bridge.environment['CARESPINE_BRIDGE_PORT']}/portal"
    warm = await _connected(url, desk, names[0], ROLES[0])  # what the first portal brings with it is not its share
    await warm.close()
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
    whole = _took(desk, watchers)
    recorded = [seconds for watcher in watchers for seconds in watcher.since_recorded]
    answered = list(desk.answered)
    storm_seconds = None
    if meanwhile:
        say(f"the bridge is killed, {len(meanwhile)} check-ins, and it comes back")
        storm_seconds = await _storm(desk, bridge, watchers, meanwhile)

    known = len(_took(desk, watchers))
    expected = sum(unit_id == watcher.unit_id for unit_id, _ in desk.sent.values() for watcher in watchers)
    await asyncio.gather(*(watcher.close() for watcher in watchers))
    await asyncio.gather(*watching)
    if not whole:
        raise Trouble("no portal was told anything")
    return Watched(
        units=len(names),
        portals=portals,
        check_ins=len(desk.sent),
        notifications=known,
        missing=expected - known,
        doubled=sum(watcher.doubled for watcher in watchers),
        whole_way=spread(whole),
        from_recorded=spread(recorded),
        answered=spread(answered),
        kib_per_portal=kib,
        connects_per_second=connects,
        cpu_seconds=cpu,
        seconds=taken,
        storm_seconds=storm_seconds,
    )


def _took(desk: Desk, watchers: Sequence[Watcher]) -> list[float]:
    """From sending a check-in until a portal of its unit knew, for all of both that met."""
    return [
        at - desk.sent[encounter][1]
        for watcher in watchers
        for encounter, at in watcher.seen.items()
        if encounter in desk.sent
    ]


async def _connected(url: str, desk: Desk, unit_id: str, role: Role) -> Watcher:
    watcher = Watcher(url, desk.token(role, unit_id), unit_id)
    await watcher.connect()
    return watcher


async def _storm(
    desk: Desk, bridge: Started, watchers: Sequence[Watcher], arrivals: Sequence[tuple[str, str]]
) -> float:
    """Kill the bridge, check patients in meanwhile, start it again; how long it takes until all portals know."""
    before = set(desk.sent)
    bridge.kill()
    await _all([desk.check_in(unit_id, patient_id) for unit_id, patient_id in arrivals])
    bridge.start()
    await bridge.ready()
    began = time.perf_counter()
    missed: dict[str, set[str]] = {}
    for encounter, (unit_id, _) in desk.sent.items():
        if encounter not in before:
            missed.setdefault(unit_id, set()).add(encounter)
    await eventually(
        lambda: all(
            watcher.socket is not None and missed.get(watcher.unit_id, set()) <= watcher.seen.keys()
            for watcher in watchers
        ),
        within=STORM_DEADLINE,
        what="all portals are back and know",
    )
    return time.perf_counter() - began


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
    lines = [
        f"{found.portals} portals at {found.units} units, {found.check_ins} check-ins: {found.notifications}"
        f" notifications, {found.missing} missing, {found.doubled} doubled",
        told("check-in sent to notification on the portal", found.whole_way),
        told("recorded to notification on the portal", found.from_recorded),
        told("check-in sent to its answer", found.answered),
        f"  {found.kib_per_portal:.1f} KiB a portal, {found.connects_per_second:.0f} connects/s; of one core: {cpu}",
    ]
    if found.storm_seconds is not None:
        lines.append(
            f"  bridge killed: all back and told what they had missed {found.storm_seconds:.1f} s after its return"
        )
    return lines


def main() -> int:
    """Measure, print; 7 with --check when the floor is missed or a notification is."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.link.portals", description=__doc__)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--portals", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=50, help="check-ins a second altogether")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--storm", action="store_true", help="kill the bridge at the end: all come back and resume")
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
                    storm=options.storm,
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
