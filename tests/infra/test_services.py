"""The launcher of local services, tried on real ones."""

from __future__ import annotations

import psycopg

from infra.services.answers import why_postgres_is_silent, why_rabbitmq_is_silent
from infra.services.launcher import Services


def test_both_services_let_us_in(services: Services) -> None:
    assert why_postgres_is_silent(services.postgres_url) is None
    assert why_rabbitmq_is_silent(services.rabbitmq_url) is None


def test_a_test_database_is_migrated_and_empty(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'alembic_version'").fetchone()
    assert tables == (1,)


def test_a_test_virtual_host_lets_us_in(rabbitmq: str) -> None:
    assert why_rabbitmq_is_silent(rabbitmq) is None
