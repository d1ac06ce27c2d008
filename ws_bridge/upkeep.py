"""What is done to links from outside: stuck ones and expired tokens are ended now and then, all of them on leaving."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import structlog

from contracts.frames import CloseCode
from infra.telemetry.metrics import Metrics
from ws_bridge.link import Link
from ws_bridge.links import Links
from ws_bridge.pacing import jittered
from ws_bridge.server import HEARTBEAT_SECONDS

LOOK_SECONDS: Final = 2.0
AT_A_TIME: Final = 500
"""Links looked at before others get their turn."""
UNITS_A_SECOND: Final = 300
"""However few a bridge holds, it lets them go no more slowly than this."""
BREATH: Final = 0.1
"""Between two batches of closes."""
AWAY_SECONDS: Final = 1.0
"""For how long, at most, a unit is told to stay away: the closes are spread already."""
CLOSED_SECONDS: Final = 3.5
"""How long the last ones may take to answer the close."""

log = structlog.get_logger()


async def look_after(links: Links, metrics: Metrics) -> None:
    """End links that are stuck, silent or whose token has expired, ask quiet ones whether they are there, and count
    them all, until cancelled.
    """
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        behind = unleased = 0
        for number, link in enumerate(links):
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)  # ten thousand at once would hold up everybody
                wall, now = time.time(), clock()
            behind += link.session.feed.is_behind
            unleased += not link.may_speak
            silent = now - link.socket.heard_at
            if link.is_stuck():
                link.end(CloseCode.TOO_SLOW, "facts were not acknowledged in time")
            elif wall >= link.credential.ends_at:
                link.end(CloseCode.TOKEN_NOT_VALID, "the token has expired")
            elif silent >= 2 * HEARTBEAT_SECONDS + LOOK_SECONDS:
                log.info("link_silent", unit_id=link.unit_id, epoch=link.epoch, seconds=round(silent, 1))
                link.socket.transport.abort()
            elif silent >= HEARTBEAT_SECONDS:
                link.socket.knock()
        metrics.units.labels("catching_up").set(behind)
        metrics.units.labels("connected").set(len(links) - behind)
        metrics.units.labels("unleased").set(unleased)


async def leave(links: Links, seconds: float) -> None:
    """End every link, spread over `seconds` (less when there are few), each unit told when to come back: whoever takes
    them over sees a steady stream and no storm.
    """
    links.away = AWAY_SECONDS
    leaving: Sequence[Link] = random.sample(held := list(links), len(held))
    if not leaving:
        return
    seconds = min(seconds, len(leaving) / UNITS_A_SECOND)
    log.info("leaving", count=len(leaving), seconds=round(seconds, 1))
    clock = asyncio.get_running_loop().time
    begun, done = clock(), 0
    while done < len(leaving):
        share = min(1.0, (clock() - begun + BREATH) / seconds) if seconds > BREATH else 1.0
        through = max(done + 1, int(len(leaving) * share))
        for link in leaving[done:through]:
            link.end(CloseCode.GOING_AWAY, "the bridge is leaving", jittered(AWAY_SECONDS))
        done = through
        if done < len(leaving):
            await asyncio.sleep(BREATH)
    try:
        async with asyncio.timeout(CLOSED_SECONDS):
            await asyncio.gather(*(link.socket.wait_closed() for link in leaving))
    except TimeoutError:
        log.warning("links_not_closed", count=sum(1 for _ in links))
