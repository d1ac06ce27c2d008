"""Whether a Postgres or a RabbitMQ behind a URL really answers: a login, not only an open port.

Leaves what they should contain to `infra.database` and `infra.broker`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aiormq
import psycopg
from aiormq.exceptions import AMQPError

BROKER_TROUBLE = (AMQPError, OSError, asyncio.TimeoutError, EOFError)


def why_postgres_is_silent(url: str, *, timeout: float = 3) -> str | None:
    """None if a login works, else the reason (without the URL, which holds a password)."""
    try:
        with psycopg.connect(url, connect_timeout=max(2, round(timeout)), autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as trouble:
        return str(trouble).strip() or type(trouble).__name__
    return None


def why_rabbitmq_is_silent(url: str, *, timeout: float = 3) -> str | None:
    """None if a login works, else the reason (without the URL, which holds a password)."""
    # A thread, because the caller may itself be inside a running event loop.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _login(url, timeout)).result()


async def _login(url: str, timeout: float) -> str | None:
    connection = aiormq.Connection(url)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
            await connection.close()
    except BROKER_TROUBLE as trouble:
        return f"{type(trouble).__name__}: {trouble}".rstrip(": ")
    return None
