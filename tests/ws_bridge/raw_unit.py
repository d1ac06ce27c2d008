"""A unit that speaks the protocol by hand, so that a test can also speak it wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from contracts.envelope import Fact
from contracts.frames import DOWN, SUBPROTOCOL, Ack, AnyDown, Bye, Facts, Hello, Welcome
from contracts.model import Model
from tests.link.frames_as_documented import fits

Frame = TypeVar("Frame", bound=Model)


class RawUnit:
    """One connection."""

    def __init__(self, unit_id: str, socket: ClientConnection) -> None:
        self.unit_id = unit_id
        self.socket = socket
        self.epoch = 0
        self.position = 0
        self.facts: list[Fact] = []
        self.compares = True
        """Every frame is compared with the document; a benchmark has no time for that."""

    async def say(self, frame: Model | str | bytes) -> None:
        """Send a frame, or anything else."""
        if self.compares and isinstance(frame, Model):
            fits(frame.to_json(), up=True)
        await self.socket.send(frame.to_json().decode() if isinstance(frame, Model) else frame)

    async def hello(self, position: int = 0, *, window: int = 2000) -> Welcome:
        """Hello, and the welcome."""
        self.position = position
        await self.say(Hello(unit_id=self.unit_id, position=position, agent_version="test", window=window))
        welcome = await self.hears(Welcome)
        self.epoch = welcome.epoch
        return welcome

    async def hears(self, kind: type[Frame], *, within: float = 10) -> Frame:
        """The next frame of this kind; facts on the way are kept, but not acknowledged."""
        async with asyncio.timeout(within):
            while True:
                frame = await self.next()
                if isinstance(frame, kind):
                    return frame

    async def next(self) -> AnyDown:
        """The next frame, whatever it is."""
        data = await self.socket.recv()
        if self.compares:
            fits(data, up=False)
        frame = DOWN.validate_json(data)
        if isinstance(frame, Facts):
            assert frame.after == self.position, "the feed has a gap or a double"
            self.position = frame.through
            self.facts += frame.facts
        return frame

    async def knows(self, position: int, *, ack: bool = True, within: float = 10) -> list[int]:
        """Take facts until this position is here; the positions of all facts so far."""
        async with asyncio.timeout(within):
            while self.position < position:
                await self.next()
                if ack:
                    await self.say(Ack(epoch=self.epoch, position=self.position))
        return [fact.position for fact in self.facts]

    async def closed(self, *, within: float = 10) -> tuple[Bye | None, int | None]:
        """Wait for the end: the bye and the close code."""
        bye: Bye | None = None
        async with asyncio.timeout(within):
            try:
                while True:
                    frame = await self.next()
                    bye = frame if isinstance(frame, Bye) else bye
            except ConnectionClosed:
                return bye, self.socket.close_code


@asynccontextmanager
async def linked(url: str, unit_id: str, token: str, *, subprotocol: str = SUBPROTOCOL) -> AsyncIterator[RawUnit]:
    """A connection of this unit, without a hello yet."""
    async with connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        subprotocols=[Subprotocol(subprotocol)],
        compression=None,
        proxy=None,
        max_size=None,
    ) as socket:
        yield RawUnit(unit_id, socket)
