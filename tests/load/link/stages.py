"""What is measured of the link, one stage after the other; each answers its figures as JSON.

A delivery's delay is from the instant the message left its source to the instant the unit's end had it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.services.launcher import Services
from tests.load.link import mosquitto
from tests.load.link.catch_up import caught_up
from tests.load.link.children import Told
from tests.load.link.fleet import NOISY
from tests.load.link.network import Network
from tests.load.link.plan import Plan
from tests.load.link.portals import watched
from tests.load.link.sources import Job
from tests.load.processes import Meter, machine_busy_seconds, spent

Json = dict[str, Any]  # Any: JSON
PATIENCE = 20.0
"""Seconds in which what was sent has to arrive once sending has ended."""
SETTLE = 2.0
WATCH_EVERY = 0.1


async def connecting(network: Network, fleet: Told, plan: Plan) -> Json:
    """All units connect; how fast, and what each costs the bridge in memory."""
    await asyncio.sleep(SETTLE)
    empty = network.bridge_kib()
    meter, before = (one := network.meter()), one.read()
    told = await fleet.ask("connect", atOnce=plan.at_once)
    cpu = spent(before, meter.read())
    await asyncio.sleep(SETTLE)
    return {
        "units": plan.units,
        "seconds": told["seconds"],
        "connectsPerSecond": plan.units / told["seconds"],
        "welcomeMs": told["welcomeMs"],
        "emptyKib": empty,
        "kibPerUnit": (network.bridge_kib() - empty) / plan.units,
        "cpuMicroseconds": {name: seconds * 1e6 / plan.units for name, seconds in cpu.items()},
        "databaseConnections": await asyncio.to_thread(network.database_connections),
    }


async def delivering(kind: str, job: Job, fleet: Told, meter: Meter, folder: Path, *, missing: int = 0) -> Json:
    """One stretch of deliveries; `missing` of them are not measured."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    source = await Told.begin("sources", kind, path, log=folder / "sources.log")
    try:
        await fleet.ask("begin")
        before, busy, began = meter.read(), machine_busy_seconds(), time.monotonic()
        source.order(do="go")
        sent = await source.answer(job.seconds + 90)
        told = await fleet.ask("report", expected=job.count - missing, within=PATIENCE)
        lasted, busy = time.monotonic() - began, machine_busy_seconds() - busy
        cpu = spent(before, meter.read())
        await source.process.wait()
    finally:
        await source.stop()
    measured = cpu | {"source": sent["cpu_seconds"], "fleet": told["cpu_seconds"]}
    return {
        "rate": job.rate,
        "sent": sent["count"],
        "sentPerSecond": sent["count"] / sent["seconds"],
        "delivered": told["count"],
        "duplicates": told["duplicates"],
        "lost": sent["count"] - missing - told["count"],
        "ms": told["spread"],
        "cpuMicroseconds": {name: seconds * 1e6 / sent["count"] for name, seconds in measured.items()},
        "elsewhereCpus": max(0.0, busy - sum(measured.values())) / lasted,
    }


def job_of(network: Network, plan: Plan, *, rate: float | None = None, seconds: float | None = None) -> Job:
    """Deliveries at this installation."""
    return Job(
        units=plan.units,
        rate=rate or plan.rate,
        seconds=seconds or plan.seconds,
        rabbitmq_url=network.installed.rabbitmq_url,
        postgres_url=network.installed.postgres_url,
    )


async def calling(network: Network, plan: Plan) -> Json:
    """Live calls over HTTP."""
    meter, before = (one := network.meter()), one.read()
    found, driven = await network.calls(plan.calls_rate, plan.calls_seconds)
    cpu = spent(before, meter.read())
    return {
        "rate": plan.calls_rate,
        "answered": driven.accepted,
        "notAnswered": driven.refused + driven.broken,
        "firstRefusal": driven.first_refusal,
        "ms": asdict(found) if found else None,
        "cpuMicroseconds": {name: seconds * 1e6 / max(1, driven.accepted) for name, seconds in cpu.items()},
    }


async def storm(network: Network, fleet: Told) -> Json:
    """The bridge is killed with all its links and comes back; the units come back by themselves."""
    usual = await asyncio.to_thread(network.database_connections)
    bridge = network.processes["bridge"]
    await fleet.ask("comesBack")
    killed_at = time.monotonic()
    bridge.kill()
    bridge.start()
    meter, before = (one := network.meter()), one.read()
    async with _watching(network) as seen:
        await bridge.ready()
        ready_at = time.monotonic()
        told = await fleet.ask("recovered")
    cpu = spent(before, meter.read())
    return {
        "seconds": told["lastAt"] - killed_at,
        "bridgeReadySeconds": ready_at - killed_at,
        "secondsAfterReady": told["lastAt"] - ready_at,
        "attempts": told["attempts"],
        "databaseConnections": {"before": usual, "most": max(seen)},
        "cpuSeconds": cpu,
    }


@contextlib.asynccontextmanager
async def _watching(network: Network) -> AsyncIterator[list[int]]:
    """How many database connections there are, again and again while the block lasts."""
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(await asyncio.to_thread(network.database_connections))
            await asyncio.sleep(WATCH_EVERY)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def noisy(network: Network, fleet: Told, plan: Plan) -> Json:
    """Deliveries to everybody with and without three units that flood, do not read, and send huge frames."""
    rounds: dict[str, list[Json]] = {"without": [], "with": []}
    first = plan.units - NOISY
    job = replace(job_of(network, plan, rate=plan.noise_rate, seconds=max(2.0, plan.seconds / 2)), favourite=first + 1)
    unmeasured = sum(turn >= first for turn in job.turns())
    for _ in range(plan.noise_rounds):
        for name, on in (("without", False), ("with", True)):
            await fleet.ask("noise", on=on)
            await asyncio.sleep(SETTLE)
            rounds[name].append(
                await delivering("pushes", job, fleet, network.meter(), network.folder, missing=unmeasured)
            )
    await fleet.ask("noise", on=False)
    calm, loud = (min(one["ms"]["p99"] for one in rounds[name]) for name in ("without", "with"))
    return {"p99WithoutMs": calm, "p99WithMs": loud, "ratio": loud / calm, "rounds": rounds}


async def portals(plan: Plan, services: Services, folder: Path, say: Callable[[str], None]) -> Json:
    """Staff at their portals, while patients are checked in."""
    with _emptied(folder / "portals") as own:
        found = await watched(
            services,
            own,
            say,
            units=plan.portal_units,
            portals=plan.portals,
            per_second=plan.portal_rate,
            seconds=plan.seconds,
        )
    return asdict(found)


async def catching_up(plan: Plan, services: Services, folder: Path, say: Callable[[str], None]) -> Json:
    """A real agent that was away for long, beside others that stay live."""
    with _emptied(folder / "catch-up") as own:
        found = await caught_up(services, own, say, events=plan.catch_up_events)
    return {**asdict(found), "rate": found.rate, "cpuMicroseconds": found.cpu_microseconds()}


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def raw_limit(plan: Plan, folder: Path) -> Json:
    """A `websockets` server that does nothing but push the same frames and take their acknowledgements."""
    server = await Told.begin("raw_server", plan.units, plan.rate, plan.seconds, log=folder / "raw-server.log")
    meter = Meter({"server": server.pid})
    try:
        fleet = await Told.begin("fleet", "unit", plan.units, server.said["port"], log=folder / "fleet.log")
        try:
            before = meter.read()
            told = await fleet.ask("connect", atOnce=plan.at_once)
            connect = spent(before, meter.read())["server"]
            await fleet.ask("begin")
            before = meter.read()
            server.order(do="go")
            sent = await server.answer(plan.seconds + 60)
            got = await fleet.ask("report", expected=sent["count"], within=PATIENCE)
            used = spent(before, meter.read())["server"]
        finally:
            await fleet.stop()
    finally:
        await server.stop()
    return {
        "connectsPerSecond": plan.units / told["seconds"],
        "cpuMicrosecondsPerConnect": connect * 1e6 / plan.units,
        "delivered": got["count"],
        "ms": got["spread"],
        "cpuMicroseconds": {"server": used * 1e6 / sent["count"], "fleet": got["cpu_seconds"] * 1e6 / sent["count"]},
    }


async def mqtt(plan: Plan, folder: Path) -> Json:
    """Mosquitto on the same work: a publisher, as many persistent sessions, QoS 1 both ways."""
    try:
        program = await asyncio.to_thread(mosquitto.program)
    except mosquitto.NotObtainable as why:
        return {"skipped": str(why)}
    async with mosquitto.running(folder, program) as (broker, port):
        meter = Meter({"mosquitto": broker.pid})
        fleet = await Told.begin("fleet", "mqtt", plan.units, port, log=folder / "fleet.log")
        try:
            before = meter.read()
            told = await fleet.ask("connect", atOnce=plan.at_once)
            connect = spent(before, meter.read())["mosquitto"]
            job = Job(units=plan.units, rate=plan.rate, seconds=plan.seconds, port=port)
            found = await delivering("mqtt", job, fleet, meter, folder)
        finally:
            await fleet.stop()
    return found | {
        "connectsPerSecond": plan.units / told["seconds"],
        "cpuMicrosecondsPerConnect": connect * 1e6 / plan.units,
    }
