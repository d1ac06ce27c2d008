"""`python -m migrations`: brings the database at CARESPINE_POSTGRES_URL to this release's schema."""

from __future__ import annotations

import os
import sys

from migrations import upgrade

if __name__ == "__main__":
    url = os.environ.get("CARESPINE_POSTGRES_URL")
    if not url:
        sys.exit(
            "CARESPINE_POSTGRES_URL is missing: the database to migrate, postgresql://user:password@host:5432/database"
        )
    upgrade(url, partitions=int(os.environ.get("CARESPINE_PARTITIONS") or 16))
