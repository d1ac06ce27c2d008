"""People get in with a password and stay in with tokens that are good once; and nobody gets in who should not."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import httpx
import jwt
import psycopg
import pytest

from contracts.identity import Role
from tests.gateway.conftest import Clinic, JsonObject, Network, problem
from tests.kit.waiting import eventually

PASSWORD = "seven ponds and a heron"


@dataclass(frozen=True)
class Member:
    """Somebody with an account, and the way to log in."""

    anyone: httpx.AsyncClient
    unit_id: str
    email: str
    account_id: str

    async def login(self, password: str = PASSWORD) -> httpx.Response:
        return await self.anyone.post(
            "/api/auth/login", json={"unitId": self.unit_id, "email": self.email, "password": password}
        )

    async def tokens(self) -> JsonObject:
        answer = await self.login()
        assert answer.status_code == 200, answer.text
        found: JsonObject = answer.json()
        return found


def bearer(tokens: JsonObject) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['accessToken']}"}


def person(unit_id: str, **changes: object) -> JsonObject:
    return {
        "unitId": unit_id,
        "email": f"Heron.{secrets.token_hex(6)}@example.org",
        "name": "Hanna Heronsgate",
        "password": PASSWORD,
        **changes,
    }


async def registered(anyone: httpx.AsyncClient, body: JsonObject) -> Member:
    answer = await anyone.post("/api/auth/register", json=body)
    assert answer.status_code == 201, answer.text
    return Member(anyone, body["unitId"], body["email"], answer.json()["accountId"])


async def invited(clinic: Clinic, *roles: Role, **more: object) -> JsonObject:
    answer = await clinic.api.post("/api/auth/invitations", json={"roles": list(roles), **more})
    assert answer.status_code == 201, answer.text
    found: JsonObject = answer.json()
    return found


async def shut_out(anyone: httpx.AsyncClient, tokens: JsonObject) -> None:
    """The access token lets nobody in any more, within seconds."""

    async def refused() -> bool:
        return (await anyone.get("/api/patients", headers=bearer(tokens))).status_code == 401

    await eventually(refused, within=5, what="the access token is refused")
    problem(await anyone.get("/api/patients", headers=bearer(tokens)), 401, "token_revoked")


@pytest.fixture
async def boss(anyone: httpx.AsyncClient, clinic: Clinic) -> Member:
    """The clinic's first user."""
    return await registered(anyone, person(clinic.unit_id))


@pytest.fixture
async def nurse(anyone: httpx.AsyncClient, clinic: Clinic, boss: Member) -> Member:
    """Somebody who was invited."""
    invitation = await invited(clinic, Role.NURSE)
    return await registered(anyone, person(clinic.unit_id, code=invitation["code"]))


async def test_the_first_user_of_a_unit_administers_it(anyone: httpx.AsyncClient, boss: Member) -> None:
    tokens = await boss.tokens()
    assert (tokens["roles"], tokens["unitId"], tokens["accountId"]) == (["admin"], boss.unit_id, boss.account_id)
    assert (await anyone.get("/api/patients", headers=bearer(tokens))).status_code == 200
    profile = (await anyone.get("/api/auth/profile", headers=bearer(tokens))).json()
    assert (profile["email"], profile["name"], profile["roles"]) == (boss.email, "Hanna Heronsgate", ["admin"])
    invitation = await anyone.post("/api/auth/invitations", json={"roles": ["nurse"]}, headers=bearer(tokens))
    assert invitation.status_code == 201


async def test_everybody_else_needs_an_invitation(anyone: httpx.AsyncClient, boss: Member) -> None:
    problem(await anyone.post("/api/auth/register", json=person(boss.unit_id)), 403, "invitation_required")
    problem(await anyone.post("/api/auth/register", json=person("no-such-unit")), 403, "invitation_required")
    wrong = person(boss.unit_id, code="AAAAA-BBBBB-CCCCC-DDDDD-EEEEE")
    problem(await anyone.post("/api/auth/register", json=wrong), 422, "invitation_not_valid")


async def test_who_was_invited_has_the_roles_of_the_invitation_and_nobody_else_gets_in_with_it(
    anyone: httpx.AsyncClient, clinic: Clinic, boss: Member
) -> None:
    invitation = await invited(clinic, Role.NURSE, Role.PHARMACIST)
    body = person(clinic.unit_id, code=invitation["code"])
    nurse = await registered(anyone, body)
    assert (await nurse.tokens())["roles"] == ["nurse", "pharmacist"]
    assert (await anyone.post("/api/auth/register", json=body)).status_code == 200, "the answer was lost"
    again = person(clinic.unit_id, code=invitation["code"])
    problem(await anyone.post("/api/auth/register", json=again), 422, "invitation_not_valid")
    another = {**body, "password": "another sentence of hers"}
    problem(await anyone.post("/api/auth/register", json=another), 409, "address_taken")
    await nurse.tokens()


async def test_only_administrators_invite(clinic: Clinic, nurse: Member) -> None:
    for headers in (bearer(await nurse.tokens()), clinic.role(Role.DOCTOR), clinic.role(Role.OPS)):
        answer = await clinic.api.post("/api/auth/invitations", json={"roles": ["admin"]}, headers=headers)
        problem(answer, 403, "not_allowed")


async def test_administrators_see_who_has_an_account_in_which_roles(
    anyone: httpx.AsyncClient, clinic: Clinic, boss: Member, nurse: Member
) -> None:
    invitation = await invited(clinic, Role.DOCTOR)
    listed = (await anyone.get("/api/staff", headers=bearer(await boss.tokens()))).json()["items"]
    assert {one["id"]: (one["status"], one["roles"]) for one in listed} == {
        boss.account_id: ("active", ["admin"]),
        nurse.account_id: ("active", ["nurse"]),
        invitation["id"]: ("invited", ["doctor"]),
    }
    one = await clinic.api.get(f"/api/staff/{nurse.account_id}")
    assert one.json()["activatedAt"] is not None
    problem(await anyone.get("/api/staff", headers=bearer(await nurse.tokens())), 403, "not_allowed")


async def test_nobody_is_told_whether_there_is_an_account(anyone: httpx.AsyncClient, boss: Member) -> None:
    wrong = problem(await boss.login("not the password"), 401, "login_refused")
    nobody = Member(anyone, boss.unit_id, "nobody@example.org", "")
    nowhere = Member(anyone, "no-such-unit", boss.email, "")
    for member in (nobody, nowhere):
        unknown = problem(await member.login(), 401, "login_refused")
        assert {**unknown, "traceId": ""} == {**wrong, "traceId": ""}


async def test_an_address_is_the_same_in_any_case(anyone: httpx.AsyncClient, boss: Member) -> None:
    assert (await Member(anyone, boss.unit_id, f" {boss.email.upper()} ", "").login()).status_code == 200


async def test_too_many_wrong_passwords_lock_the_account_even_for_the_right_one(network: Network, boss: Member) -> None:
    problem(await boss.login("not the password"), 401, "login_refused")
    with psycopg.connect(network.installed.postgres_url, autocommit=True) as database:
        database.execute(
            "UPDATE staff_attempts SET failures = 9 WHERE who = (SELECT address_hash FROM staff_accounts "
            "WHERE account_id = %s)",
            (boss.account_id,),
        )
        problem(await boss.login("not the password"), 401, "login_refused")
        answer = await boss.login()
        problem(answer, 429, "too_many_attempts")
        assert 50 <= int(answer.headers["Retry-After"]) <= 60
        database.execute("UPDATE staff_attempts SET locked_until = now() WHERE locked_until IS NOT NULL")
    await boss.tokens()


async def test_a_refresh_token_is_good_once(anyone: httpx.AsyncClient, boss: Member) -> None:
    first = await boss.tokens()
    second = (await anyone.post("/api/auth/refresh", json={"refreshToken": first["refreshToken"]})).json()
    assert second["refreshToken"] != first["refreshToken"]
    assert (await anyone.get("/api/patients", headers=bearer(second))).status_code == 200
    third = await anyone.post("/api/auth/refresh", json={"refreshToken": second["refreshToken"]})
    assert third.status_code == 200


async def test_a_stolen_refresh_token_ends_the_session_of_thief_and_owner(
    anyone: httpx.AsyncClient, boss: Member
) -> None:
    stolen, elsewhere = await boss.tokens(), await boss.tokens()
    thief = (await anyone.post("/api/auth/refresh", json={"refreshToken": stolen["refreshToken"]})).json()
    owner = await anyone.post("/api/auth/refresh", json={"refreshToken": stolen["refreshToken"]})
    problem(owner, 401, "refresh_token_reused")
    ended = await anyone.post("/api/auth/refresh", json={"refreshToken": thief["refreshToken"]})
    problem(ended, 401, "session_ended")
    await shut_out(anyone, thief)
    await shut_out(anyone, stolen)
    assert (await anyone.get("/api/patients", headers=bearer(elsewhere))).status_code == 200, "another session"


async def test_a_made_up_refresh_token_is_refused_and_counted(anyone: httpx.AsyncClient) -> None:
    answer = await anyone.post("/api/auth/refresh", json={"refreshToken": secrets.token_urlsafe(32)})
    problem(answer, 401, "refresh_token_invalid")
    assert 'carespine_auth_failures_total{reason="refresh_token_invalid"}' in (await anyone.get("/metrics")).text


async def test_after_a_logout_nothing_of_the_session_is_good(anyone: httpx.AsyncClient, boss: Member) -> None:
    here, there = await boss.tokens(), await boss.tokens()
    answer = await anyone.post("/api/auth/logout", json={"refreshToken": here["refreshToken"]})
    assert answer.json() == {"sessionsEnded": 1}
    problem(await anyone.post("/api/auth/refresh", json={"refreshToken": here["refreshToken"]}), 401, "session_ended")
    await shut_out(anyone, here)
    assert (await anyone.get("/api/patients", headers=bearer(there))).status_code == 200


async def test_a_logout_everywhere_ends_every_session(anyone: httpx.AsyncClient, boss: Member) -> None:
    here, there = await boss.tokens(), await boss.tokens()
    answer = await anyone.post("/api/auth/logout", json={"everywhere": True}, headers=bearer(here))
    assert answer.json() == {"sessionsEnded": 2}
    await shut_out(anyone, here)
    await shut_out(anyone, there)


async def test_who_is_suspended_is_out_within_seconds_and_does_not_get_in(
    anyone: httpx.AsyncClient, clinic: Clinic, nurse: Member
) -> None:
    tokens = await nurse.tokens()
    answer = await clinic.api.post(f"/api/staff/{nurse.account_id}/suspend", json={"reasonCode": "left"})
    assert answer.json()["status"] == "suspended", answer.text
    await shut_out(anyone, tokens)
    refreshed = await anyone.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
    problem(refreshed, 403, "account_not_active")
    problem(await nurse.login(), 403, "account_not_active")
    await clinic.api.post(f"/api/staff/{nurse.account_id}/reinstate", json={})

    async def lets_in() -> bool:
        return (await nurse.login()).status_code == 200

    await eventually(lets_in, within=20, what="the account lets its person in again")


async def test_a_role_that_was_revoked_is_gone_from_the_next_tokens_and_the_old_ones_are_void(
    anyone: httpx.AsyncClient, clinic: Clinic, nurse: Member
) -> None:
    granted = await clinic.api.post(f"/api/staff/{nurse.account_id}/roles", json={"role": "doctor"})
    assert granted.json()["roles"] == ["doctor", "nurse"]
    tokens = await nurse.tokens()
    assert tokens["roles"] == ["doctor", "nurse"]
    await clinic.api.post(f"/api/staff/{nurse.account_id}/revoke-role", json={"role": "doctor"})
    await shut_out(anyone, tokens)
    newer = (await anyone.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})).json()
    assert newer["roles"] == ["nurse"]

    async def lets_in() -> bool:
        return (await anyone.get("/api/patients", headers=bearer(newer))).status_code == 200

    await eventually(lets_in, within=5, what="the newer token lets in")


async def test_others_verify_our_tokens_with_what_is_published(anyone: httpx.AsyncClient, boss: Member) -> None:
    tokens = await boss.tokens()
    published = await anyone.get("/.well-known/jwks.json")
    assert "d" not in published.json()["keys"][0]
    keys = jwt.PyJWKSet.from_dict(published.json())
    key = keys[jwt.get_unverified_header(tokens["accessToken"])["kid"]]
    content = jwt.decode(tokens["accessToken"], key, ["EdDSA"], audience="carespine", issuer="carespine")
    assert (content["sub"], content["role"], content["exp"] - content["iat"]) == (boss.account_id, "admin", 600)


async def test_a_program_s_token_has_no_profile(clinic: Clinic) -> None:
    problem(await clinic.api.get("/api/auth/profile"), 404, "not_found")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaa", "x" * 201], ids=["short", "one letter", "long"])
async def test_a_password_that_protects_nothing_is_not_taken(
    anyone: httpx.AsyncClient, clinic: Clinic, password: str
) -> None:
    answer = await anyone.post("/api/auth/register", json=person(clinic.unit_id, password=password))
    found = problem(answer, 400, "validation_failed")
    assert found["errors"][0]["field"] == "password"
    assert password not in answer.text


async def test_no_table_holds_an_address_a_name_or_a_password_in_clear(network: Network, nurse: Member) -> None:
    tokens = await nurse.tokens()
    hidden = [nurse.email, nurse.email.casefold(), "Heronsgate", PASSWORD, tokens["refreshToken"]]
    with psycopg.connect(network.installed.postgres_url) as database:
        names = database.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchall()
        assert ("staff_accounts",) in names
        for (name,) in names:
            for (row,) in database.execute(f'SELECT t::text FROM "{name}" t').fetchall():  # noqa: S608 - our own tables
                for text in hidden:
                    assert text not in row, name
                    assert text.encode().hex() not in row, name
    log = "".join(one.log_text() for one in network.installed.started.values())
    assert not [text for text in (*hidden, tokens["accessToken"]) if text in log]
