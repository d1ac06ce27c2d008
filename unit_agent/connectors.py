"""Handing a unit command to the site: the built-in connector, and a webhook of the site's own system.

A connector says what it knows and no more: done, not done, or unsure. What follows from that (again, ask, give up) is
`unit_agent.execution`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx

from contracts.envelope import Json
from unit_agent.mailbox import Order

ANSWER_BYTES: Final = 64 * 1024
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,79}")
_COME_BACK: Final = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Done:
    """The site did it."""

    result: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Declined:
    """The site will not do it; asking again would not change that."""

    code: str
    result: Json | None = None


@dataclass(frozen=True)
class NotDone:
    """The site has certainly not done it."""


@dataclass(frozen=True)
class Unsure:
    """Nobody answered, or not usably: it may have been done."""

    why: str


class Connector(Protocol):
    """What a site's system offers for durable commands."""

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """Do it. May be called again for the same order after `Unsure`; the order's id tells that it is the same."""
        ...

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """Whether it was done; None: the site cannot tell, now or ever."""
        ...

    async def still_wanted(self, order: Order) -> bool | Unsure:
        """Whether a command that comes late still makes sense."""
        ...


class BuiltIn:
    """Without a system at the site: a command of any type is taken note of in the journal, and that is all."""

    async def run(self, order: Order) -> Done:
        """Noted; the journal entry is the work, so it is done in the moment its outcome is written."""
        return Done({"handledBy": "agent"})

    async def ask(self, order: Order) -> NotDone:
        """An outcome that was not written was not reached."""
        return NotDone()

    async def still_wanted(self, order: Order) -> bool:
        """Taking note of something late is harmless."""
        return True


class Webhook:
    """The site's system behind HTTP.

    `POST {url}` with `{id, type, payload, patientId, deadline}` and `Idempotency-Key: <id>`: 2xx is done (a JSON object
    is its result), 408/425/429/5xx and silence are unsure, any other answer declines (`code` of a JSON body, else
    `http_<status>`).
    `GET {url}/{id}` -> 200 `{"applied": true|false, "result": {...}}` tells what became of one; 404: it cannot tell.
    `POST {url}/{id}/revalidate` -> 200 `{"valid": true|false}`; 404: the site has no opinion, so it is wanted.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=8))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """One attempt."""
        body: Json = {
            "id": str(order.id),
            "type": order.type,
            "payload": order.payload,
            "patientId": order.patient_id,
            "deadline": order.deadline.isoformat(),
        }
        answer = await self._call("POST", self._url, body, key=str(order.id))
        if isinstance(answer, Unsure):
            return answer
        if answer.is_success:
            return Done(_object(answer))
        told = _object(answer)
        code = told.get("code")
        fits = isinstance(code, str) and _CODE.fullmatch(code)
        return Declined(str(code) if fits else f"http_{answer.status_code}", told or None)

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """What the site knows of an order it may or may not have got."""
        answer = await self._call("GET", f"{self._url}/{order.id}", None)
        if isinstance(answer, Unsure):
            return answer
        told = _object(answer)
        if answer.status_code != 200 or not isinstance(told.get("applied"), bool):
            return None
        result = told.get("result")
        return Done(result if isinstance(result, dict) else {}) if told["applied"] else NotDone()

    async def still_wanted(self, order: Order) -> bool | Unsure:
        """The site's opinion of a late order."""
        body: Json = {"type": order.type, "payload": order.payload, "patientId": order.patient_id}
        answer = await self._call("POST", f"{self._url}/{order.id}/revalidate", body, key=f"{order.id}.revalidate")
        if isinstance(answer, Unsure):
            return answer
        return _object(answer).get("valid") is not False if answer.is_success else answer.status_code == 404

    async def _call(
        self, method: str, url: str, body: Json | None, *, key: str | None = None
    ) -> httpx.Response | Unsure:
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            answer = await self._client.request(method, url, json=body, headers=headers)
        except httpx.HTTPError as why:
            return Unsure(type(why).__name__)
        if answer.status_code >= 500 or answer.status_code in _COME_BACK:
            return Unsure(f"http_{answer.status_code}")
        return answer


def _object(answer: httpx.Response) -> Json:
    """The answer's JSON object; empty when it is none, or too large to be a result."""
    if len(answer.content) > ANSWER_BYTES:
        return {}
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
