"""A link on which nothing is said is asked whether the other end is there, and ends when it is not."""

from __future__ import annotations

import asyncio
import socket

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.typing import Subprotocol

from contracts.frames import SUBPROTOCOL, Ping, Pong
from tests.infra.cable import Cable
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import RawUnit
from ws_bridge.admission import Visitor


async def test_a_quiet_link_stays_and_one_whose_line_was_cut_ends(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    units = ("quiet", "cut")
    for unit_id in units:
        await centre.unit(unit_id)
    async with Cable(url_of(bridge).replace("ws://", "amqp://")) as cable:

        def linked(unit_id: str, url: str) -> connect:
            return connect(
                url,
                additional_headers={"Authorization": f"Bearer {bridges.token(unit_id)}"},
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                proxy=None,
                ping_interval=None,  # it says nothing by itself
            )

        through_the_cable = cable.url.replace("amqp://", "ws://")
        async with linked("quiet", url_of(bridge)) as one, linked("cut", through_the_cable) as other:
            quiet, cut = RawUnit("quiet", one), RawUnit("cut", other)
            for unit in (quiet, cut):
                await unit.knows((await unit.hello()).head)
            cable.hold_answers()

            async def ended() -> bool:
                cursor = await centre.database.execute("SELECT unit_id FROM unit_sessions WHERE NOT connected")
                return await cursor.fetchall() == [("cut",)]

            await eventually(ended, within=60)
            await quiet.say(Ping())
            await quiet.hears(Pong)
            cable.let_answers_through()


async def test_who_reads_nothing_cannot_hold_up_the_end_of_its_connection() -> None:
    ended = asyncio.Event()

    async def host(visitor: ServerConnection) -> None:
        for _ in range(200):
            broadcast([visitor], bytes(64 * 1024))
        assert visitor.transport.get_write_buffer_size() > 1024 * 1024
        await visitor.close(4409, "a newer session holds the unit")
        ended.set()

    async with serve(
        host, "127.0.0.1", 0, create_connection=Visitor, close_timeout=0.2, ping_interval=None, compression=None
    ) as server:
        deaf = socket.create_connection(server.sockets[0].getsockname())
        with deaf:
            deaf.sendall(
                b"GET /unit HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            async with asyncio.timeout(5):
                await ended.wait()
