"""The raw limit: a `websockets` server that pushes the same frames and takes their acknowledgements, and nothing else.

`python -m tests.load.link.raw_server UNITS RATE SECONDS`: says its port, and on a line of standard input pushes to the
connected units at that rate.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict

import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from contracts.frames import SUBPROTOCOL
from infra.http_server import listening_socket
from tests.load.link.fleet import unit_name
from tests.load.link.sources import Job, Message, Sent, batch_of, event_of, scheduled

WELCOME = (
    '{"type":"welcome","epoch":1,"head":0,"heartbeatSeconds":20,"maxFrameBytes":262144,'
    '"serverTime":"2026-01-01T00:00:00Z"}'
)


async def main(job: Job) -> None:
    """Serve until standard input ends."""
    connected: dict[str, ServerConnection] = {}

    async def handle(connection: ServerConnection) -> None:
        try:
            hello = orjson.loads(await connection.recv())
            connected[hello["unitId"]] = connection
            await connection.send(WELCOME)
            while True:
                await connection.recv()
        except ConnectionClosed:
            return

    last: dict[str, int] = {}
    messages = []
    for number, turn in enumerate(job.turns()):
        unit_id = unit_name(turn)
        batch = batch_of(event_of(unit_id, number), 0, last.get(unit_id, 0), number + 1)
        facts = batch[batch.index(b'"facts"') :]
        head = b'{"type":"facts","epoch":1,"after":%d,"through":%d,' % (last.get(unit_id, 0), number + 1)
        messages.append(Message(unit_id, head + facts))
        last[unit_id] = number + 1
    listener = listening_socket("127.0.0.1", 0)
    async with serve(
        handle,
        sock=listener,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_queue=4,
        ping_interval=20,
        ping_timeout=20,
        server_header=None,
    ):
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            cpu, began = time.process_time(), time.monotonic()

            def send(message: Message) -> None:
                connection = connected.get(message.unit_id)
                if connection is not None:
                    broadcast([connection], message.stamped(), text=True)

            await scheduled(messages, job.rate, send)
            print(
                json.dumps(asdict(Sent(len(messages), time.monotonic() - began, time.process_time() - cpu))), flush=True
            )


if __name__ == "__main__":
    uvloop.run(main(Job(units=int(sys.argv[1]), rate=float(sys.argv[2]), seconds=float(sys.argv[3]))))
