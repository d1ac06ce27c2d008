"""The raw limits of this machine, each with nothing around it: confirmed publishing, appending rows, answering POSTs.

`publishing` and `appending` are processes of their own (`python -m tests.load.raw_limits publish|append URL …`), so
that their CPU can be told apart; `app` is served by uvicorn as the gateway is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import aiormq
import orjson
import psycopg
import uvloop
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

IN_FLIGHT = 300
BODY_BYTES = 800
"""About the size of a check-in's envelope."""
QUEUE = "bench.raw"


@dataclass(frozen=True)
class Limit:
    """How much was done, in what time, with what CPU of the client."""

    count: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Per second."""
        return self.count / self.seconds


async def publishing(url: str, seconds: float) -> Limit:
    """Persistent messages to one quorum queue, each confirmed, `IN_FLIGHT` at a time, by aiormq."""
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        assert isinstance(channel, aiormq.Channel)
        await channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        body = os.urandom(BODY_BYTES // 2).hex().encode()
        properties = aiormq.spec.Basic.Properties(delivery_mode=2, content_type="application/json")

        async def publish() -> None:
            await channel.basic_publish(body, routing_key=QUEUE, properties=properties, wait=False)

        try:
            return await _many(publish, seconds)
        finally:
            await channel.queue_delete(QUEUE)
    finally:
        await connection.close()


async def _many(act: Callable[[], Awaitable[None]], seconds: float) -> Limit:
    done = 0
    started, cpu = time.monotonic(), time.process_time()
    end = started + seconds

    async def keep_on() -> None:
        nonlocal done
        while time.monotonic() < end:
            await act()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(keep_on())
    return Limit(done, time.monotonic() - started, time.process_time() - cpu)


def appending(url: str, seconds: float, batch: int) -> Limit:
    """Rows of the shape of `events` into a table like it, with its indexes; an executemany and a commit per batch."""
    statement = (
        "INSERT INTO bench_events (partition, position, unit_id, stream, stream_version, type, type_version, payload,"
        " sealed, subject, command_id, correlation_id, actor, occurred_at)"
        " VALUES (0, %s, 'bench-0001', %s, 1, 'encounter.PatientArrived', 1, %s, %s, %s, %s, 'bench', %s, now())"
    )
    payload = json.dumps({"encounterId": str(uuid4()), "patientId": str(uuid4()), "department": "cardiology",
                          "queueEntryId": str(uuid4()), "priority": "routine", "encounterClass": "AMB"})  # fmt: skip
    actor = json.dumps({"subject": "bench", "role": "receptionist", "unit": "bench-0001"})
    sealed, subject = os.urandom(64), str(uuid4())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bench_events")
        connection.execute("CREATE TABLE bench_events (LIKE events INCLUDING ALL)")
        position = 0
        started, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < started + seconds:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(
                    statement,
                    [(at, f"encounter-{uuid4()}", payload, sealed, subject, uuid4(), actor)
                     for at in range(position, position + batch)],
                )  # fmt: skip
            position += batch
        limit = Limit(position, time.monotonic() - started, time.process_time() - cpu)
        connection.execute("DROP TABLE bench_events")
    return limit


class _Body(BaseModel):
    patientId: str  # noqa: N815 - as it stands in the JSON
    department: str
    priority: str
    reason: str
    encounterClass: str  # noqa: N815


async def _post(request: Request) -> Response:
    body = _Body.model_validate_json(await request.body())
    return Response(orjson.dumps({"patientId": body.patientId}), 202, media_type="application/json")


def app() -> Starlette:
    """An application with one route that validates a check-in's body and answers."""
    return Starlette(routes=[Route("/api/check-in", _post, methods=["POST"])])


async def bare(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:  # Any: ASGI messages
    """The least an ASGI server can be asked: read the body, answer."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def main() -> None:
    """Measure the limit named on the command line and print it as JSON."""
    what, url, seconds, *more = sys.argv[1:]
    limit = (
        uvloop.run(publishing(url, float(seconds)))
        if what == "publish"
        else appending(url, float(seconds), int(more[0]))
    )
    sys.stdout.write(json.dumps(asdict(limit)) + "\n")


if __name__ == "__main__":
    main()
