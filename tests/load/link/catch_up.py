"""`python -m tests.load.link.catch_up`: an agent that was away for 100,000 events catches up, others stay live.

Real processes: a bridge, an agent with an empty store, Postgres and RabbitMQ of their own. The others' facts are
written and pushed at a steady pace, before and during the catch-up; of each, the time from push to receipt is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from contracts.identity import Role
from infra.services.launcher import Services, ensure_services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.leash import leashed_folder
from tests.kit.processes import Installation, installation
from tests.kit.waiting import eventually
from tests.load.figures import Spread, spread
from tests.load.link import history
from tests.load.processes import Child, Meter, Trouble, listener_of, spent
from tests.projections.logbook import MASTER_KEY
from tests.ws_bridge.centre import Centre, centre_of, patient
from tests.ws_bridge.conftest import url_of
from tests.ws_bridge.raw_unit import RawUnit, linked

UNIT: Final = "away"
DEADLINE: Final = 120.0
FLOOR: Final = 5_000
"""Events per second."""
FAILED, FLOOR_MISSED = 1, 7

Say = Callable[[str], None]


@dataclass(frozen=True)
class CaughtUp:
    """What one catch-up came to."""

    events: int
    seconds: float
    """From the agent's welcome until the last event was on its disk."""
    in_order: bool
    """The agent has every event, each once, and they came in the order of the log."""
    cpu_seconds: dict[str, float]
    """By process, over those seconds."""
    live_before: Spread | None
    """From push to receipt at the other units, while nobody catches up; None without other units."""
    live_during: Spread | None
    """The same while the one catches up."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    def cpu_microseconds(self) -> dict[str, float]:
        """CPU per event by process."""
        return {name: seconds * 1e6 / self.events for name, seconds in self.cpu_seconds.items()}


@dataclass
class Others:
    """Units that stay live: facts are pushed to one after the other, and each receipt is timed."""

    centre: Centre
    units: list[RawUnit]
    per_second: float
    took: list[float] = field(default_factory=list)

    async def go_on(self) -> None:
        """A fact for the next unit, at the pace, until cancelled."""
        clock = asyncio.get_running_loop().time
        due = clock()
        number = 0
        while True:
            unit = self.units[number % len(self.units)]
            number += 1
            before = clock()
            position = await self.centre.happens(unit.unit_id, patient(), pushed=False)
            pushed = clock()
            await self.centre.push(unit.unit_id, after=unit.position, through=position)
            await unit.knows(position, within=30)
            self.took.append(clock() - pushed)
            due = max(due + 1 / self.per_second, before)
            await asyncio.sleep(max(0.0, due - clock()))


async def caught_up(
    services: Services, folder: Path, say: Say, *, events: int = 100_000, others: int = 20, per_second: float = 50
) -> CaughtUp:
    """Measure one catch-up of `events`, with so many other units at so many facts per second altogether."""
    with (
        fresh_database(services.postgres_url) as postgres_url,
        fresh_virtual_host(services) as rabbitmq_url,
        installation(postgres_url, rabbitmq_url, folder) as installed,
    ):
        installed.master_key = MASTER_KEY
        async with centre_of(postgres_url, rabbitmq_url) as centre:
            bridge = installed.start("ws_bridge")
            await bridge.ready()
            await centre.unit(UNIT)
            say(f"writing {events} events")
            partition, last = await history.write(centre.log, UNIT, events - 1)
            await centre.becomes_visible(partition, last)
            await centre.database.execute("ANALYZE events")
            postgres = services.postgres.pid if services.postgres else listener_of(services.postgres_url)
            async with contextlib.AsyncExitStack() as closing:
                live = await closing.enter_async_context(_live(centre, installed, url_of(bridge), others, per_second))
                before = await _undisturbed(live, say) if live else None
                agent = await _agent(installed, url_of(bridge), folder)
                closing.push_async_callback(agent.stop)
                meter = Meter({"bridge": bridge.pid, "agent": agent.pid, "postgres": postgres})
                say("the agent starts")
                await _eventually(lambda: _stored(folder) > 0, agent)
                began, used = time.monotonic(), meter.read()
                done_at_start = _stored(folder)
                await _eventually(lambda: _position(folder) >= last, agent)
                seconds = time.monotonic() - began
                cpu = spent(used, meter.read())
                return CaughtUp(
                    events=events - done_at_start,
                    seconds=seconds,
                    in_order=_complete(folder, events, last),
                    cpu_seconds=cpu,
                    live_before=before,
                    live_during=spread(live.took) if live and live.took else None,
                )


@contextlib.asynccontextmanager
async def _live(
    centre: Centre, installed: Installation, url: str, count: int, per_second: float
) -> AsyncIterator[Others | None]:
    if not count:
        yield None
        return
    async with contextlib.AsyncExitStack() as closing:
        units = []
        for number in range(count):
            unit_id = f"live-{number:03d}"
            await centre.unit(unit_id)
            unit = await closing.enter_async_context(linked(url, unit_id, installed.token(Role.UNIT, unit_id)))
            unit.compares = False
            await unit.knows((await unit.hello()).head)
            units.append(unit)
        others = Others(centre, units, per_second)
        going_on = asyncio.create_task(others.go_on())
        try:
            yield others
        finally:
            going_on.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await going_on


async def _undisturbed(others: Others, say: Say) -> Spread:
    say("the others, while nobody catches up")
    await eventually(lambda: len(others.took) >= 4 * others.per_second, within=60, what="facts at the other units")
    before = spread(others.took)
    others.took = []
    return before


async def _agent(installed: Installation, url: str, folder: Path) -> Child:
    credential = folder / "away.token"
    credential.write_text(installed.token(Role.UNIT, UNIT))
    data = folder / "agent"
    command = [sys.executable, "-m", "unit_agent", "--url", url, "--credential", f"@{credential}", "--data", str(data)]
    command += ["--snapshot-beyond", "0"]  # every event, one after the other: that is what is measured
    return await Child.start("agent", command, log=folder / "agent.log")


async def _eventually(condition: Callable[[], bool], agent: Child) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if agent.process.returncode is not None or time.monotonic() > deadline:
            raise Trouble(f"the agent did not catch up{agent.last_words()}")
        await asyncio.sleep(0.01)


def _asked(folder: Path, query: str) -> int:
    """A number from the agent's store, as an auditor reads it; 0 while there is none."""
    with contextlib.suppress(sqlite3.OperationalError):  # not made yet
        store = sqlite3.connect(f"file:{folder / 'agent' / 'agent.db'}?mode=ro", uri=True)
        with contextlib.closing(store):
            row = store.execute(query).fetchone()
            return int(row[0] or 0) if row else 0
    return 0


def _position(folder: Path) -> int:
    return _asked(folder, "SELECT value FROM state WHERE key = 'position'")


def _stored(folder: Path) -> int:
    return _asked(folder, "SELECT value FROM state WHERE key = 'facts_applied'")


def _complete(folder: Path, events: int, last: int) -> bool:
    # The bridge's frames follow on one another or the agent leaves, so what is here all came in order.
    there = _asked(folder, "SELECT count(*) FROM facts"), _asked(folder, "SELECT max(position) FROM facts")
    doubles = _asked(folder, "SELECT value FROM state WHERE key = 'duplicates_seen'")
    return there == (events, last) and _stored(folder) == events and not doubles


def as_text(found: CaughtUp) -> list[str]:
    """For people."""
    lines = [
        f"caught up with {found.events} events in {found.seconds:.2f} s: {found.rate:,.0f} events/s"
        f" ({'each once, in order' if found.in_order else 'NOT complete'})"
    ]
    lines += [f"  {name}: {micros:.0f} us of CPU per event" for name, micros in found.cpu_microseconds().items()]
    for when, live in (("before", found.live_before), ("meanwhile", found.live_during)):
        if live:
            lines.append(
                f"  live units {when}: p50 {live.p50:.1f} ms, p99 {live.p99:.1f} ms, worst {live.worst:.0f} ms"
                f" ({live.count} facts)"
            )
    return lines


def main() -> int:
    """Measure, print; 7 with --check when the floor is missed or anything is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.link.catch_up", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--others", type=int, default=20, help="units that stay live meanwhile")
    parser.add_argument("--per-second", type=float, default=50, help="facts a second for the others altogether")
    parser.add_argument("--check", action="store_true", help=f"leave with {FLOOR_MISSED} below {FLOOR} events/s")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with leashed_folder() as folder:
        try:
            found = asyncio.run(
                caught_up(
                    ensure_services(folder),
                    folder,
                    say,
                    events=options.events,
                    others=options.others,
                    per_second=options.per_second,
                )
            )
        except Trouble as trouble:
            say(str(trouble))
            return FAILED
    sys.stdout.write("\n".join(as_text(found)) + "\n")
    if options.json:
        options.json.write_text(json.dumps({**asdict(found), "rate": found.rate}, indent=2) + "\n")
    return FLOOR_MISSED if options.check and (found.rate < FLOOR or not found.in_order) else 0


if __name__ == "__main__":
    sys.exit(main())
