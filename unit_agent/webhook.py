"""The connector to a site's own system behind HTTP."""

from __future__ import annotations

import re
from typing import Final

import httpx

from contracts.envelope import Json
from contracts.text import kept
from unit_agent.addresses import is_loopback
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.mailbox import Order

ANSWER_BYTES: Final = 64 * 1024
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,79}")
_COME_BACK: Final = frozenset({408, 425, 429})


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
        limits = httpx.Limits(max_connections=8)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=not is_loopback(url))

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
    """The answer's JSON object, its texts such as can be kept; empty when it is none, or too large to be a result."""
    if len(answer.content) > ANSWER_BYTES:
        return {}
    try:
        told = answer.json()
    except ValueError:
        return {}
    found: Json = kept(told) if isinstance(told, dict) else {}
    return found
