"""A link is renewed while it stands, and ended within a second when its credential is revoked. On real bridges."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import jwt
import psycopg
import pytest
from websockets.exceptions import InvalidStatus

from contracts.frames import CLOSINGS, CloseCode, Hello, Renew, Renewed
from contracts.identity import Role
from contracts.unit_credential import UnitCredentialRevoked
from infra.tokens import Claims, mint
from infra.unit_credentials import Revocation
from infra.unit_keys import SKEW, SigningKey
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import RawUnit, linked
from ws_bridge.credentials import GRACE, LinkCredential

UNIT = "north"


class Registry:
    """Keys and revocations as the projections write them, in the test's hand."""

    def __init__(self, centre: Centre, bridges: Bridges) -> None:
        self.centre = centre
        self.bridges = bridges

    async def enrol(self, key: SigningKey, *, valid_until: datetime | None = None) -> None:
        """The unit's key is known."""
        await self.centre.database.execute(
            "INSERT INTO read_unit_keys (unit_id, key_id, partition, public_key, registered_at, valid_until) "
            "VALUES (%s, %s, 0, %s, now(), %s)",
            (UNIT, key.public.key_id, key.public.text, valid_until),
        )

    def token(self, key: SigningKey, *, ttl: int = 600) -> str:
        """A token that was got with this key."""
        return mint(self.bridges.installed.private_key, role=Role.UNIT, unit=UNIT, key_id=key.public.key_id, ttl=ttl)

    async def revoke(
        self, key: SigningKey | None = None, *, seen: bool = True, pushed: bool = True, ago: float = 0
    ) -> None:
        """One key or all of them are revoked: `seen` in the read tables, `pushed` to whoever holds the link, both so
        many seconds late.
        """
        now = datetime.now(UTC) - timedelta(seconds=ago)
        key_id = None if key is None else key.public.key_id
        if seen:
            await self.centre.database.execute(
                "UPDATE read_unit_keys SET revoked_at = %s WHERE unit_id = %s AND key_id = coalesce(%s, key_id)",
                (now, UNIT, key_id),
            )
            await self.centre.database.execute(
                "INSERT INTO read_unit_revocations (unit_id, partition, position, key_id, not_before) VALUES "
                "(%s, 0, 1 + (SELECT count(*) FROM read_unit_revocations), %s, %s)",
                (UNIT, key_id, now),
            )
        if pushed:
            fact = UnitCredentialRevoked(unit_id=UNIT, key_id=key_id, not_before=now, reason="stolen")
            await self.centre.happens(UNIT, fact)


@pytest.fixture
async def registry(centre: Centre, bridges: Bridges) -> Registry:
    """The unit is known, its keys are not yet."""
    await centre.unit(UNIT)
    return Registry(centre, bridges)


@pytest.fixture
async def key(registry: Registry) -> SigningKey:
    """A key that is registered."""
    key = SigningKey.generate()
    await registry.enrol(key)
    return key


async def renew(unit: RawUnit, key: SigningKey, *, behind: float = 0) -> Renewed:
    await unit.say(Renew(epoch=unit.epoch, assertion=key.assertion(UNIT, time.time() - behind)))
    return await unit.hears(Renewed)


async def refused(url: str, token: str) -> int:
    with pytest.raises(InvalidStatus) as no:
        async with linked(url, UNIT, token):
            pass
    return no.value.response.status_code


async def test_a_link_is_renewed_and_outlives_the_token_it_was_opened_with(
    bridge: Started, registry: Registry, key: SigningKey, centre: Centre
) -> None:
    old = registry.token(key, ttl=3)
    async with linked(url_of(bridge), UNIT, old) as unit:
        welcome = await unit.hello()
        assert welcome.credential_expires_at is not None
        over = welcome.credential_expires_at.timestamp()
        assert over - time.time() < 4
        renewed = await renew(unit, key)
        assert renewed.expires_at - datetime.now(UTC) > timedelta(minutes=9)
        assert renewed.token is not None
        claims = jwt.decode(renewed.token, options={"verify_signature": False})
        assert (claims["unit"], claims["kid"]) == (UNIT, key.public.key_id)
        await eventually(lambda: time.time() > over + 3, within=8)
        last = await centre.happens(UNIT, patient())
        assert (await unit.knows(last))[-1] == last
    assert await refused(url_of(bridge), old) == 401
    async with linked(url_of(bridge), UNIT, renewed.token) as unit:
        assert (await unit.hello(last)).epoch == 2


@pytest.mark.parametrize("behind", [SKEW - 20, -(SKEW - 20)], ids=["clock behind", "clock ahead"])
async def test_a_unit_whose_clock_is_five_minutes_off_renews_all_the_same(
    bridge: Started, registry: Registry, key: SigningKey, behind: float
) -> None:
    async with linked(url_of(bridge), UNIT, registry.token(key)) as unit:
        await unit.hello()
        assert (await renew(unit, key, behind=behind)).token is not None


async def test_a_renewal_in_the_middle_of_facts_holds_nothing_up(
    bridge: Started, registry: Registry, key: SigningKey, centre: Centre
) -> None:
    async with linked(url_of(bridge), UNIT, registry.token(key)) as unit:
        await unit.hello()
        for _ in range(5):
            await centre.happens(UNIT, patient(), patient())
            await unit.say(Renew(epoch=unit.epoch, assertion=key.assertion(UNIT, time.time())))
        last = await centre.happens(UNIT, patient())
        positions = await unit.knows(last)
        assert positions == sorted(set(positions))
        assert len(positions) == 12


async def test_a_token_from_elsewhere_renews_the_session_too(
    bridge: Started, bridges: Bridges, registry: Registry
) -> None:
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT, ttl=3)) as unit:
        first = (await unit.hello()).credential_expires_at
        await unit.say(Renew(epoch=unit.epoch, token=bridges.token(UNIT, ttl=60)))
        renewed = await unit.hears(Renewed)
        assert (renewed.token, first is not None and renewed.expires_at > first) == (None, True)


async def test_what_does_not_renew_ends_the_link(
    bridge: Started, bridges: Bridges, registry: Registry, key: SigningKey, centre: Centre
) -> None:
    await centre.unit("south")
    now = time.time()
    used = key.assertion(UNIT, now)
    stranger = SigningKey.generate()
    over = SigningKey.generate()
    await registry.enrol(over, valid_until=datetime.now(UTC) - timedelta(seconds=1))
    for asked, code in (
        ({"assertion": "not one"}, CloseCode.TOKEN_NOT_VALID),
        ({}, CloseCode.TOKEN_NOT_VALID),
        ({"token": bridges.token("south")}, CloseCode.TOKEN_NOT_VALID),
        ({"token": bridges.token(UNIT, ttl=-60)}, CloseCode.TOKEN_NOT_VALID),
        ({"token": bridges.token(UNIT, role=Role.STAFF)}, CloseCode.TOKEN_NOT_VALID),
        ({"assertion": key.assertion("south", now)}, CloseCode.TOKEN_NOT_VALID),
        ({"assertion": over.assertion(UNIT, now)}, CloseCode.TOKEN_NOT_VALID),
        ({"assertion": stranger.assertion(UNIT, now)}, CloseCode.CREDENTIAL_REVOKED),
    ):
        async with linked(url_of(bridge), UNIT, registry.token(key)) as unit:
            await unit.hello()
            await unit.say(Renew(epoch=unit.epoch, **asked))
            assert (await unit.closed())[1] == code, asked.keys()
    async with linked(url_of(bridge), UNIT, registry.token(key)) as unit:
        await unit.hello()
        for _ in range(2):
            await unit.say(Renew(epoch=unit.epoch, assertion=used))
        await unit.hears(Renewed)
        assert (await unit.closed())[1] == CloseCode.TOKEN_NOT_VALID, "seen before"
    said = bridge.log_text()
    assert "assertion_replayed" in said
    assert used not in said


@pytest.mark.parametrize("way", ["pushed and seen", "only pushed", "only seen"])
async def test_a_connected_unit_is_shut_out_within_a_second(
    bridge: Started, bridges: Bridges, registry: Registry, key: SigningKey, way: str
) -> None:
    """However it is heard of: a push may be lost, and the read tables may be looked at later."""
    stolen = registry.token(key)
    async with linked(url_of(bridge), UNIT, stolen) as unit:
        await unit.hello()
        begun = time.perf_counter()
        await registry.revoke(seen=way != "only pushed", pushed=way != "only seen")
        _, code = await unit.closed(within=5)
        took = time.perf_counter() - begun
    assert code == CloseCode.CREDENTIAL_REVOKED
    assert not CLOSINGS[CloseCode.CREDENTIAL_REVOKED].may_reconnect
    print(f"revoked to closed, {way}: {took * 1000:.0f} ms")
    assert took < 1
    if way != "only pushed":
        await eventually(lambda: _is_refused(url_of(bridge), stolen), within=2)


@pytest.mark.parametrize("of_all", [True, False], ids=["all of them", "one key"])
async def test_a_token_got_between_a_revocation_and_its_being_seen_is_good_for_nothing(
    bridge: Started, registry: Registry, key: SigningKey, of_all: bool
) -> None:
    stolen, successor = registry.token(key), SigningKey.generate()
    async with linked(url_of(bridge), UNIT, stolen) as unit:
        await unit.hello()
        await registry.revoke(None if of_all else key, ago=30)
        assert (await unit.closed(within=5))[1] == CloseCode.CREDENTIAL_REVOKED
    await eventually(lambda: _is_refused(url_of(bridge), stolen), within=2)
    await registry.enrol(successor)
    async with linked(url_of(bridge), UNIT, registry.token(successor)) as unit:
        await unit.hello()


async def _is_refused(url: str, token: str) -> bool:
    try:
        async with linked(url, UNIT, token):
            return False
    except InvalidStatus as no:
        return no.response.status_code == 401


async def test_plain_tokens_and_those_of_other_keys_obey_a_revocation_and_newer_ones_are_good(
    bridge: Started, bridges: Bridges, registry: Registry, key: SigningKey
) -> None:
    plain, other = bridges.token(UNIT), SigningKey.generate()
    await registry.enrol(other)
    token_of_the_other = registry.token(other)
    async with linked(url_of(bridge), UNIT, plain) as unit:
        await unit.hello()
        await registry.revoke(key)
        assert (await unit.closed(within=2))[1] == CloseCode.TOKEN_NOT_VALID, "renew, and all is well"
    await eventually(lambda: _is_refused(url_of(bridge), plain), within=2)
    assert await refused(url_of(bridge), token_of_the_other) == 401
    await eventually(lambda: _is_let_in(url_of(bridge), registry, other), within=3)


async def _is_let_in(url: str, registry: Registry, key: SigningKey) -> bool:
    try:
        async with linked(url, UNIT, registry.token(key)) as unit:
            await unit.hello()
            return True
    except InvalidStatus:
        return False


async def test_who_is_waiting_at_the_door_with_a_revoked_key_is_not_let_in(
    bridge: Started, registry: Registry, key: SigningKey
) -> None:
    token = registry.token(key)
    async with linked(url_of(bridge), UNIT, token) as unit:  # the upgrade is done, hello is not said
        await registry.revoke(pushed=False)
        await eventually(lambda: _is_refused(url_of(bridge), token), within=3)
        await unit.say(Hello(unit_id=UNIT, position=0, agent_version="test"))
        assert (await unit.closed(within=2))[1] == CloseCode.CREDENTIAL_REVOKED


async def test_while_our_database_does_not_answer_renewals_are_held_over(
    bridge: Started, registry: Registry, key: SigningKey, postgres: str
) -> None:
    async with (
        linked(url_of(bridge), UNIT, registry.token(key, ttl=30)) as unit,
        await psycopg.AsyncConnection.connect(postgres) as other,
    ):
        await unit.hello()
        await other.execute("LOCK TABLE read_unit_keys IN ACCESS EXCLUSIVE MODE")
        await unit.say(Renew(epoch=unit.epoch, assertion=key.assertion(UNIT, time.time())))
        held = await unit.hears(Renewed, within=20)
        assert held.token is None
        assert timedelta(seconds=40) < held.expires_at - datetime.now(UTC) < timedelta(seconds=61)
        await other.rollback()
        assert (await renew(unit, key)).token is not None, "asked once more, and all is well"


def test_a_link_ends_a_little_after_its_token_where_the_unit_can_renew_it() -> None:
    claims = Claims(sub="u", role=Role.UNIT, unit=UNIT, kid="0" * 32, exp=1000, iat=400, nbf=400, jti="j")
    assert LinkCredential.of(claims, 500).ends_at == 1000 + GRACE
    assert LinkCredential.of(claims.model_copy(update={"kid": None}), 500).ends_at == 1000


def test_a_revocation_ends_what_was_issued_before_it_and_nothing_else() -> None:
    held = LinkCredential(UNIT, "1" * 32, 400, 1000, 400)
    at = datetime.fromtimestamp(400.5, UTC)
    assert held.ended_by(Revocation(UNIT, None, at)) is CloseCode.CREDENTIAL_REVOKED
    assert held.ended_by(Revocation(UNIT, "1" * 32, at)) is CloseCode.CREDENTIAL_REVOKED
    assert held.ended_by(Revocation(UNIT, "2" * 32, at)) is CloseCode.TOKEN_NOT_VALID
    assert held.ended_by(Revocation(UNIT, None, datetime.fromtimestamp(400, UTC))) is None
