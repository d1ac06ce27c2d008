"""A unit whose agent never stays: it takes its own link over again and again, at any moment of a session.

Speaks the protocol by hand, keeps what an agent's disk would keep, and notices every fact that is missing, comes twice
or comes out of order - on the wire, before anything could hide it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from contracts.frames import SUBPROTOCOL
from contracts.ids import fresh_command_id
from tests.kit.waiting import eventually

STEP_SECONDS = 10.0
MOMENTS = ("at once", "welcomed", "submitted", "accepted", "told")
"""When the next session takes over: after the hello, the welcome, a command sent, its confirmation, facts."""

Json = dict[str, Any]  # Any: JSON


class FickleUnit:
    """One unit and its disk. `urls` gives the bridges to choose from."""

    def __init__(self, unit_id: str, urls: list[str], token: str, draw: random.Random) -> None:
        self.unit_id = unit_id
        self.made: list[str] = []
        """Commands made here, in order."""
        self.told: list[tuple[int, str, str]] = []
        """(position, type, command id) of each fact on the disk, as they came."""
        self.wrong: list[str] = []
        self.takeovers = 0
        self.epoch = 0
        self._position = 0
        self._accepted: set[str] = set()
        self._urls = urls
        self._token = token
        self._draw = draw
        self._instance = str(uuid4())
        self._happened = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def take_over(self, times: int) -> None:
        """That many sessions, each taking over from the one before it, which is closed only afterwards."""
        async with contextlib.AsyncExitStack() as last:
            before: ClientConnection | None = None
            while self.takeovers < times:
                until = self._draw.choice(MOMENTS)
                socket = await self._session(last, until)
                if socket is not None:
                    self.takeovers += before is not None
                    if before is not None:
                        before.transport.abort()
                    before = socket

    async def settle(self, feed: Callable[[], list[int]]) -> None:
        """Calm sessions, until every command made has come back as a fact and the whole of `feed()` is here."""
        async with contextlib.AsyncExitStack() as closing, asyncio.timeout(STEP_SECONDS * 6):
            while not self._is_settled(feed):
                await self._session(closing, "over", make=False)
                with contextlib.suppress(AssertionError):
                    await eventually(lambda: self._is_settled(feed), within=STEP_SECONDS)

    def _is_settled(self, feed: Callable[[], list[int]]) -> bool:
        back = {command_id for _, kind, command_id in self.told if kind == "patient.PatientRegistered"}
        return back.issuperset(self.made) and len(self.told) >= len(feed())

    async def _session(
        self, closing: contextlib.AsyncExitStack, until: str, *, make: bool = True
    ) -> ClientConnection | None:
        try:
            socket = await connect(
                self._draw.choice(self._urls),
                additional_headers={"Authorization": f"Bearer {self._token}"},
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                ping_interval=None,
                proxy=None,
                max_size=None,
                close_timeout=0.1,
            )
        except (OSError, InvalidHandshake, TimeoutError):
            await asyncio.sleep(self._draw.uniform(0.05, 0.2))  # turned away for a moment
            return None
        closing.callback(socket.transport.abort)
        if self._reading is not None:
            self._reading.cancel()  # the session before this one is not read any more, and does not know it
        moments: set[str] = set()
        self._reading = asyncio.create_task(self._read(socket, moments, make=make))
        closing.callback(self._reading.cancel)
        hello: Json = {
            "type": "hello",
            "unitId": self.unit_id,
            "position": self._position,
            "agentVersion": "test",
            "instance": self._instance,
        }
        with contextlib.suppress(ConnectionClosed):
            await socket.send(orjson.dumps(hello).decode())
        wait_for = {"at once": set[str](), "over": set[str]()}.get(until, {until, "quiet", "over"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEP_SECONDS):
                while wait_for and not (wait_for & moments):
                    self._happened.clear()
                    await self._happened.wait()
        return socket

    async def _read(self, socket: ClientConnection, moments: set[str], *, make: bool) -> None:
        epoch = 0
        try:
            while True:
                frame: Json = orjson.loads(await socket.recv())
                match frame["type"]:
                    case "welcome":
                        if frame["epoch"] <= self.epoch:
                            self.wrong.append(f"{self.unit_id}: epoch {frame['epoch']} after {self.epoch}")
                        epoch = self.epoch = frame["epoch"]
                        self._reached(moments, "welcomed")
                        await self._submit(socket, epoch, make=make)
                        self._reached(moments, "submitted")
                        if len(self._accepted) == len(self.made):
                            self._reached(moments, "quiet")
                    case "accepted" if epoch == self.epoch:
                        self._accepted.add(frame["commandId"])
                        self._reached(moments, "accepted")
                    case "facts" if epoch == self.epoch:
                        if self._draw.random() < 0.7 or not make:  # otherwise they never reached the disk
                            await self._keep(socket, frame)
                        self._reached(moments, "told")
                        if not make:
                            continue
                        return
                    case "bye":
                        return
                    case _:
                        pass
        except ConnectionClosed:
            return
        finally:
            self._reached(moments, "over")

    async def _submit(self, socket: ClientConnection, epoch: int, *, make: bool) -> None:
        if make and self._draw.random() < 0.5:
            self.made.append(str(fresh_command_id(datetime.now(UTC), os.urandom(10))))
        for command_id in [one for one in self.made if one not in self._accepted]:
            await socket.send(
                orjson.dumps(
                    {
                        "type": "submit",
                        "epoch": epoch,
                        "commandId": command_id,
                        "command": "patient.RegisterPatient",
                        "payload": {
                            "patientId": command_id,
                            "firstName": "Zoraida",
                            "lastName": "Quillfeather",
                            "medicalRecordNumber": f"MRN-{UUID(command_id).hex}",
                            "dateOfBirth": "1984-02-29",
                        },
                        "issuedAt": datetime.now(UTC).isoformat(),
                    }
                ).decode()
            )

    async def _keep(self, socket: ClientConnection, frame: Json) -> None:
        if frame["after"] != self._position:
            self.wrong.append(f"{self.unit_id}: facts after {frame['after']} were sent to a disk at {self._position}")
        for fact in frame["facts"]:
            if fact["position"] <= self._position:
                self.wrong.append(f"{self.unit_id}: {fact['position']} was sent to a disk at {self._position}")
            self._position = fact["position"]
            self.told.append((fact["position"], fact["type"], fact["commandId"]))
        self._position = frame["through"]
        if self._draw.random() < 0.9:  # otherwise the acknowledgement was never sent
            await socket.send(f'{{"type":"ack","epoch":{frame["epoch"]},"position":{self._position}}}')

    def _reached(self, moments: set[str], moment: str) -> None:
        moments.add(moment)
        self._happened.set()
