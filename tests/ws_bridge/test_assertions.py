"""An assertion is good once, also where the database's clock and ours do not agree."""

from __future__ import annotations

import time

import pytest

from infra.database import pool
from infra.unit_credentials import Exchange
from infra.unit_keys import SKEW, AssertionRefused, SigningKey
from tests.ws_bridge.centre import Centre

UNIT = "north"


@pytest.mark.parametrize("behind", [60, -60], ids=["our clock behind", "our clock ahead"])
async def test_a_used_assertion_is_remembered_until_nobody_would_take_it(
    centre: Centre, postgres: str, behind: int
) -> None:
    await centre.unit(UNIT)
    key = SigningKey.generate()
    await centre.database.execute(
        "INSERT INTO read_unit_keys (unit_id, key_id, partition, public_key, registered_at) "
        "VALUES (%s, %s, 0, %s, now())",
        (UNIT, key.public.key_id, key.public.text),
    )
    ours = time.time() - behind
    async with pool(postgres, role="bridge") as database:
        exchange = Exchange(database, None, token_seconds=600, clock=lambda: ours)
        old = key.assertion(UNIT, ours - SKEW - 30)  # its 60 seconds and the skew end in half a minute
        await exchange.take(UNIT, old)
        for _ in range(2):
            await exchange.take(UNIT, key.assertion(UNIT, ours))
        with pytest.raises(AssertionRefused) as no:
            await exchange.take(UNIT, old)
    assert no.value.code == "assertion_replayed"
