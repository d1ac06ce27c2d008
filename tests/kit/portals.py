"""A staff portal as a test speaks it: says hello, keeps what it is told, resumes from where it stood."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from contracts.frames import PORTAL_SUBPROTOCOL
from contracts.portal import DOWN
from tests.kit.waiting import eventually

Frame = dict[str, Any]  # Any: JSON
EVERYTHING = ("queue-board", "patient-status", "results", "notifications", "units")


class Portal:
    """One portal. An async context manager; frames are read as they come, events apart."""

    def __init__(self, url: str, token: str, *, as_browser: bool = False, **hello: object) -> None:
        self._url, self._token, self._as_browser = url, token, as_browser
        self.hello: Frame = {"type": "hello", "topics": EVERYTHING, **hello}
        self.frames: list[Frame] = []
        """Everything told but events and pings."""
        self.events: list[Frame] = []
        self.position: int | None = None
        """Where to resume from."""
        self.socket: ClientConnection
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and say hello."""
        self.socket = await opened(self._url, self._token, as_browser=self._as_browser)
        self._reader = asyncio.create_task(self._read())
        await self.say(self.hello)

    async def resume(self) -> None:
        """Connect again, from where it stood."""
        await self.close()
        self.hello["position"] = self.position
        await self.open()

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()
        if self._reader is not None:
            await self._reader

    async def say(self, frame: Frame) -> None:
        """Send a frame."""
        await self.socket.send(orjson.dumps(frame).decode())

    async def welcomed(self) -> Frame:
        """The welcome."""
        return await self.told("welcome")

    async def told(self, kind: str, *, within: float = 20, **fields: object) -> Frame:
        """A frame of this type with these fields, waited for."""

        def found() -> list[Frame]:
            return [one for one in self.frames if one["type"] == kind and fields.items() <= one.items()]

        return (await eventually(found, within=within, what=f"a frame {kind} {fields}"))[0]

    async def event(self, name: str, *, within: float = 20, **data: object) -> Frame:
        """An event of this name whose data has these fields, waited for."""

        def found() -> list[Frame]:
            return [one for one in self.events if one["event"] == name and data.items() <= one["data"].items()]

        return (await eventually(found, within=within, what=f"an event {name}"))[0]

    async def closed(self, *, within: float = 20) -> int | None:
        """Wait for the close; its code."""
        async with asyncio.timeout(within):
            await self.socket.wait_closed()
        return self.socket.close_code

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self.socket:
                frame: Frame = DOWN.validate_json(text).to_dict()
                match frame["type"]:
                    case "event":
                        self.events.append(frame)
                        self.position = frame["position"]
                    case "ping":
                        self.position = frame.get("position", self.position)
                        await self.say({"type": "pong"})
                    case kind:
                        self.frames.append(frame)
                        if kind in ("welcome", "reset", "subscribed"):
                            self.position = frame["position"]


async def opened(url: str, token: str, *, as_browser: bool = False) -> ClientConnection:
    """A connection that was let in."""
    offers = [Subprotocol(PORTAL_SUBPROTOCOL)]
    headers = {}
    if as_browser:
        offers.append(Subprotocol(f"bearer.{token}"))
    else:
        headers["Authorization"] = f"Bearer {token}"
    return await connect(url, subprotocols=offers, additional_headers=headers, compression=None, open_timeout=10)


async def turned_away(url: str, token: str) -> int:
    """The status of a door that stays shut."""
    try:
        socket = await opened(url, token)
    except InvalidStatus as refused:
        return refused.response.status_code
    await socket.close()
    raise AssertionError("was let in")


class Stream:
    """The same over Server-Sent Events. An async context manager; events as (id, name, data)."""

    def __init__(self, client: httpx.AsyncClient, last_event_id: str | None = None, **parameters: str) -> None:
        self._client = client
        self._parameters = parameters
        self._after = last_event_id
        self.events: list[tuple[str | None, str, Frame]] = []
        self.last_event_id: str | None = last_event_id
        self.is_over = False
        self._reader: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        headers = {} if self._after is None else {"Last-Event-ID": self._after}
        answer = await self._stack.enter_async_context(
            self._client.stream("GET", "/api/stream", params=self._parameters, headers=headers)
        )
        if answer.status_code != 200:
            raise AssertionError((answer.status_code, await answer.aread()))
        assert answer.headers["content-type"].startswith("text/event-stream")
        self._reader = asyncio.create_task(self._read(answer))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        await self._stack.aclose()

    async def event(self, name: str, *, within: float = 20, **data: object) -> Frame:
        """The data of an event of this name whose own data has these fields, waited for."""

        def found() -> list[Frame]:
            return [
                told for _, kind, told in self.events if kind == name and data.items() <= told.get("data", told).items()
            ]

        return (await eventually(found, within=within, what=f"an event {name}"))[0]

    async def _read(self, answer: httpx.Response) -> None:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
                continue
            self.last_event_id = fields.get("id", self.last_event_id)
            if "data" in fields:
                self.events.append((fields.get("id"), fields["event"], orjson.loads(fields["data"])))
            fields = {}
        self.is_over = True
