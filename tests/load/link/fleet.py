"""Thousands of units in one process: `python -m tests.load.link.fleet`, told by lines of JSON what to do.

Each line on standard input is one order, each line on standard output its answer. The units come back by the agents'
own rule when their link is lost (full jitter, capped, what the centre says first).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import uvloop

from contracts.identity import Role
from infra.tokens import mint
from tests.load.figures import spread
from tests.load.link.mqtt import MqttLink
from tests.load.link.samples import Samples
from tests.load.link.unit_link import UnitLink
from unit_agent.reconnect import FIRST, LONGEST
from unit_agent.uplink import OPEN_TIMEOUT

Json = dict[str, Any]  # Any: JSON
Member = UnitLink | MqttLink

STORM_DEADLINE = 180.0
NOISY = 3
ADDRESSES = 8
"""Loopback addresses to connect from: one has 28,000 ports, and a closed connection keeps its own for a minute."""


def unit_name(number: int) -> str:
    """A unit's id."""
    return f"bench-{number:05d}"


class Fleet:
    """The units, and what became of their links."""

    def __init__(self, kind: str, units: int, port: int) -> None:
        self.samples = Samples()
        self._port = port
        self._connected: set[Member] = set()
        self._waiting: dict[Member, asyncio.Future[None]] = {}
        self._everybody = asyncio.Event()
        self._comes_back = False
        self._attempts = 0
        self._last_up = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._noise: list[asyncio.Task[None]] = []
        key = os.environ.get("CARESPINE_TOKEN_PRIVATE_KEY")
        self.units: list[Member] = []
        for number in range(units):
            name = unit_name(number)
            if kind == "mqtt":
                self.units.append(MqttLink(self, number, name))
            else:
                token = mint(key, role=Role.UNIT, unit=name, ttl=7200) if key else "none"
                self.units.append(UnitLink(self, number, name, token))

    def up(self, link: Member) -> None:
        """It has its session."""
        link.attempts = 0
        self._last_up = time.monotonic()
        self._connected.add(link)
        if len(self._connected) == len(self.units):
            self._everybody.set()
        waiting = self._waiting.pop(link, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def down(self, link: Member, retry_after: float | None) -> None:
        """Its connection is over."""
        self._connected.discard(link)
        self._everybody.clear()
        waiting = self._waiting.pop(link, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if self._comes_back:
            self._again(link, retry_after)

    async def connect(self, order: Json) -> Json:
        """Connect everybody, so many at once; how fast that went and how long each took."""
        gate = asyncio.Semaphore(order["atOnce"])
        took = []

        async def one(link: Member) -> None:
            async with gate:
                began = time.monotonic()
                while not link.epoch:
                    waiting = self._waiting[link] = asyncio.get_running_loop().create_future()
                    await self._open(link)
                    await waiting
                took.append(time.monotonic() - began)

        began = time.monotonic()
        async with asyncio.timeout(STORM_DEADLINE), asyncio.TaskGroup() as group:
            for link in self.units:
                group.create_task(one(link))
        gc.collect()
        gc.freeze()
        return {"seconds": time.monotonic() - began, "welcomeMs": _spread(took)}

    async def begin(self, order: Json) -> Json:
        """Forget what was received so far."""
        return self.samples.report()

    async def report(self, order: Json) -> Json:
        """What was received since; waits until so much has come, or nothing comes any more."""
        deadline = time.monotonic() + order["within"]
        expected = order["expected"]
        while len(self.samples.delays) < expected and time.monotonic() < deadline:  # noqa: ASYNC110 - as cheap as can be
            await asyncio.sleep(0.05)
        return self.samples.report() | {"connected": len(self._connected)}

    async def comes_back(self, order: Json) -> Json:
        """From now on whoever loses the link comes back."""
        self._comes_back = True
        self._attempts = 0
        return {}

    async def recovered(self, order: Json) -> Json:
        """Wait until everybody is back; when the last one was."""
        async with asyncio.timeout(STORM_DEADLINE):
            await self._everybody.wait()
        self._comes_back = False
        return {"lastAt": self._last_up, "attempts": self._attempts}

    async def noise(self, order: Json) -> Json:
        """Begin or end the last units' bad manners: one floods, one does not read, one sends huge frames.

        What they receive is measured neither way.
        """
        for task in self._noise:
            task.cancel()
        self._noise = []
        flooding, slow, shouting = self.units[-NOISY:]
        self._comes_back = True
        assert isinstance(flooding, UnitLink)
        assert isinstance(slow, UnitLink)
        assert isinstance(shouting, UnitLink)
        for link in (flooding, slow, shouting):
            link.counts = False
            link.abort()  # so that it begins anew, as everybody else is
        if order["on"]:
            self._noise = [
                asyncio.create_task(_again_and_again(flooding.flood, 0.002)),
                asyncio.create_task(_again_and_again(slow.stop_reading, 0.1)),
                asyncio.create_task(_again_and_again(shouting.shout, 0.2)),
            ]
        return {}

    async def _open(self, link: Member) -> None:
        self._attempts += 1
        address = f"127.0.0.{2 + link.number % ADDRESSES}"
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await asyncio.get_running_loop().create_connection(
                    lambda: link, "127.0.0.1", self._port, local_addr=(address, 0)
                )
        except (OSError, TimeoutError):
            self.down(link, None)

    def _again(self, link: Member, retry_after: float | None) -> None:
        link.attempts += 1
        if retry_after is not None:
            pause = retry_after + random.uniform(0, 1 + retry_after / 10)
        else:
            pause = random.uniform(0, min(FIRST * 2 ** min(link.attempts - 1, 10), LONGEST))

        async def come_back() -> None:
            await asyncio.sleep(pause)
            await self._open(link)

        task = asyncio.create_task(come_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _again_and_again(act: Callable[[], None], every: float) -> None:
    while True:
        act()
        await asyncio.sleep(every)


def _spread(seconds: list[float]) -> Json:
    found = spread(seconds)
    return {"p50": found.p50, "p99": found.p99, "worst": found.worst}


async def main(kind: str, units: int, port: int) -> None:
    """Carry out orders until there are no more."""
    gc.set_threshold(50_000, 50, 100)
    fleet = Fleet(kind, units, port)
    orders: dict[str, Callable[[Json], Coroutine[Any, Any, Json]]] = {  # Any: what coroutines send and throw
        "connect": fleet.connect,
        "begin": fleet.begin,
        "report": fleet.report,
        "comesBack": fleet.comes_back,
        "recovered": fleet.recovered,
        "noise": fleet.noise,
    }
    loop = asyncio.get_running_loop()
    sys.stdout.write('{"ready":true}\n')
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order: Json = orjson.loads(line)
        answer = await orders[order["do"]](order)
        sys.stdout.write(orjson.dumps(answer).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
