"""A read side on a fresh database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.projections.readside import ReadSide, read_side


@pytest.fixture
async def side(postgres: str) -> AsyncIterator[ReadSide]:
    """The read side, without its process."""
    async with read_side(postgres) as side:
        yield side
