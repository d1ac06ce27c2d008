"""Who takes part in `tests.load.link.portals`: portals that note when they are told of whom, a desk that checks in."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx
import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from contracts.identity import Role
from tests.kit.portals import opened
from tests.kit.processes import Installation
from tests.load.processes import Trouble

TOPICS: Final = ("queue-board", "patient-status", "notifications")
AWAY_SECONDS: Final = 2.0
"""A portal that lost its bridge tries again within so much time, at random."""
ATTEMPTS: Final = 3


@dataclass
class Watcher:
    """One portal: notes when it is told of whom."""

    url: str
    token: str
    unit_id: str
    socket: ClientConnection | None = None
    position: int | None = None
    """Where to resume from."""
    seen: dict[str, float] = field(default_factory=dict)
    """encounter id -> when, by the steady clock"""
    since_recorded: list[float] = field(default_factory=list)
    doubled: int = 0
    is_over: bool = False

    async def connect(self) -> None:
        """Say hello, from where it stood, and be welcomed."""
        socket = await opened(self.url, self.token)
        hello = {"type": "hello", "topics": TOPICS}
        await socket.send(
            orjson.dumps(hello if self.position is None else {**hello, "position": self.position}).decode()
        )
        welcome = orjson.loads(await socket.recv())
        if welcome["type"] != "welcome":
            raise Trouble(f"no welcome but {welcome}")
        self.position = welcome["position"]
        self.socket = socket

    async def watch(self) -> None:
        """Until it is over; comes back when the connection is lost."""
        while True:
            try:
                if self.socket is None:
                    await self.connect()
                await self._listen()
            except (ConnectionClosed, OSError, InvalidHandshake, TimeoutError):
                self.socket = None
                if self.is_closed():
                    return
                await asyncio.sleep(random.uniform(0.0, AWAY_SECONDS))

    def is_closed(self) -> bool:
        """Whether it was told to stop."""
        return self.is_over

    async def close(self) -> None:
        """It is over."""
        self.is_over = True
        if self.socket is not None:
            await self.socket.close()

    async def _listen(self) -> None:
        assert self.socket
        while True:
            frame = orjson.loads(await self.socket.recv())
            self.position = frame.get("position", self.position)
            if frame["type"] == "ping":
                await self.socket.send('{"type":"pong"}')
            elif frame.get("event") == "notification":
                encounter_id = frame["data"]["encounterId"]
                self.doubled += encounter_id in self.seen
                self.seen[encounter_id] = time.perf_counter()
                self.since_recorded.append(time.time() - datetime.fromisoformat(frame["at"]).timestamp())


@dataclass
class Desk:
    """Sends commands over HTTP."""

    client: httpx.AsyncClient
    installed: Installation
    sent: dict[str, tuple[str, float]] = field(default_factory=dict)
    """encounter id -> (unit, when its check-in was sent)"""
    answered: list[float] = field(default_factory=list)
    tokens: dict[tuple[Role, str | None], str] = field(default_factory=dict)

    async def ask(
        self, role: Role, unit_id: str | None, path: str, body: dict[str, Any]
    ) -> dict[str, Any]:  # Any: JSON
        """A command and its result; repeated with its key when the connection broke."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.token(role, unit_id)}",
            "Idempotency-Key": secrets.token_hex(16),
        }
        for attempt in range(ATTEMPTS):
            try:
                answer = await self.client.post(path, content=orjson.dumps(body), headers=headers)
                break
            except httpx.TransportError:  # a kept connection that the other end had just closed
                if attempt == ATTEMPTS - 1:
                    raise
        if answer.status_code not in (200, 201):
            raise Trouble(f"{path}: {answer.status_code} {answer.text[:200]}")
        result: dict[str, Any] = answer.json()  # Any: JSON
        return result

    async def check_in(self, unit_id: str, patient_id: str) -> None:
        """A patient arrives."""
        began = time.perf_counter()
        body = {"patientId": patient_id, "department": "general", "priority": "routine"}
        answer = await self.ask(Role.STAFF, unit_id, "/api/check-in", body)
        self.answered.append(time.perf_counter() - began)
        self.sent[answer["encounterId"]] = unit_id, began

    async def patient(self, unit_id: str) -> str:
        """A patient is registered; the id."""
        person = {"firstName": "Ana", "lastName": "Example", "dateOfBirth": "1984-02-29",
                  "medicalRecordNumber": f"MRN-{secrets.token_hex(8)}"}  # fmt: skip
        patient_id: str = (await self.ask(Role.STAFF, unit_id, "/api/patients", person))["id"]
        return patient_id

    def token(self, role: Role, unit_id: str | None) -> str:
        """A bearer token, signed once."""
        known = self.tokens.get((role, unit_id))
        if known is None:
            known = self.tokens[role, unit_id] = self.installed.token(role, unit_id)
        return known
