"""The HTTP API as its callers use it: give a command and hear how it ended, ask questions, whatever the network does.

What goes into a command is the caller's. A command is sent again with the same Idempotency-Key until its outcome is
known or the deadline has passed, so a lost answer, a 503 or a killed gateway costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from contracts.envelope import Json

PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that say: the same again, later."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
CONNECT_SECONDS = 5.0
PAGE = 200
"""The longest page the API gives."""


class Unreachable(Exception):
    """The API did not answer before the deadline."""


class NotLetIn(Exception):
    """The token is not accepted, or not for this."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.code = code


def _told(problem: Json) -> str:
    """What a problem document says: which fields are wrong, where it names them."""
    fields = [f"{error.get('field')} {error.get('problem')}" for error in problem.get("errors", ())]
    return "; ".join(fields) or str(problem.get("detail", ""))


class Declined(Exception):
    """The API says no to a question or an operation."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail or code)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: `accepted`, `unchanged`, `refused` or `failed` (dead-lettered)."""

    status: str
    code: str | None
    """Why not; None where it was accepted."""
    command_id: UUID | None
    """None where the gateway refused it before it became a command."""
    result: Json
    dead_letter_id: UUID | None = None

    @property
    def done(self) -> bool:
        """Whether what was asked for is so now."""
        return self.status in ("accepted", "unchanged")


class Api:
    """One caller of one gateway; an async context manager."""

    def __init__(self, url: str, token: str, *, connections: int = 16, deadline: float = 60.0, wait: int = 10) -> None:
        self._deadline = deadline
        self._wait = wait
        # One client a connection: what a pool of httpx costs for each request grows with the connections in it.
        trust = httpx.create_ssl_context()
        self._clients = [
            httpx.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"},
                limits=httpx.Limits(max_connections=1),
                timeout=httpx.Timeout(wait + 10, connect=CONNECT_SECONDS),
                trust_env=not _is_loopback(url),  # a proxy of the environment cannot reach our own machine
                verify=trust,
            )
            for _ in range(connections)
        ]
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def command(self, type_name: str, unit_id: str, payload: Json, *, key: str) -> Ended:
        """Give any command by its name and hear how it ended."""
        return await self.give("/api/commands", {"type": type_name, "unitId": unit_id, "payload": payload}, key=key)

    async def give(self, path: str, body: Json, *, key: str, unit_id: str | None = None, method: str = "POST") -> Ended:
        """Give a command by its own path and hear how it ended. Raises Unreachable, NotLetIn."""
        headers = {"Idempotency-Key": key, "Prefer": f"wait={self._wait}"}
        if unit_id is not None:
            headers["X-Unit-Id"] = unit_id
        end_by = asyncio.get_running_loop().time() + self._deadline
        answer = await self._ask(method, path, end_by, json=body, headers=headers)
        if answer.status_code == 202:
            return await self._follow(answer.headers["Location"], end_by)
        return _ended(answer)

    async def outcome(self, command_id: UUID) -> Json:
        """What is known of a command now. Raises Unreachable, NotLetIn, Declined (404: never issued)."""
        return await self.get(f"/api/commands/{command_id}")

    async def get(
        self, path: str, *, query: Mapping[str, str | list[str]] | None = None, unit_id: str | None = None
    ) -> Json:
        """The answer to a question. Raises Unreachable, NotLetIn, Declined."""
        return await self.call("GET", path, query=query, unit_id=unit_id)

    async def every(self, path: str, *, query: Mapping[str, str | list[str]]) -> list[Json]:
        """All items of a list, page after page. Raises Unreachable, NotLetIn, Declined."""
        items: list[Json] = []
        wanted = {**query, "limit": str(PAGE)}
        while True:
            page = await self.get(path, query=wanted)
            items += page["items"]
            if page["nextCursor"] is None:
                return items
            wanted["cursor"] = page["nextCursor"]

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str | list[str]] | None = None,
        unit_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Any other request and its JSON answer. Raises Unreachable, NotLetIn, Declined."""
        end_by = asyncio.get_running_loop().time() + self._deadline
        all_headers = dict(headers or {}) | ({"X-Unit-Id": unit_id} if unit_id is not None else {})
        answer = await self._ask(method, path, end_by, json=body, params=query, headers=all_headers)
        found = _json(answer)
        if answer.is_success:
            return found
        raise Declined(answer.status_code, str(found.get("code", "unknown")), _told(found))

    async def _follow(self, location: str, end_by: float) -> Ended:
        pause = FIRST_PAUSE
        while True:
            answer = await self._ask("GET", location, end_by)
            found = _json(answer)
            if not answer.is_success or found.get("status") not in (None, "pending"):
                return _ended(answer)
            pause = await _pause(pause, end_by, "the command has no outcome yet")

    async def _ask(
        self,
        method: str,
        path: str,
        end_by: float,
        *,
        json: Json | None = None,
        params: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, repeated while the API is away; the caller's key makes repeating a command harmless."""
        pause = FIRST_PAUSE
        while True:
            client = await self._idle.get()
            try:
                answer = await client.request(method, path, json=json, params=params, headers=headers)
            except httpx.TransportError as trouble:
                seen = type(trouble).__name__
            else:
                if answer.status_code in (401, 403):
                    raise NotLetIn(answer.status_code, str(_json(answer).get("code", "unknown")))
                if answer.status_code not in PASSING:
                    return answer
                seen = f"{answer.status_code} {_json(answer).get('code', '')}".strip()
                if (after := answer.headers.get("Retry-After", "")).isdigit():
                    pause = max(pause, min(float(after), LONGEST_PAUSE))
            finally:
                self._idle.put_nowait(client)
            pause = await _pause(pause, end_by, seen)


async def _pause(pause: float, end_by: float, seen: str) -> float:
    """Wait, with jitter, and answer the next pause; Unreachable once the deadline would be passed."""
    if asyncio.get_running_loop().time() + pause > end_by:
        raise Unreachable(seen)
    await asyncio.sleep(pause * random.uniform(0.7, 1.0))  # noqa: S311 - spreads retries; protects nothing
    return min(pause * 1.6, LONGEST_PAUSE)


def _ended(answer: httpx.Response) -> Ended:
    found = _json(answer)
    command_id, letter_id = (UUID(found[name]) if found.get(name) else None for name in ("commandId", "deadLetterId"))
    if answer.is_success:
        if answer.request.method == "GET":  # the outcome itself
            return Ended(str(found["status"]), found.get("code"), command_id, found.get("result") or {}, letter_id)
        named = answer.headers.get("Carespine-Command")
        return Ended(answer.headers.get("Carespine-Outcome", "accepted"), None, UUID(named) if named else None, found)
    code = str(found.get("code", f"http_{answer.status_code}"))
    if code == "dead_lettered":
        return Ended("failed", str(found.get("reason", code)), command_id, {}, letter_id)
    return Ended("refused", code, command_id, {})


def _json(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
