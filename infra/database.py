"""Connections to Postgres: one pool per process in that process's database role, and what `doctor` checks of it.

Statements live with whoever owns the table. A pool opens in the background, so a process starts and says so while the
database is away; taking a connection then raises `DatabaseUnavailable` after its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection, AsyncPipeline
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from infra.findings import Finding

Connection = AsyncConnection[tuple[Any, ...]]  # Any: columns have the types their statement says
Pool = AsyncConnectionPool[Connection]

ROLES = ("handlers", "projections", "gateway", "bridge", "desk")
OLDEST_SERVER = 150_000
"""PostgreSQL 15: the oldest this release is tried with."""


class DatabaseUnavailable(Exception):
    """Postgres cannot be reached right now; wait and try again, nothing is lost."""


BY_KEY = frozenset({"handlers", "projections"})
"""Roles whose statements take a batch of keys and must find each by index, whatever the planner knows of the tables.

Their plans are cached, and may have been made while the tables were empty: scanning a whole table is no choice for them
(7 ms a batch at 12,000 events, growing). Nor is planning anew for each batch.
"""
_FIND_EACH = "".join(
    f" -c {setting}"
    for setting in (
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "jit=off",  # up to PostgreSQL 17 what is switched off above counts as cost, enough to have it compiled
    )
)


def role_options(role: str) -> str:
    """libpq `options` that make a session act as `carespine_<role>`."""
    options = f"-c role=carespine_{role} -c idle_in_transaction_session_timeout=60000"
    if role in BY_KEY:
        options += _FIND_EACH
    return options


def pool(
    url: str, *, role: str, smallest: int = 1, largest: int = 10, timeout: float = 5.0, probed: bool = True
) -> Pool:
    """A pool (not yet open: `async with pool(...)` or `await it.open(wait=False)`) acting as `carespine_<role>`.

    `probed` tries a connection before handing it out (a round trip each time), for users who do not try again.
    """
    return AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[tuple[Any, ...]],  # Any: see Connection
        min_size=smallest,
        max_size=largest,
        timeout=timeout,
        open=False,
        name=f"carespine-{role}",
        reconnect_timeout=0,
        configure=_read_json_fast,
        check=AsyncConnectionPool.check_connection if probed else None,
        kwargs={
            "options": role_options(role),
            "autocommit": True,
            "connect_timeout": 5,
            "keepalives_idle": 15,
            "tcp_user_timeout": 15_000,
            "prepare_threshold": 2,
        },
    )


async def _read_json_fast(connection: Connection) -> None:
    set_json_loads(orjson.loads, connection)


@asynccontextmanager
async def connected(source: Pool) -> AsyncIterator[Connection]:
    """One connection of the pool in autocommit mode; trouble with the database becomes `DatabaseUnavailable`.

    What a statement or its data is at fault for passes through: waiting would not mend it.
    """
    connection: Connection | None = None
    try:
        async with source.connection() as connection:
            yield connection
    except (PoolTimeout, psycopg.OperationalError) as why:
        if isinstance(why, psycopg.errors.ProgramLimitExceeded):
            raise
        raise _unavailable(why) from why
    except psycopg.InterfaceError as why:
        if connection is not None and not connection.closed:
            raise
        raise _unavailable(why) from why


def plain_array(values: Iterable[object]) -> str:
    """Ids, numbers or instants as an array literal, to be cast (`%s::bigint[]`); nothing that would have to be quoted.

    The library looks at each element of a list and takes three times as long, 20 us a row of a batch, all at once.
    """
    return "{" + ",".join(map(str, values)) + "}"


def _unavailable(why: Exception) -> DatabaseUnavailable | asyncio.CancelledError:
    """Trouble in the middle of a cancellation (its rollback failed, say) must not be waited out: the task is to end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return DatabaseUnavailable(type(why).__name__)


@asynccontextmanager
async def one_transaction(connection: Connection) -> AsyncIterator[AsyncPipeline]:
    """A transaction whose statements travel together: a round trip for each fetch inside and one for the rest.

    An error of a statement shows at the next fetch or `sync`, or when the block ends; nothing is committed then. The
    connection is in autocommit mode (a pool's is).
    """
    try:
        async with connection.pipeline() as pipeline:
            await connection.execute(b"BEGIN")
            yield pipeline
            # After a failed statement the server skips everything up to the end of the pipeline, this too.
            await connection.execute(b"COMMIT")
    except BaseException:
        if not connection.closed:
            await connection.rollback()
        raise


async def listening(url: str, *, role: str, channel: str) -> Connection:
    """A connection of its own that listens on `channel` (a hint, never the truth); the caller closes it."""
    connection: Connection = await AsyncConnection.connect(
        url, autocommit=True, options=role_options(role), connect_timeout=5
    )
    await connection.execute(f'LISTEN "{channel}"'.encode())
    return connection


def check(url: str) -> list[Finding]:
    """What of the database differs from what this release expects; each finding says what to do."""
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            return list(_findings(connection))
    except psycopg.OperationalError as why:
        return [
            Finding(
                id="postgres.reachable",
                state="failed",
                seen=type(why).__name__,
                expected="a connection within 5 s",
                remedy="start Postgres (`carespine up`) or correct CARESPINE_POSTGRES_URL",
            )
        ]


def _findings(connection: psycopg.Connection[Any]) -> list[Finding]:  # Any: rows of several shapes
    def one(statement: str) -> Any:  # Any: a single value
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None

    def finding(check: str, good: bool, *, seen: object, expected: str, remedy: str) -> Finding:
        return Finding(id=check, state="ok" if good else "failed", seen=str(seen), expected=expected, remedy=remedy)

    version = connection.info.server_version
    migrated = one("SELECT to_regclass('alembic_version') IS NOT NULL")
    revision = migrated and one("SELECT version_num FROM alembic_version")
    there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    missing = [role for role in ROLES if f"carespine_{role}" not in there]
    durable = {name: one(f"SHOW {name}") for name in ("fsync", "full_page_writes", "synchronous_commit")}
    return [
        finding("postgres.reachable", True, seen="connected", expected="a connection", remedy=""),
        finding(
            "postgres.version",
            version >= OLDEST_SERVER,
            seen=version // 10_000,
            expected="15 or newer",
            remedy="upgrade Postgres",
        ),
        finding(
            "postgres.schema",
            bool(revision),
            seen=revision or "no schema",
            expected="this release's revision",
            remedy="run `carespine migrate`",
        ),
        finding(
            "postgres.roles",
            not missing,
            seen="missing: " + ", ".join(missing) if missing else "all there",
            expected=", ".join(f"carespine_{role}" for role in ROLES),
            remedy="run `carespine migrate` as a user with CREATEROLE",
        ),
        finding(
            "postgres.durable",
            all(value != "off" for value in durable.values()),
            seen=", ".join(f"{name}={value}" for name, value in durable.items()),
            expected="none of them off",
            remedy="set fsync, full_page_writes and synchronous_commit to on: an accepted command must survive a crash",
        ),
    ]
