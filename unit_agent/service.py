"""Telling systemd how the agent is: ready, alive, stopping. Without systemd nothing is told and nothing is needed.

The protocol is one datagram with `NAME=value` lines to the socket in NOTIFY_SOCKET (sd_notify(3)); a watchdog's word
comes from the event loop, so a loop that hangs is noticed and the agent started anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger()


@asynccontextmanager
async def told_to_systemd(
    status: Callable[[], str], environment: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Say that the agent is ready, then now and again that it lives and how it is, and that it stops in the end."""
    environment = os.environ if environment is None else environment
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        yield
        return
    watchdog = int(environment.get("WATCHDOG_USEC") or 0) / 1_000_000
    _say(address, f"READY=1\nSTATUS={status()}")
    async with asyncio.TaskGroup() as group:
        alive = group.create_task(_keep_telling(address, status, every=watchdog / 3 if watchdog else 30.0))
        try:
            yield
        finally:
            alive.cancel()
            _say(address, "STOPPING=1")


async def _keep_telling(address: str, status: Callable[[], str], *, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        _say(address, f"WATCHDOG=1\nSTATUS={status()}")


def _say(address: str, text: str) -> None:
    if address.startswith("@"):  # a name that is no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(address)
            out.sendall(text.encode())
    except OSError as why:
        log.warning("systemd_not_told", error_type=type(why).__name__)
