"""When sessions end, and who hears of it: told with a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from contracts.identity import Role
from infra.database import DatabaseUnavailable, Pool, pool
from infra.settings import StaffAccess
from infra.staff_revocations import StaffRevocations
from infra.staff_sessions import Given, SessionRefused, StaffSessions
from infra.tokens import InvalidToken, Verifier, generate_key_pair

PRIVATE, PUBLIC = generate_key_pair()
LIMITS = StaffAccess(token_seconds=600, idle_seconds=1800, session_seconds=8 * 3600)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """One account of one unit, and everything that looks at it."""

    url: str
    source: Pool
    clock: Clock
    sessions: StaffSessions
    revocations: StaffRevocations
    verifier: Verifier
    account_id: UUID

    async def begin(self) -> Given:
        return await self.sessions.begin(self.account_id, "north")

    async def look(self) -> None:
        await self.revocations.look()

    def says(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.url, autocommit=True) as database:
            database.execute(statement.encode(), values)


@pytest.fixture
async def desk(postgres: str) -> AsyncIterator[Desk]:
    clock = Clock()
    clock.now = datetime.now(UTC).timestamp()
    source = pool(postgres, role="gateway", smallest=1, largest=4)
    await source.open(wait=False)
    bridge = pool(postgres, role="bridge", smallest=1, largest=2)
    await bridge.open(wait=False)
    revocations = StaffRevocations(bridge, clock=clock)
    made = Desk(
        postgres,
        source,
        clock,
        StaffSessions(source, PRIVATE, LIMITS, clock=clock),
        revocations,
        Verifier(PUBLIC, clock=clock, ended=revocations.ended),
        uuid4(),
    )
    made.says(
        "INSERT INTO read_staff (account_id, unit_id, partition, activated_at) VALUES (%s, 'north', 1, now())",
        made.account_id,
    )
    made.says(
        "INSERT INTO read_staff_roles (account_id, role, unit_id, partition, starts_at) "
        "VALUES (%s, 'nurse', 'north', 1, '2020-01-01')",
        made.account_id,
    )
    await made.look()
    yield made
    await source.close()
    await bridge.close()


async def refusal(desk: Desk, refresh_token: str) -> str:
    with pytest.raises(SessionRefused) as refused:
        await desk.sessions.carry_on(refresh_token)
    return refused.value.code


async def test_a_session_goes_on_as_long_as_it_is_used_and_no_longer_than_it_may(desk: Desk) -> None:
    given = await desk.begin()
    until = given.session_until
    for _ in range(16):  # eight hours, every half an hour but a second
        desk.clock.now += 1799
        given = await desk.sessions.carry_on(given.refresh_token)
        assert given.session_until == until
    assert given.access_until == until.replace(microsecond=0), "no access token outlives its session"
    desk.clock.now += 17
    assert await refusal(desk, given.refresh_token) == "session_expired"
    desk.clock.now -= 3600
    assert await refusal(desk, given.refresh_token) == "session_ended", "and it stays so"


async def test_a_session_that_was_idle_for_too_long_has_ended(desk: Desk) -> None:
    given = await desk.begin()
    desk.clock.now += 1800
    assert await refusal(desk, given.refresh_token) == "session_idle"


async def test_one_refresh_token_shown_twice_at_once_ends_the_session(desk: Desk) -> None:
    given = await desk.begin()
    ended = await asyncio.gather(
        *(desk.sessions.carry_on(given.refresh_token) for _ in range(4)), return_exceptions=True
    )
    (lucky,) = [one for one in ended if isinstance(one, Given)]
    assert {one.code for one in ended if isinstance(one, SessionRefused)} == {"refresh_token_reused"}
    assert await refusal(desk, lucky.refresh_token) == "session_ended"


async def test_what_has_ended_is_heard_of_with_the_rights_of_a_bridge(desk: Desk) -> None:
    given, other = await desk.begin(), await desk.begin()
    heard: list[str] = []
    desk.revocations.tell(lambda: heard.append("news"))
    desk.verifier.verify(given.access_token)
    await desk.sessions.end(given.session_id)
    await desk.look()
    await desk.look()
    with pytest.raises(InvalidToken) as refused:
        desk.verifier.verify(given.access_token)
    assert refused.value.code == "revoked"
    assert heard == ["news"]
    desk.verifier.verify(other.access_token)


async def test_what_ended_before_a_process_began_is_known_to_it(desk: Desk) -> None:
    given = await desk.begin()
    await desk.sessions.end(given.session_id)
    later = StaffRevocations(desk.source, clock=desk.clock)
    claims = desk.verifier.verify(given.access_token)
    assert later.ended(claims) == "revocations_not_known"
    await later.look()
    assert later.ended(claims) == "revoked"


async def test_tokens_from_before_a_revocation_are_void_and_those_after_it_are_good(desk: Desk) -> None:
    given = await desk.begin()
    at = datetime.fromtimestamp(desk.clock.now, UTC) + timedelta(milliseconds=1)
    desk.says("INSERT INTO read_staff_revocations VALUES (%s, 'north', 1, 7, %s)", desk.account_id, at)
    await desk.look()
    with pytest.raises(InvalidToken):
        desk.verifier.verify(given.access_token)
    newer = await desk.sessions.carry_on(given.refresh_token)
    desk.clock.now += 1
    desk.verifier.verify(newer.access_token)


async def test_a_role_counts_in_its_time(desk: Desk) -> None:
    now = datetime.fromtimestamp(desk.clock.now, UTC)
    desk.says(
        "INSERT INTO read_staff_roles (account_id, role, unit_id, partition, starts_at, ends_at) "
        "VALUES (%s, 'doctor', 'north', 1, %s, %s)",
        desk.account_id,
        now + timedelta(minutes=10),
        now + timedelta(minutes=30),
    )
    given = await desk.begin()
    assert given.roles == (Role.NURSE,)
    desk.clock.now += 15 * 60
    given = await desk.sessions.carry_on(given.refresh_token)
    assert given.roles == (Role.DOCTOR, Role.NURSE)
    desk.clock.now += 20 * 60
    assert (await desk.sessions.carry_on(given.refresh_token)).roles == (Role.NURSE,)


async def test_who_has_no_role_gets_no_session(desk: Desk) -> None:
    desk.says("UPDATE read_staff_roles SET revoked_at = now() WHERE account_id = %s", desk.account_id)
    with pytest.raises(SessionRefused) as refused:
        await desk.begin()
    assert refused.value.code == "account_not_active"


async def test_a_bridge_reads_nothing_else_of_sessions(postgres: str) -> None:
    async with pool(postgres, role="bridge", smallest=1, largest=1) as source, source.connection() as connection:
        for statement in (
            b"SELECT account_id FROM staff_sessions",
            b"SELECT 1 FROM staff_refresh_tokens",
            b"SELECT 1 FROM staff_accounts",
            b"SELECT 1 FROM staff_attempts",
            b"SELECT staff_key(NULL, NULL)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)


async def test_with_the_database_away_what_is_known_goes_on_counting(desk: Desk) -> None:
    given, other = await desk.begin(), await desk.begin()
    await desk.sessions.end(given.session_id)
    await desk.look()
    gone = StaffRevocations(pool("postgresql://nobody@127.0.0.1:1/none", role="bridge", timeout=0.2), clock=desk.clock)
    with pytest.raises((DatabaseUnavailable, psycopg.Error)):
        await gone.look()
    assert gone.ended(desk.verifier.verify(other.access_token)) == "revocations_not_known"
    with pytest.raises(InvalidToken):
        desk.verifier.verify(given.access_token)
