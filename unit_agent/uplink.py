"""The link to the centre for as long as the agent runs: connects, hands the connection over, comes back when it ends.

When to come back is `unit_agent.reconnect`'s; what happens on a connection `unit_agent.connection`'s.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from contracts.frames import MAX_FRAME_DOWN_BYTES, SUBPROTOCOL
from unit_agent.addresses import is_loopback
from unit_agent.connection import Connection
from unit_agent.credential import Credential, CredentialUnusable
from unit_agent.link_state import Shared
from unit_agent.reconnect import Ended, Reconnecting

OPEN_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 3.0
KEEPALIVE: Final = 20.0

log = structlog.get_logger()


class Uplink:
    """One unit's link."""

    def __init__(self, url: str, credential: Credential, shared: Shared) -> None:
        self._url = url
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
            await asyncio.sleep(pause.seconds)

    async def _connected(self) -> Ended:
        """One connection, from the attempt to its end."""
        try:
            socket = await connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._credential.token()}"},
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_FRAME_DOWN_BYTES,
                max_queue=8,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=KEEPALIVE,
                ping_timeout=KEEPALIVE,
                user_agent_header=f"carespine-unit-agent/{self._shared.version}",
                proxy=None if is_loopback(self._url) else True,
            )
        except CredentialUnusable:
            return Ended("credential_unusable", http_status=401)
        except InvalidStatus as refused:
            status = refused.response.status_code
            told = refused.response.headers.get("Retry-After", "")
            return Ended(f"http_{status}", http_status=status, retry_after=float(told) if told.isdigit() else None)
        except (OSError, TimeoutError, InvalidHandshake) as trouble:
            return Ended(type(trouble).__name__)
        try:
            return await Connection(socket, self._shared).run()
        finally:
            await socket.close()
