"""Tokens: who gets in, and the word for every reason why not."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from contracts.identity import Role
from infra.tokens import InvalidToken, Verifier, generate_key_pair, mint

NOW = 1_790_000_000


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    return generate_key_pair()


@pytest.fixture
def verifier(keys: tuple[str, str], clock: Clock) -> Verifier:
    return Verifier(keys[1], clock=clock)


def refusal(verifier: Verifier, token: str | None) -> str:
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    return refused.value.code


def signed(keys: tuple[str, str], **changes: Any) -> str:  # Any: JSON
    claims = {
        "iss": "carespine", "aud": "carespine", "sub": "s", "role": "nurse", "unit": "north",
        "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "j",
    }  # fmt: skip
    claims.update(changes)
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, keys[0], "EdDSA")


def test_a_minted_token_says_who_bears_it(keys: tuple[str, str], verifier: Verifier, clock: Clock) -> None:
    claims = verifier.verify(mint(keys[0], role=Role.NURSE, unit="north", subject="u-1", ttl=60, clock=clock))
    assert (claims.role, claims.unit, claims.sub, claims.exp) == (Role.NURSE, "north", "u-1", NOW + 60)
    network_wide = verifier.verify(mint(keys[0], role=Role.OPS, clock=clock))
    assert (network_wide.unit, network_wide.sub) == (None, "ops")


def test_a_token_seen_before_expires_all_the_same(keys: tuple[str, str], verifier: Verifier, clock: Clock) -> None:
    token = mint(keys[0], role=Role.NURSE, unit="north", ttl=60, clock=clock)
    assert verifier.verify(token) is verifier.verify(token)
    clock.now += 59.9
    verifier.verify(token)
    clock.now += 0.2
    assert refusal(verifier, token) == "expired"
    assert refusal(verifier, token) == "expired"


def test_a_clock_a_little_ahead_is_forgiven_and_one_far_ahead_is_not(
    keys: tuple[str, str], verifier: Verifier, clock: Clock
) -> None:
    verifier.verify(signed(keys, nbf=NOW + 29))
    early = signed(keys, nbf=NOW + 40)
    assert refusal(verifier, early) == "not_yet_valid"
    clock.now += 20
    verifier.verify(early)


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_missing(verifier: Verifier, token: str | None) -> None:
    assert refusal(verifier, token) == "missing"


@pytest.mark.parametrize("token", ["x", "a.b.c", "é.ü.ß", "." * 10, "x" * 100_000, "eyJhbGciOiJFZERTQSJ9.e30.AAAA"])
def test_what_is_no_token_is_malformed_or_forged(verifier: Verifier, token: str) -> None:
    assert refusal(verifier, token) in {"malformed", "forged"}


@pytest.mark.parametrize(
    "changes",
    [{"role": "king"}, {"role": None}, {"sub": None}, {"exp": None}, {"jti": None}, {"unit": "N/../"}, {"exp": "soon"}],
)
def test_a_signed_token_of_another_shape_is_malformed(
    keys: tuple[str, str], verifier: Verifier, changes: dict[str, Any]
) -> None:
    assert refusal(verifier, signed(keys, **changes)) == "malformed"


@pytest.mark.parametrize("changes", [{"aud": "other"}, {"iss": "other"}])
def test_a_token_for_or_by_somebody_else_is_not_for_us(
    keys: tuple[str, str], verifier: Verifier, changes: dict[str, Any]
) -> None:
    assert refusal(verifier, signed(keys, **changes)) == "wrong_audience"


def test_a_token_signed_with_another_key_is_forged(verifier: Verifier) -> None:
    assert refusal(verifier, signed(generate_key_pair())) == "forged"


def test_a_token_that_is_not_signed_at_all_is_forged(keys: tuple[str, str], verifier: Verifier) -> None:
    claims = jwt.decode(signed(keys), options={"verify_signature": False})
    assert refusal(verifier, jwt.encode(claims, "", algorithm="none")) == "forged"
    assert refusal(verifier, jwt.encode(claims, "k" * 32, algorithm="HS256")) == "forged"


def test_a_token_with_its_role_changed_is_forged(keys: tuple[str, str], verifier: Verifier) -> None:
    header, payload, signature = signed(keys).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["role"] = "admin"
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    assert refusal(verifier, f"{header}.{payload}.{signature}") == "forged"


def test_nobody_comes_as_the_system_itself(keys: tuple[str, str], verifier: Verifier) -> None:
    assert refusal(verifier, signed(keys, role="system")) == "forged"


def test_only_so_many_tokens_are_remembered(keys: tuple[str, str], clock: Clock) -> None:
    verifier = Verifier(keys[1], clock=clock, cached=3)
    tokens = [mint(keys[0], role=Role.NURSE, unit="north", clock=clock) for _ in range(4)]
    first = verifier.verify(tokens[0])
    for token in tokens[1:3]:
        verifier.verify(token)
    assert verifier.verify(tokens[0]) is first, "used last, so remembered longest"
    second = verifier.verify(tokens[1])
    verifier.verify(tokens[3])
    verifier.verify(tokens[2])
    assert verifier.verify(tokens[1]) == second
    assert verifier.remembered == 3


def test_a_refusal_never_quotes_the_token(keys: tuple[str, str], verifier: Verifier) -> None:
    token = signed(keys, sub="somebody", aud="other")
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    assert "somebody" not in repr(refused.value)
    assert refused.value.__cause__ is None
