"""Trouble with the database is told from what a statement is at fault for: one is waited out, the other is not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from infra.database import DatabaseUnavailable, Pool, check, connected, plain_array, pool
from infra.services.ports import free_ports


async def test_a_database_that_is_not_there_is_trouble() -> None:
    (port,) = free_ports(1)
    async with pool(f"postgresql://nobody@127.0.0.1:{port}/none", role="handlers", timeout=0.2) as nowhere:
        with pytest.raises(DatabaseUnavailable):
            async with connected(nowhere):
                pass


async def test_a_connection_cut_in_the_middle_is_trouble(postgres: str) -> None:
    async with pool(postgres, role="handlers") as some:
        with pytest.raises(DatabaseUnavailable):  # noqa: PT012 - what is tried is the whole block
            async with connected(some) as connection:
                with psycopg.connect(postgres, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
                await connection.execute("SELECT 1")


async def test_trouble_while_a_task_is_being_cancelled_does_not_keep_it_alive(postgres: str) -> None:
    async def works_and_would_wait_for_better_days(database: Pool, begun: asyncio.Event) -> str:
        try:
            async with connected(database):
                try:
                    begun.set()
                    await asyncio.sleep(60)
                finally:
                    raise psycopg.OperationalError("the rollback failed")
        except DatabaseUnavailable:
            return "waiting"

    begun = asyncio.Event()
    async with pool(postgres, role="handlers") as some:
        task = asyncio.create_task(works_and_would_wait_for_better_days(some, begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_data_or_a_bug_is_at_fault_for_is_not_trouble(postgres: str) -> None:
    async with pool(postgres, role="handlers") as some:
        with pytest.raises(psycopg.DataError):
            async with connected(some) as connection:
                await connection.execute("SELECT '\\u0000'::jsonb")
        with pytest.raises(psycopg.InterfaceError):  # noqa: PT012 - what is tried is the whole block
            async with connected(some) as connection:
                cursor = connection.cursor()
                await cursor.close()
                await cursor.execute("SELECT 1")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            async with connected(some) as connection:
                await connection.execute(
                    "INSERT INTO claims (unit_id, kind, key, holder) "
                    "SELECT string_agg(md5(n::text), ''), 'k', 'x', 'h' FROM generate_series(1, 2000) AS n"
                )


async def test_ids_numbers_and_instants_go_as_plain_arrays(postgres: str) -> None:
    ids, at = [uuid4(), uuid4()], datetime(2026, 3, 2, 12, 30, 0, 5, tzinfo=UTC)
    async with pool(postgres, role="handlers") as some, connected(some) as connection:
        cursor = await connection.execute(
            "SELECT %s::text[], %s::uuid[], %s::bigint[], %s::timestamptz[]",
            (plain_array(["north-1", "south"]), plain_array(ids), plain_array([1, 2**40]), plain_array([at])),
        )
        assert await cursor.fetchone() == (["north-1", "south"], ids, [1, 2**40], [at])
        cursor = await connection.execute("SELECT %s::text[]", (plain_array([]),))
        assert await cursor.fetchone() == ([],)


def test_doctor_sees_a_database_without_a_schema_and_a_server_that_is_not_there(
    services: object, postgres: str
) -> None:
    (port,) = free_ports(1)
    away = check(f"postgresql://nobody@127.0.0.1:{port}/none")
    good = check(postgres)

    assert [(finding.id, finding.state) for finding in away] == [("postgres.reachable", "failed")]
    assert away[0].remedy
    assert {finding.state for finding in good} == {"ok"}
