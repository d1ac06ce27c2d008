"""Units' keys, what they sign, and codes as people type them."""

from __future__ import annotations

import base64
import re
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.tokens import generate_key_pair
from infra.unit_keys import (
    LONGEST_LIFE,
    SKEW,
    AssertionRefused,
    EnrolmentCodes,
    KeyNotUsable,
    PublicKey,
    SigningKey,
    code_hash,
    key_id_in,
    verified,
)

NOW = 1_790_000_000
KEY = SigningKey.generate()
SECRET = generate_key_pair()[0]


def refusal(assertion: str, *, at: float = NOW, unit_id: str = "north", key: PublicKey = KEY.public) -> str:
    with pytest.raises(AssertionRefused) as no:
        verified(assertion, unit_id, key, at)
    return no.value.code


def signed(**changes: object) -> str:
    claims: dict[str, object] = {
        "iss": "unit:north", "sub": "unit:north", "aud": "carespine", "iat": NOW, "exp": NOW + 60, "jti": "0" * 32,
    }  # fmt: skip
    claims.update(changes)
    whole = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(whole, KEY.pem(), "EdDSA", {"kid": KEY.public.key_id})


def test_a_public_key_is_read_in_every_form_it_is_written_in() -> None:
    pem = jwt.algorithms.OKPAlgorithm.from_jwk(
        {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(KEY.public.raw).decode().rstrip("=")}
    )
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()  # type: ignore[union-attr]
    url_safe = base64.urlsafe_b64encode(KEY.public.raw).decode().rstrip("=")
    for form in (KEY.public.text, url_safe, f"  {KEY.public.text}\n", text):
        assert PublicKey.read(form) == KEY.public
    assert re.fullmatch(r"[0-9a-f]{32}", KEY.public.key_id)


@pytest.mark.parametrize(
    "text", ["", "x", "A" * 42, "A" * 44, "é" * 43, "-----BEGIN PUBLIC KEY-----\n-----END", SECRET]
)
def test_what_is_no_public_key_is_told_so_without_being_shown(text: str) -> None:
    with pytest.raises(KeyNotUsable) as no:
        PublicKey.read(text)
    assert text == "" or text not in str(no.value)


def test_a_private_key_is_read_as_it_was_written_and_does_not_print() -> None:
    again = SigningKey.read(KEY.pem())
    assert again.public == KEY.public
    assert KEY.pem().splitlines()[1] not in f"{again!r} {again}"
    with pytest.raises(KeyNotUsable):
        SigningKey.read("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")


def test_an_assertion_proves_who_holds_the_key() -> None:
    assertion = KEY.assertion("north", NOW)
    assert key_id_in(assertion) == KEY.public.key_id
    claims = verified(assertion, "north", KEY.public, NOW)
    assert (claims.sub, claims.other_key, claims.good_until()) == ("unit:north", None, NOW + 60 + SKEW)
    assert KEY.assertion("north", NOW) != assertion, "each is another"


@given(st.integers(-SKEW, SKEW), st.integers(0, 59))
def test_clocks_may_be_five_minutes_apart_either_way(skew: int, later: int) -> None:
    verified(KEY.assertion("north", NOW + skew), "north", KEY.public, NOW + later)


@given(st.integers(SKEW + 62, 10**6))
def test_clocks_further_apart_are_told_from_one_another(apart: int) -> None:
    assert refusal(KEY.assertion("north", NOW - apart)) == "assertion_expired"
    assert refusal(KEY.assertion("north", NOW + apart)) == "assertion_early"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "unit:south"},
        {"sub": "unit:south"},
        {"aud": "elsewhere"},
        {"jti": None},
        {"jti": "short"},
        {"exp": None},
        {"exp": NOW},
        {"exp": NOW + LONGEST_LIFE + 1},
        {"exp": "soon"},
        {"iat": None},
        {"other_key": "not an id"},
    ],
)
def test_an_assertion_of_another_shape_proves_nothing(changes: dict[str, object]) -> None:
    verified(signed(), "north", KEY.public, NOW)
    assert refusal(signed(**changes)) == "assertion_invalid"


def test_an_assertion_for_another_unit_or_by_another_key_proves_nothing() -> None:
    assert refusal(KEY.assertion("south", NOW)) == "assertion_invalid"
    assert refusal(KEY.assertion("north", NOW), key=SigningKey.generate().public) == "assertion_invalid"


@given(st.text(max_size=300))
def test_no_text_breaks_the_reading_of_assertions(text: str) -> None:
    with pytest.raises(AssertionRefused):
        key_id_in(text)


def test_a_code_follows_from_its_command_and_from_nothing_anybody_else_knows() -> None:
    codes, command = EnrolmentCodes(SECRET), UUID(int=1)
    code = codes.code("north", command)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){4}[0-9A-HJKMNP-TV-Z]{5}", code)
    assert EnrolmentCodes(SECRET).code("north", command) == code
    assert codes.code("south", command) != code
    assert codes.code("north", UUID(int=2)) != code
    assert EnrolmentCodes(generate_key_pair()[0]).code("north", command) != code


def test_a_code_is_taken_as_people_type_it() -> None:
    code = "7Q0XB-3M9TD-K2V81-Z5RNA-61CWF"
    typed = ("7q0xb-3m9td-k2v81-z5rna-61cwf", " 7QOXB 3M9TD K2V8L Z5RNA 6ICWF\n", code.replace("-", ""))
    assert {code_hash(one) for one in typed} == {code_hash(code)}
    assert code_hash(code[:-1] + "G") != code_hash(code)
