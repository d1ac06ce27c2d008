"""Keys that sign tokens: named, published, changed without sending anybody away."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from contracts.identity import Role
from infra.settings import Settings, SettingsError
from infra.token_keys import KeyRing, KeysNotUsable, key_id_of, signing_key
from infra.tokens import Claims, InvalidToken, Verifier, generate_key_pair, mint

OLD, NEW = generate_key_pair(), generate_key_pair()
URLS = {"CARESPINE_POSTGRES_URL": "postgresql://x/y", "CARESPINE_RABBITMQ_URL": "amqp://x/"}


def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    return refused.value.code


def test_a_token_names_the_key_that_signed_it() -> None:
    header = jwt.get_unverified_header(mint(OLD[0], role=Role.NURSE))
    assert header["kid"] == signing_key(OLD[0])[1] == key_id_of(KeyRing.read(OLD[1]).all()[0])


def test_a_key_is_changed_and_nobody_has_to_log_in_again() -> None:
    issued_before = mint(OLD[0], role=Role.NURSE)
    both = Verifier(OLD[1] + NEW[1])
    assert both.verify(issued_before).role is Role.NURSE
    assert both.verify(mint(NEW[0], role=Role.DOCTOR)).role is Role.DOCTOR
    afterwards = Verifier(NEW[1])
    assert refusal(afterwards, issued_before) == "forged"
    afterwards.verify(mint(NEW[0], role=Role.DOCTOR))


def test_a_token_that_names_a_key_of_ours_must_be_signed_with_it() -> None:
    both = Verifier(OLD[1] + NEW[1])
    content = jwt.decode(mint(OLD[0], role=Role.NURSE), options={"verify_signature": False})
    assert refusal(both, jwt.encode(content, OLD[0], "EdDSA", headers={"kid": signing_key(NEW[0])[1]})) == "forged"
    assert refusal(both, jwt.encode(content, OLD[0], "EdDSA", headers={"kid": "unknown"})) == "forged"


def test_tokens_that_name_no_key_go_on_working() -> None:
    content = jwt.decode(mint(NEW[0], role=Role.NURSE), options={"verify_signature": False})
    both = Verifier(OLD[1] + NEW[1])
    assert both.verify(jwt.encode(content, NEW[0], "EdDSA")).role is Role.NURSE
    assert refusal(both, jwt.encode(content, generate_key_pair()[0], "EdDSA")) == "forged"


def test_what_is_published_is_what_is_verified_with() -> None:
    ring = KeyRing.read(OLD[1] + NEW[1])
    published = json.dumps(ring.jwks())
    assert KeyRing.read(published).jwks() == ring.jwks()
    assert "PRIVATE" not in published
    for jwk in ring.jwks()["keys"]:
        assert set(jwk) == {"kty", "crv", "x", "kid", "use", "alg"}
    Verifier(published).verify(mint(OLD[0], role=Role.NURSE))
    others = jwt.PyJWKSet.from_json(published)
    token = mint(NEW[0], role=Role.NURSE)
    jwt.decode(token, others[jwt.get_unverified_header(token)["kid"]], ["EdDSA"], audience="carespine")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"keys": 3}',
        '{"keys": []}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}]}',
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ],
)
def test_what_is_no_set_of_keys_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(KeysNotUsable):
        KeyRing.read(text)


def test_public_keys_are_read_from_a_folder_a_file_or_the_variable(tmp_path: Path) -> None:
    (tmp_path / "2026-10.pem").write_text(OLD[1])
    (tmp_path / "2026-11.pem").write_text(NEW[1])
    (tmp_path / "keys.json").write_text(json.dumps(KeyRing.read(NEW[1]).jwks()))
    for value, count in ((str(tmp_path), 2), (str(tmp_path / "keys.json"), 1), (OLD[1] + NEW[1], 2)):
        settings = Settings.from_environment({**URLS, "CARESPINE_TOKEN_PUBLIC_KEY": value})
        assert len(KeyRing.read(settings.keys.verifying()).all()) == count


def test_a_private_key_among_the_public_ones_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_text(OLD[0])
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({**URLS, "CARESPINE_TOKEN_PUBLIC_KEY": str(tmp_path)})
    assert refused.value.problems == {"TOKEN_PUBLIC_KEY": "holds a private key"}
    assert OLD[0].splitlines()[1] not in str(refused.value)


def test_the_token_of_a_session_that_has_ended_lets_nobody_in_at_once() -> None:
    ended: set[str] = set()

    def look(claims: Claims) -> str | None:
        return "revoked" if claims.sid in ended else None

    verifier = Verifier(NEW[1], ended=look)
    token = mint(NEW[0], role=Role.NURSE, session="s-1", roles=[Role.NURSE, Role.PHARMACIST])
    assert verifier.verify(token).roles == (Role.NURSE, Role.PHARMACIST)
    ended.add("s-1")
    assert refusal(verifier, token) == "revoked"
    verifier.verify(mint(NEW[0], role=Role.NURSE))


def test_nobody_has_the_role_of_the_system_among_others() -> None:
    assert refusal(Verifier(NEW[1]), mint(NEW[0], role=Role.NURSE, roles=[Role.NURSE, Role.SYSTEM])) == "forged"
