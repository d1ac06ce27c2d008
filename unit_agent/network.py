"""The network's HTTP side as an agent uses it: one question, one answer, and what to make of a no. No retries here."""

from __future__ import annotations

import ssl
from typing import Any, Final

from contracts.envelope import Json
from unit_agent.addresses import is_loopback

TIMEOUT: Final = 15.0
LONGEST_ANSWER: Final = 64 * 1024


class NetworkAway(Exception):
    """No answer, or one that says: later. `why` is a short code; `retry_after` what was asked for, in seconds."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class NetworkRefused(Exception):
    """The network says no. `code` is the problem's; `server_time` its clock, where it told."""

    def __init__(self, status: int, code: str, server_time: str | None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.server_time = server_time


class Gateway:
    """The network's gateway. The HTTP client is loaded when it is first asked: small machines need it rarely."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: with the client certificate that a proxy asks for; None: none is."""
        self.url: Final = url.rstrip("/")
        self._tls = tls

    async def post(self, path: str, body: Json) -> Json:
        """The answer's object. Raises NetworkAway, NetworkRefused."""
        import httpx

        verify: Any = self._tls if self._tls is not None else True  # Any: what httpx takes
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=not is_loopback(self.url), verify=verify) as client:
            try:
                answer = await client.post(self.url + path, json=body)
            except httpx.HTTPError as why:
                raise NetworkAway(type(why).__name__) from None
        told = _object(answer.content)
        status = answer.status_code
        if answer.is_success and told:
            return told
        if status in (408, 425, 429) or status >= 500 or answer.is_success or not told:
            # A proxy's page in place of our answer is no answer either: its 404 does not mean that we are not known.
            after = answer.headers.get("Retry-After", "")
            raise NetworkAway(f"http_{status}", float(after) if after.isdigit() else None)
        raise NetworkRefused(status, str(told.get("code", f"http_{status}")), told.get("serverTime"))


def _object(content: bytes) -> Json:
    import json

    if len(content) > LONGEST_ANSWER:
        return {}
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
