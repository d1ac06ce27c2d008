"""What is done to links from outside: stuck ones and expired tokens are ended now and then, all of them on leaving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from contracts.frames import CloseCode
from infra.telemetry.metrics import Metrics
from ws_bridge.link import Link
from ws_bridge.links import Links
from ws_bridge.pacing import jittered

LOOK_SECONDS: Final = 2.0
LEAVING_AT_ONCE: Final = 100
"""Links closed together on leaving; then a breath."""
LEAVING_BREATH: Final = 0.1
LEAVING_LONGEST: Final = 15.0
"""Seconds a bridge takes to close all of its links."""
UNITS_A_SECOND: Final = 300
"""What the other bridges can welcome: units are told to come back spread over that much time."""
SHORTEST_SPREAD: Final = 1.0

log = structlog.get_logger()


async def look_after(links: Links, metrics: Metrics) -> None:
    """End links that are stuck or whose token has expired, and count the others, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.time()
        behind = sum(link.session.feed.is_behind for link in links)
        metrics.units.labels("catching_up").set(behind)
        metrics.units.labels("connected").set(len(links) - behind)
        for link in links:
            if link.is_stuck():
                link.end(CloseCode.TOO_SLOW, "facts were not acknowledged in time")
            elif now >= link.expires_at:
                link.end(CloseCode.TOKEN_NOT_VALID, "the token has expired")


async def leave(links: Links) -> None:
    """End every link: in batches, each unit told when to come back, so that the others are not stormed."""
    leaving: Sequence[Link] = list(links)
    if not leaving:
        return
    spread = max(SHORTEST_SPREAD, len(leaving) / UNITS_A_SECOND)
    log.info("leaving", count=len(leaving), seconds=round(spread, 1))
    at_once = max(LEAVING_AT_ONCE, int(len(leaving) * LEAVING_BREATH / LEAVING_LONGEST))
    for start in range(0, len(leaving), at_once):
        for link in leaving[start : start + at_once]:
            link.end(CloseCode.GOING_AWAY, "the bridge is leaving", jittered(spread))
        await asyncio.sleep(LEAVING_BREATH)
    try:
        async with asyncio.timeout(LEAVING_LONGEST / 3):
            await asyncio.gather(*(link.socket.wait_closed() for link in leaving))
    except TimeoutError:
        log.warning("links_not_closed", count=sum(1 for _ in links))
