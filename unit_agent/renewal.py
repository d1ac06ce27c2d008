"""Keeping a session's credential fresh: long before it runs out, in the link itself, else over HTTP, until it is done.

One refused or lost attempt ends nothing: the next comes soon, by the other way. What is shown is
`unit_agent.credential`'s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from contracts.frames import Renewed
from unit_agent.credential import Credential, CredentialDelayed, CredentialUnusable
from unit_agent.link import Link

SHARE: Final = 2 / 3
"""Of what the credential has left: then it is renewed."""
SPREAD: Final = 0.1
"""Less of it by a random part of this, so that a thousand agents do not renew at once."""
ANSWER: Final = 10.0
"""Seconds to wait for `renewed`."""
SHORTEST: Final = 1.0
LONGEST_PAUSE: Final = 60.0

log = structlog.get_logger()


class Renewal:
    """Of one connection."""

    def __init__(
        self,
        link: Link,
        credential: Credential,
        *,
        say: Callable[[bytes], Awaitable[None]],
        now: Callable[[], datetime],
        unit_id: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`now`: the centre's time, as far as we know."""
        self._link = link
        self._credential = credential
        self._say = say
        self._now = now
        self._unit_id = unit_id
        self._sleep = sleep
        self._renewed = asyncio.Event()

    def heard(self, renewed: Renewed) -> None:
        """The centre has renewed the session."""
        self._credential.renewed(renewed.token, renewed.expires_at)
        self._renewed.set()

    async def run(self) -> None:
        """Renew again and again until cancelled; returns when there is nothing to renew or nothing to do it with."""
        if not self._credential.is_renewable():
            return
        while (expires_at := self._link.credential_expires_at) is not None:
            left = max(0.0, (expires_at - self._now()).total_seconds())
            await self._sleep(max(SHORTEST, left * (SHARE - SPREAD * random.random())))  # noqa: S311 - jitter
            await self._renew(expires_at)

    async def _renew(self, expires_at: datetime) -> None:
        """Until it is done; where it is not in time, the centre ends the session, and the next has another token."""
        attempt = 0
        while self._link.credential_expires_at == expires_at:
            attempt += 1
            why = await self._tried(expires_at, over_http=attempt % 2 == 0)
            if why is None:
                return
            left = max(0.0, (expires_at - self._now()).total_seconds())
            pause = min(max(SHORTEST, left / 8), LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            log.info("renewal_delayed", unit_id=self._unit_id, reason=why, attempt=attempt, seconds=round(pause, 1))
            await self._sleep(pause)

    async def _tried(self, expires_at: datetime, *, over_http: bool) -> str | None:
        """One attempt; why it came to nothing, or None."""
        assertion = None if over_http else self._credential.proof(self._now())
        try:
            token = None if assertion is not None else await self._credential.newer(expires_at)
        except CredentialDelayed as delayed:
            return delayed.why
        except CredentialUnusable:
            return "credential_unusable"
        if assertion is None and token is None:
            return "no_newer_token"
        self._renewed.clear()
        await self._say(self._link.renew(assertion=assertion, token=token))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER):
                await self._renewed.wait()
                return None
        return "no_answer"
