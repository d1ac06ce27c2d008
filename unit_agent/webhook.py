"""The connector to a site's own system behind HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from contracts.envelope import Json
from contracts.text import kept
from unit_agent.addresses import is_loopback
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.mailbox import Order

ANSWER_BYTES: Final = 64 * 1024
LONGEST_TOLD: Final = 3600.0
"""Seconds, however long the site asks to be left alone."""
SECRET_BYTES: Final = 16
SIGNATURE: Final = "Carespine-Signature"
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,79}")
_COME_BACK: Final = frozenset({408, 425, 429})


class SecretUnusable(Exception):
    """The file with the webhook's secret cannot be used; the message says why and never shows the secret."""


class Webhook:
    """The site's system behind HTTP.

    `POST {url}` with `{id, type, payload, patientId, deadline}` and `Idempotency-Key: <id>`: 2xx is done (a JSON object
    is its result), 3xx/408/425/429/5xx and silence are unsure (`Retry-After` is kept to), any other answer declines
    (`code` of a JSON body, else `http_<status>`).
    `GET {url}/{id}` -> 200 `{"applied": true|false, "result": {...}}` tells what became of one; 404: it cannot tell.
    `POST {url}/{id}/revalidate` -> 200 `{"valid": true|false}`; 404: the site has no opinion, so it is wanted.

    With a secret, each request carries `Carespine-Signature: t=<unix seconds>,v1=<hex>`, the HMAC-SHA256 of
    `<t>.<method>.<path and query>.<body>`.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        secret_file: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`secret_file` is read again for each request, so that the secret can be changed."""
        self._url = url.rstrip("/")
        self._secret_file = secret_file
        self._now = now
        self._patience = max(2 * timeout, 1.0)
        """For all of a request: `timeout` is for each step of it, and an answer may come in any number of steps."""
        limits = httpx.Limits(max_connections=8)
        # What this machine trusts, a site's own authority among it; httpx would bring a list of its own.
        trusted = ssl.create_default_context() if url.startswith("https:") else True
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=not is_loopback(url), verify=trusted)

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
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            if self._secret_file is not None:
                headers[SIGNATURE] = signature(secret(self._secret_file), method, url, content, self._now())
            async with asyncio.timeout(self._patience):
                answer = await self._client.request(method, url, content=content, headers=headers)
        except (httpx.HTTPError, SecretUnusable, TimeoutError) as why:
            return Unsure(type(why).__name__)
        if answer.status_code >= 500 or answer.status_code in _COME_BACK or answer.is_redirect:
            return Unsure(f"http_{answer.status_code}", after=_retry_after(answer, self._now()))
        return answer


def secret(file: Path) -> bytes:
    """The secret in a file. Raises SecretUnusable."""
    try:
        found = file.read_bytes().strip()
    except OSError as why:
        raise SecretUnusable(f"{file} cannot be read: {type(why).__name__}") from why
    if len(found) < SECRET_BYTES:
        raise SecretUnusable(f"{file} holds less than {SECRET_BYTES} bytes: openssl rand -hex 32 > {file}")
    return found


def signature(key: bytes, method: str, url: str, body: bytes, at: datetime) -> str:
    """What shows the site that a request is this agent's, and of when."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    moment = int(at.timestamp())
    signed = f"{moment}.{method}.{target}.".encode() + body
    return f"t={moment},v1={hmac.new(key, signed, hashlib.sha256).hexdigest()}"


def _retry_after(answer: httpx.Response, now: datetime) -> float:
    told = answer.headers.get("Retry-After", "").strip()
    if told.isascii() and told.isdigit():
        return min(float(told), LONGEST_TOLD)
    try:
        return min(max((parsedate_to_datetime(told) - now).total_seconds(), 0.0), LONGEST_TOLD)
    except (ValueError, TypeError):  # nothing told, or no date, or one without a zone
        return 0.0


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
