"""`carespine migrate`: the database's schema and the broker's topology brought to what this release expects."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, result

DEADLINE = 600


def migrate() -> None:
    """Bring database and broker to this release; does nothing where they are. Safe while the previous release runs."""
    from infra.installation import Places
    from infra.services.launcher import running_urls

    services = running_urls(Places.of_this_command().var)
    if services.postgres is None or services.rabbitmq is None:
        remedy = "`carespine up --services-only`, or set CARESPINE_POSTGRES_URL and CARESPINE_RABBITMQ_URL"
        fail(f"Postgres or RabbitMQ is missing: {remedy}", ExitCode.UNREACHABLE)
    bring_to_release(services.postgres, services.rabbitmq)
    result("schema and topology are those of this release")


def bring_to_release(postgres_url: str, rabbitmq_url: str) -> None:
    """Run the migrations (a program of its own, above this package) and declare the topology."""
    from infra.broker.topology import declare

    environment = os.environ | {"CARESPINE_POSTGRES_URL": postgres_url}
    done = subprocess.run(
        [sys.executable, "-m", "migrations"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    if done.returncode != 0:
        fail(f"the migration failed:\n{done.stderr.strip()}", ExitCode.FAILED)
    asyncio.run(declare(rabbitmq_url, partitions=partitions()))


def partitions() -> int:
    """How many partitions this installation has; fixed at its first migration."""
    return int(os.environ.get("CARESPINE_PARTITIONS") or 16)
