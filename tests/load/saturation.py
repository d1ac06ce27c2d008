"""One contestant under load, and how it is followed until the last effect of the last check-in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.load.figures import Flow
from tests.load.generator import Driven, Job
from tests.load.processes import Meter, Trouble, drive, machine_busy_seconds, spent

CONNECTIONS = 64
DRAIN_DEADLINE = 120.0
NO_PROGRESS_DEADLINE = 15.0
_BY_HAND = """
DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
        AND coalesce(array_position(reloptions, 'autovacuum_enabled=off') IS NULL, true)
    LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name); END LOOP;
END $$
"""


@dataclass
class Contestant:
    """What a load needs to know of who is measured."""

    name: str
    port: int
    pids: Mapping[str, int | None]
    finished: Callable[[], int]
    """Check-ins that have gone all the way, ever (stored, projected, published)."""
    postgres_url: str
    """Its database, kept tidy between loads."""
    next: int = 0
    """Each request is sent once, so every load begins where the last one ended."""


@dataclass(frozen=True)
class Load:
    """How a contestant is driven."""

    requests: Path
    seconds: float
    rate: float | None = None
    """Requests per second; None: as fast as 64 connections go."""
    keep: bool = False


@dataclass(frozen=True)
class Measured:
    """What came of a load, and how much of the machine others took meanwhile (a disturbed measurement shows here)."""

    flow: Flow
    driven: Driven
    elsewhere: float
    """CPUs used by anything that is not part of the measurement, on average."""


async def measure(contestant: Contestant, load: Load, folder: Path) -> Measured:
    """Drive one load and follow it to its end."""
    job = Job(
        host="127.0.0.1", port=contestant.port, connections=CONNECTIONS, requests=str(load.requests),
        first=contestant.next, seconds=load.seconds, rate=load.rate, keep=load.keep,
    )  # fmt: skip
    await asyncio.to_thread(_tidy, contestant.postgres_url)
    meter = Meter(contestant.pids)
    already = contestant.finished()
    before, own, busy, clock = meter.read(), time.process_time(), machine_busy_seconds(), time.monotonic()
    driven = await drive(job, folder)
    behind = driven.accepted - (contestant.finished() - already)
    contestant.next += driven.sent
    if driven.accepted == 0:
        raise Trouble(f"{contestant.name} accepted nothing; its first answer: {driven.first_refusal}")
    drained_at = await _drained(contestant, already + driven.accepted)
    cpu = spent(before, meter.read())
    cpu["watcher"] = time.process_time() - own
    cpu["generator"] = driven.cpu_seconds
    elsewhere = machine_busy_seconds() - busy - sum(cpu.values())
    flow = Flow(
        accepted=driven.accepted,
        refused=driven.refused + driven.broken,
        accept_seconds=driven.stopped_at - driven.started_at,
        drained_seconds=max(drained_at, driven.stopped_at) - driven.started_at,
        backlog=max(0, behind),
        cpu_seconds=cpu,
    )
    return Measured(flow, driven, max(0.0, elsewhere) / (time.monotonic() - clock))


def _tidy(postgres_url: str) -> None:
    """What autovacuum would do, between loads: left to itself it takes seconds of CPU out of one of them, by chance."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(_BY_HAND)
        connection.execute("VACUUM ANALYZE")


async def _drained(contestant: Contestant, expected: int) -> float:
    """The instant at which the last accepted check-in had gone all the way."""
    started = progress_at = time.monotonic()
    last = -1
    while (finished := contestant.finished()) < expected:
        now = time.monotonic()
        if finished != last:
            last, progress_at = finished, now
        if now - progress_at > NO_PROGRESS_DEADLINE or now - started > DRAIN_DEADLINE:
            raise Trouble(f"{contestant.name}: {expected - finished} accepted check-ins never arrived")
        await asyncio.sleep(0.005)
    return time.monotonic()
