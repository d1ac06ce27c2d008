"""The link to the centre for as long as the agent runs: connects, hands the connection over, comes back when it ends.

When to come back is `unit_agent.reconnect`'s; what happens on a connection `unit_agent.connection`'s.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from contracts.frames import MAX_FRAME_DOWN_BYTES, SUBPROTOCOL, CloseCode
from unit_agent.addresses import is_loopback
from unit_agent.connection import Connection
from unit_agent.credential import Credential, CredentialDelayed, CredentialRefused, CredentialUnusable
from unit_agent.link_state import Shared
from unit_agent.reconnect import Ended, Reconnecting

OPEN_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 3.0
KEEPALIVE: Final = 20.0
LOOK_FOR_ANOTHER: Final = 2.0
"""Seconds between looks for another credential while away."""
SHUT_OUT: Final = CloseCode.CREDENTIAL_REVOKED
RENEWABLE: Final = frozenset({CloseCode.TOKEN_NOT_VALID, SHUT_OUT})
"""Closes after which the token in use is worth nothing any more."""
OF_THE_CREDENTIAL: Final = RENEWABLE | {CloseCode.NOT_ALLOWED}

log = structlog.get_logger()


class Uplink:
    """One unit's link."""

    def __init__(
        self, url: str | None, credential: Credential, shared: Shared, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """`url`: None, where the credential's network tells that it is. `tls`: with a client certificate."""
        self._url = url
        self._tls = tls
        self._attempts = 0
        self._credential = credential
        self._shared = shared

    async def serve(self) -> None:
        """Connect again and again until cancelled."""
        reconnecting = Reconnecting(random.uniform)
        state = self._shared.state
        while True:
            state.state = "connecting"
            ended = await self._connected()
            pause = reconnecting.after(ended)
            state.state = "away" if pause.remedy is None else "stopped"
            state.why, state.remedy = ended.why, pause.remedy
            state.retry_at = datetime.now(UTC) + timedelta(seconds=pause.seconds)
            say = log.info if pause.remedy is None else log.error
            seconds = round(pause.seconds, 2)
            say("link_away", unit_id=self._shared.unit_id, reason=ended.why, code=pause.remedy, seconds=seconds)
            is_credential = ended.http_status in (401, 403) or ended.close_code in OF_THE_CREDENTIAL
            await (self._stay_away if is_credential else asyncio.sleep)(pause.seconds)

    async def _stay_away(self, seconds: float) -> None:
        """Or less, when somebody gives this agent another credential meanwhile."""
        loop = asyncio.get_running_loop()
        end_by = loop.time() + seconds
        while (left := end_by - loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_FOR_ANOTHER))
            if self._credential.has_changed():
                return

    def _target(self) -> str:
        links = [self._url] if self._url is not None else self._credential.links()
        self._attempts += 1
        return links[self._attempts % len(links)]

    async def _connected(self) -> Ended:
        """One connection, from the attempt to its end."""
        try:
            token = await self._credential.bearer()
            url = self._target()
            socket = await connect(
                url,
                additional_headers={"Authorization": f"Bearer {token}"},
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_FRAME_DOWN_BYTES,
                max_queue=8,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=KEEPALIVE,
                ping_timeout=KEEPALIVE,
                user_agent_header=f"carespine-unit-agent/{self._shared.version}",
                proxy=None if is_loopback(url) else True,
                ssl=self._tls if url.startswith("wss:") else None,
            )
        except CredentialRefused as why:
            return Ended("credential_refused", http_status=403, remedy=str(why))
        except CredentialUnusable as why:
            return Ended("credential_unusable", http_status=401, remedy=str(why))
        except CredentialDelayed as delayed:
            return Ended(delayed.why, retry_after=delayed.retry_after)
        except InvalidStatus as refused:
            status = refused.response.status_code
            if status == 401 and self._credential.refused():
                return Ended("http_401")
            told = refused.response.headers.get("Retry-After", "")
            return Ended(f"http_{status}", http_status=status, retry_after=float(told) if told.isdigit() else None)
        except (OSError, TimeoutError, InvalidHandshake) as trouble:
            return Ended(type(trouble).__name__)
        try:
            ended = await Connection(socket, self._shared, self._credential).run()
            if ended.close_code in RENEWABLE and self._credential.refused() and ended.close_code != SHUT_OUT:
                return replace(ended, close_code=None)  # nothing for anybody to do: another token is to be had
            return ended
        finally:
            await socket.close()
