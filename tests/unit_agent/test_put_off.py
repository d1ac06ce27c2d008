"""A command that the bridge puts off comes again before any other, even where it was carried out after all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from contracts.frames import Accepted, Retry, Submit, Welcome
from contracts.unit import UnitSuspended
from tests.kit.commands import new_id
from tests.unit_agent.told import UNIT, told
from unit_agent import outbox
from unit_agent.connection import Connection
from unit_agent.credential import Credential
from unit_agent.link_state import LinkState, Shared
from unit_agent.store import Store
from ws_bridge.session import Session


class PutsOff:
    """A bridge to whose broker the first command goes, and from whose broker no answer to that comes."""

    def __init__(self) -> None:
        self.taken: list[UUID] = []
        self.first: UUID | None = None

    async def host(self, socket: ServerConnection) -> None:
        session = Session(UNIT)
        session.hello(await socket.recv())
        session.open(epoch=1, head=0)
        welcome = Welcome(epoch=1, head=0, heartbeat_seconds=20, max_frame_bytes=1000, server_time=datetime.now(UTC))
        await socket.send(welcome.to_json(), text=True)
        async for data in socket:
            heard = session.hear(data)
            if not isinstance(heard, Submit):
                continue
            answer: Accepted | Retry = Retry(epoch=1, command_id=heard.command_id, after_seconds=0.05)
            if self.first is None:
                self.first = heard.command_id
                session.hold_back(heard)
                fact = told(5, UnitSuspended(unit_id=UNIT, reason="whatever"), command_id=heard.command_id)
                for data in session.tell(0, 5, [fact]):  # the broker had it, and so had everybody else
                    await socket.send(data, text=True)
            elif session.in_turn(heard):
                session.taken()
                self.taken.append(heard.command_id)
                answer = Accepted(epoch=1, command_id=heard.command_id)
            await socket.send(answer.to_json(), text=True)


async def test_commands_go_on_after_one_that_was_put_off_and_carried_out_all_the_same(tmp_path: Path) -> None:
    bridge = PutsOff()
    made = [new_id() for _ in range(3)]
    with Store(tmp_path, UNIT) as store:
        with store.transaction() as db:
            for command_id in made:
                outbox.add(
                    db, command_id=command_id, type_name="queue.CallNext", payload={"department": "general"},
                    subject="agent", issued_at=datetime.now(UTC),
                )  # fmt: skip
        shared = Shared(UNIT, "0", store, LinkState(), runnable=lambda: None)
        async with serve(bridge.host, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", proxy=None) as socket:
                running = asyncio.create_task(Connection(socket, shared, Credential("unused")).run())
                try:
                    async with asyncio.timeout(5):
                        while len(bridge.taken) < 3 or outbox.depth(store.db):  # noqa: ASYNC110 - two ends to look at
                            await asyncio.sleep(0.01)
                finally:
                    await socket.close()
                    await running
    assert bridge.taken == made
