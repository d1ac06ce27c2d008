"""The whole schema, as alembic revisions. `upgrade` brings a database to what this release expects."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import command
from alembic.config import Config

_HERE = Path(__file__).parent


def configuration(postgres_url: str) -> Config:
    """Alembic's configuration for the database at `postgres_url` (a libpq URL, `postgresql://…`)."""
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["postgres_url"] = postgres_url
    return config


def upgrade(postgres_url: str, *, partitions: int = 16) -> None:
    """Bring the database at `postgres_url` to this release's schema; does nothing when it is there already.

    `partitions` counts at the first run only: it is fixed for the life of an installation.
    """
    config = configuration(postgres_url)
    config.attributes["partitions"] = partitions
    # Two deployments may migrate at once; alembic's own output has nothing for the user.
    os.environ.setdefault("PGAPPNAME", "carespine-migrate")
    command.upgrade(config, "head")
