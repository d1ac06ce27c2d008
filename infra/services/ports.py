"""Free TCP ports on the loopback interface, and whether somebody listens on one."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
RANGE = range(15_000, 32_000)
"""Below the ephemeral ports of Linux (32768 up), macOS and Windows (49152 up)."""


def is_free(port: int) -> bool:
    """True if we could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def become_free(ports: Iterable[int], *, timeout: float) -> bool:
    """True as soon as all the ports are free; a killed server may hold its own a moment longer than it lives."""
    deadline = time.monotonic() + timeout
    waiting = set(ports)
    while waiting := {port for port in waiting if not is_free(port)}:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_listening(port: int, *, timeout: float = 1.0) -> bool:
    """True if somebody takes connections on the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout):
            return True
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, outside the range the system takes ports of outgoing connections from.

    A server that is started again finds its port free, whatever connections were opened meanwhile.
    """
    candidates = random.sample(RANGE, len(RANGE))
    found = [port for port, _ in zip((port for port in candidates if is_free(port)), range(count), strict=False)]
    if len(found) < count:
        raise OSError(f"no {count} free ports between {RANGE[0]} and {RANGE[-1]} on {LOOPBACK}")
    return found
