"""Who is let in: the token must be ours, whole and in time; and the role must be right."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import httpx
import jwt
import pytest

from contracts.identity import Role
from infra.tokens import generate_key_pair, mint
from tests.gateway.conftest import Clinic, Network, arrival, problem


def bearer(token: str) -> dict[str, str]:
    """The header a token travels in."""
    return {"Authorization": f"Bearer {token}"}


def claims(**changes: object) -> dict[str, object]:
    """Claims as a token of ours has them."""
    now = int(time.time())
    return {
        "iss": "carespine", "aud": "carespine", "sub": "mallory", "role": "staff", "iat": now, "nbf": now,
        "exp": now + 600, "jti": "1", **changes,
    }  # fmt: skip


async def refused(anyone: httpx.AsyncClient, token: str, code: str = "token_invalid") -> None:
    """The token lets nobody in, on the hot way, on the others and on questions."""
    for method, path in (
        ("POST", "/api/check-in"),
        ("POST", "/api/units"),
        ("GET", "/api/patients"),
        ("GET", "/ops/units"),
    ):
        answer = await anyone.request(method, path, headers=bearer(token))
        problem(answer, 401, code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        assert token not in answer.text


async def test_without_a_token_nobody_gets_in(anyone: httpx.AsyncClient) -> None:
    for path in ("/api/patients", "/api/units", "/ops/dead-letters", "/ops/ledger"):
        answer = await anyone.get(path)
        problem(answer, 401, "token_missing")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="carespine"'


async def test_other_schemes_do_not_count(anyone: httpx.AsyncClient) -> None:
    problem(await anyone.get("/api/units", headers={"Authorization": "Basic YTpi"}), 401, "token_invalid")


async def test_an_expired_token_is_said_to_be_expired(anyone: httpx.AsyncClient, network: Network) -> None:
    token = mint(network.installed.private_key, role=Role.STAFF, ttl=60, clock=lambda: time.time() - 120)
    await refused(anyone, token, "token_expired")


async def test_a_token_signed_by_somebody_else_is_refused(anyone: httpx.AsyncClient) -> None:
    await refused(anyone, mint(generate_key_pair()[0], role=Role.STAFF))


async def test_a_token_without_signature_is_refused(anyone: httpx.AsyncClient) -> None:
    await refused(anyone, jwt.encode(claims(), "", algorithm="none"))


async def test_the_public_key_is_no_shared_secret(anyone: httpx.AsyncClient, network: Network) -> None:
    def part(content: bytes) -> bytes:
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims()).encode())
    for secret in (network.installed.public_key.encode(), network.installed.public_key.strip().encode()):
        signature = part(hmac.digest(secret, signed, hashlib.sha256))
        await refused(anyone, (signed + b"." + signature).decode())


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "system"},
        {"role": "king"},
        {"aud": "elsewhere"},
        {"iss": "mallory"},
        {"unit": "NOT A UNIT"},
        {"sub": ""},
    ],
    ids=str,
)
async def test_claims_that_are_not_ours_are_refused(
    anyone: httpx.AsyncClient, network: Network, changes: dict[str, object]
) -> None:
    await refused(anyone, jwt.encode(claims(**changes), network.installed.private_key, algorithm="EdDSA"))


async def test_a_token_that_is_no_token_is_refused(anyone: httpx.AsyncClient) -> None:
    for token in ("x", "a.b.c", "." * 50, "x" * 5000):
        await refused(anyone, token)


async def test_a_token_altered_in_one_place_is_refused(anyone: httpx.AsyncClient, network: Network) -> None:
    head, body, signature = network.installed.token(Role.STAFF).split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**content, "role": "ops"}).encode()).rstrip(b"=").decode()
    await refused(anyone, f"{head}.{forged}.{signature}")


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.NURSE, Role.PHARMACIST, Role.BILLING, Role.OPS])
async def test_only_reception_checks_in(clinic: Clinic, role: Role) -> None:
    patient = await clinic.patient()
    answer = await clinic.api.post("/api/check-in", json=arrival(patient["id"]), headers=clinic.role(role))
    found = problem(answer, 403, "not_allowed")
    assert "receptionist" in found["detail"]


async def test_operators_see_no_patients(clinic: Clinic) -> None:
    seen = await clinic.checked_in()
    operator = clinic.role(Role.OPS)
    for path in (
        "/api/patients",
        f"/api/patients/{seen['patientId']}",
        f"/api/encounters/{seen['encounterId']}",
        "/api/queues/general",
    ):
        problem(await clinic.api.get(path, headers=operator), 403, "not_allowed")
    problem(await clinic.api.post("/api/patients/search", json={}, headers=operator), 403, "not_allowed")


async def test_only_operators_operate(clinic: Clinic) -> None:
    for path in ("/ops/units", "/ops/projections", "/ops/dead-letters", "/ops/replays", "/ops/ledger", "/ops/refusals"):
        problem(await clinic.api.get(path), 403, "not_allowed")
        problem(await clinic.api.get(path, headers=clinic.role(Role.ADMIN)), 403, "not_allowed")
    problem(await clinic.api.post("/ops/replays", json={}), 403, "not_allowed")
