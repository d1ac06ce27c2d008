"""Measures the raw limits, each alone on the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from infra.services.ports import free_ports, is_listening
from tests.load import workload
from tests.load.generator import Job, write_requests
from tests.load.plan import UNITS
from tests.load.processes import Child, Trouble, drive
from tests.load.raw_limits import Limit
from tests.load.saturation import CONNECTIONS

BATCHES = (100, 1000)


async def publishes(rabbitmq_url: str, seconds: float, folder: Path) -> Limit:
    """Confirmed publishes by aiormq."""
    return await _alone("publish", rabbitmq_url, str(seconds), folder=folder, seconds=seconds)


async def appended_rows(postgres_url: str, seconds: float, folder: Path, *, batch: int) -> Limit:
    """Rows by executemany into a table like `events`."""
    return await _alone("append", postgres_url, str(seconds), str(batch), folder=folder, seconds=seconds)


async def posts(application: str, seconds: float, folder: Path) -> Limit:
    """POSTs answered by an application of `raw_limits` under uvicorn, asked by the same generator as everybody."""
    patients = [(unit, uuid4()) for unit in workload.units(UNITS)]
    requests = workload.rendered(workload.check_ins(patients), path="/api/check-in", token=lambda unit: "x" * 300)
    file = folder / "raw.requests"
    write_requests(file, requests * max(1, round(20_000 * seconds / len(requests))))
    async with _served(application, folder) as port:
        job = Job(host="127.0.0.1", port=port, connections=CONNECTIONS, requests=str(file), first=0, seconds=seconds)
        driven = await drive(job, folder)
    file.unlink()
    return Limit(driven.accepted, driven.stopped_at - driven.started_at, 0.0)


@contextlib.asynccontextmanager
async def _served(application: str, folder: Path) -> AsyncIterator[int]:
    port = str(free_ports(1)[0])
    command = [
        sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", port, "--no-access-log",
        "--log-level", "warning", "--loop", "uvloop", "--http", "httptools",
    ]  # fmt: skip
    if application.endswith(":app"):
        command.append("--factory")
    child = await Child.start("uvicorn", command, log=folder / "uvicorn.log")
    try:
        async with asyncio.timeout(20):
            while not is_listening(int(port)):
                if child.process.returncode is not None:
                    raise Trouble(f"uvicorn ended{child.last_words()}")
                await asyncio.sleep(0.05)
        yield int(port)
    finally:
        await child.stop()


async def _alone(*arguments: str, folder: Path, seconds: float) -> Limit:
    child = await Child.start(
        arguments[0], [sys.executable, "-m", "tests.load.raw_limits", *arguments], log=folder / "raw.log", listen=True
    )
    try:
        return Limit(**json.loads(await child.line(seconds + 30)))
    finally:
        await child.stop()
