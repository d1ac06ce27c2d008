"""A unit's own key and what is done with it: ids, encodings, signed assertions; and enrolment codes. No I/O.

An assertion is a JWT signed by the unit's key: good once, for a few minutes. What it is worth is decided by whoever
knows the unit's keys (`infra.unit_credentials`); where an agent keeps its key is `unit_agent.keys`'.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "carespine"
LONGEST_ASSERTION: Final = 4096
LONGEST_LIFE: Final = 300
"""Seconds from an assertion's issue to its end, at most."""
SKEW: Final = 300
"""Seconds by which a unit's clock may differ from ours, either way."""

_KEY_ID: Final = re.compile(r"[0-9a-f]{32}")
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32: nothing that looks like something else
_CODE_LETTERS: Final = 25
_LOOKALIKES: Final = str.maketrans("OIL", "011", "- \t\r\n")


class KeyNotUsable(ValueError):
    """This is not an Ed25519 key; the message never shows what it is."""


class AssertionRefused(Exception):
    """An assertion that proves nothing.

    `code`: assertion_invalid · assertion_expired · assertion_early · assertion_replayed · key_unknown · key_revoked ·
    key_replaced · unit_retired. Shows nothing of the assertion.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class PublicKey:
    """The public half of a unit's key."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """The first half of its SHA-256, in hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    @property
    def text(self) -> str:
        """Base64 of its 32 bytes, as events keep it."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def read(cls, text: str) -> PublicKey:
        """From PEM, or from base64 of the 32 bytes (either alphabet, padded or not). Raises KeyNotUsable."""
        text = text.strip()
        try:
            if text.startswith("-----BEGIN"):
                key = load_pem_public_key(text.encode())
                if not isinstance(key, Ed25519PublicKey):
                    raise KeyNotUsable("not an Ed25519 public key")
                return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
            standard = text.replace("-", "+").replace("_", "/").rstrip("=")
            raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
            if len(raw) != 32:
                raise KeyNotUsable("an Ed25519 public key has 32 bytes")
            Ed25519PublicKey.from_public_bytes(raw)
        except (ValueError, binascii.Error, UnsupportedAlgorithm):
            raise KeyNotUsable("not an Ed25519 public key, as PEM or base64 of its 32 bytes") from None
        return cls(raw)


class SigningKey:
    """A unit's private key. Never printed; `pem` is for the file it is kept in."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = PublicKey(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def generate(cls) -> SigningKey:
        """A new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, pem: str) -> SigningKey:
        """From PEM. Raises KeyNotUsable."""
        try:
            key = load_pem_private_key(pem.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyNotUsable("not a private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyNotUsable("not an Ed25519 private key")
        return cls(key)

    def pem(self) -> str:
        """As it is kept: PKCS#8, not encrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def assertion(self, unit_id: str, now: float, *, ttl: int = 60, other_key: str | None = None) -> str:
        """Proof that we hold this key: good once, for `ttl` seconds from `now` (the centre's clock, as far as known).

        `other_key`: the id of the key that replaces this one, or that this one replaces, for both sign a rotation.
        """
        subject, issued = f"unit:{unit_id}", int(now)
        claims: dict[str, Any] = {  # Any: JSON
            "iss": subject,
            "sub": subject,
            "aud": AUDIENCE,
            "iat": issued,
            "exp": issued + ttl,
            "jti": uuid4().hex,
        }
        if other_key is not None:
            claims["other_key"] = other_key
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self.public.key_id})


class Assertion(BaseModel):
    """What a unit's key has signed."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, strict=True)

    sub: str
    iat: int
    exp: int
    jti: str = Field(min_length=8, max_length=100)
    other_key: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")

    def good_until(self) -> int:
        """Seconds since the epoch after which it would not be taken any more."""
        return self.exp + SKEW


def key_id_in(assertion: str) -> str:
    """Which key an assertion says it is signed with. Raises AssertionRefused."""
    if len(assertion) > LONGEST_ASSERTION:
        raise AssertionRefused("assertion_invalid")
    try:
        header = jwt.get_unverified_header(assertion)
    except jwt.InvalidTokenError:
        raise AssertionRefused("assertion_invalid") from None
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise AssertionRefused("assertion_invalid")
    return key_id


def verified(assertion: str, unit_id: str, key: PublicKey, now: float) -> Assertion:
    """What the unit signed with this key, if it is for us and for now. Raises AssertionRefused.

    The clocks of unit and centre may be `SKEW` seconds apart.
    """
    subject = f"unit:{unit_id}"
    try:
        content = jwt.decode(
            assertion,
            Ed25519PublicKey.from_public_bytes(key.raw),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=subject,
            options={
                "require": ["exp", "iat", "sub", "jti", "iss", "aud"],
                # Times are checked below, with our clock and for both directions of skew.
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
        claims = Assertion.model_validate(content)
    except (jwt.InvalidTokenError, ValidationError):
        raise AssertionRefused("assertion_invalid") from None
    if claims.sub != subject or not 0 < claims.exp - claims.iat <= LONGEST_LIFE:
        raise AssertionRefused("assertion_invalid")
    if now >= claims.good_until():
        raise AssertionRefused("assertion_expired")
    if now < claims.iat - SKEW:
        raise AssertionRefused("assertion_early")
    return claims


class EnrolmentCodes:
    """Makes enrolment codes. The same command gives the same code, so a repeated request shows it again."""

    def __init__(self, token_private_key_pem: str) -> None:
        """The secret is derived from the installation's signing key: one secret less to keep."""
        seed = SigningKey.read(token_private_key_pem)
        self._secret = hmac.digest(seed.pem().encode(), b"carespine enrolment codes", "sha256")

    def code(self, unit_id: str, command_id: UUID) -> str:
        """Five groups of five letters and digits: 125 bits."""
        digest = hmac.digest(self._secret, command_id.bytes + unit_id.encode(), "sha256")
        number = int.from_bytes(digest[:16], "big")
        letters = "".join(_ALPHABET[number >> 5 * place & 31] for place in range(_CODE_LETTERS))
        return "-".join(letters[start : start + 5] for start in range(0, _CODE_LETTERS, 5))


def code_hash(code: str) -> str:
    """The SHA-256 of a code as people type it: in any case, with or without dashes, O for 0 and I or L for 1."""
    return hashlib.sha256(code.upper().translate(_LOOKALIKES).encode()).hexdigest()
