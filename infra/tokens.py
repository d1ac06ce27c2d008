"""Bearer tokens: minted and verified, EdDSA (Ed25519) JWT. Knows who a token speaks for; what they may do is others'.

Verifying a signature costs 74 µs, so a token seen before is answered from a bounded cache, its lifetime checked each
time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.identity import Role
from contracts.ids import UnitId

ISSUER: Final = "carespine"
AUDIENCE: Final = "carespine"
ALGORITHM: Final = "EdDSA"
LEEWAY_SECONDS: Final = 30
"""How far the minting machine's clock may be ahead of ours."""
CACHED_TOKENS: Final = 20_000
LONGEST_TOKEN: Final = 4096

Clock = Callable[[], float]
"""Seconds since the epoch."""


class InvalidToken(Exception):
    """This token does not let anybody in.

    `code`: missing · malformed · expired · forged · not_yet_valid · wrong_audience. Says nothing of the token's
    content.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"invalid token: {code}")
        self.code = code


class Claims(BaseModel):
    """Who the bearer is."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    sub: str = Field(min_length=1, max_length=100)
    role: Role
    unit: UnitId | None = None
    """The one unit the bearer works for; None: the whole network."""
    kid: str | None = None
    """The unit's own key that it was got with (`infra.unit_credentials`); None: it was got without one."""
    exp: int
    iat: int
    nbf: int
    jti: str


def generate_key_pair() -> tuple[str, str]:
    """A new signing key: (private, public), both PEM."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


def mint(
    private_key_pem: str,
    *,
    role: Role,
    unit: str | None = None,
    subject: str | None = None,
    key_id: str | None = None,
    ttl: int = 3600,
    clock: Clock = time.time,
) -> str:
    """A token for `role`, valid for `ttl` seconds from now. `subject` defaults to the unit, else the role.

    `key_id`: the unit's own key that it is given for.
    """
    now = int(clock())
    claims: dict[str, Any] = {  # Any: JSON
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject or unit or role.value,
        "role": role.value,
        "iat": now,
        "nbf": now,
        "exp": now + ttl,
        "jti": uuid4().hex,
    }
    if unit is not None:
        claims["unit"] = unit
    if key_id is not None:
        claims["kid"] = key_id
    return jwt.encode(claims, private_key_pem, algorithm=ALGORITHM)


class Verifier:
    """Verifies tokens with one public key."""

    def __init__(self, public_key_pem: str, *, clock: Clock = time.time, cached: int = CACHED_TOKENS) -> None:
        key = load_pem_public_key(public_key_pem.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("the token key is not an Ed25519 public key")
        self._key = key
        self._clock = clock
        self._limit = cached
        self._seen: OrderedDict[str, Claims] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many tokens the cache holds now."""
        return len(self._seen)

    def verify(self, token: str | None) -> Claims:
        """Who the bearer of this token is. Raises InvalidToken."""
        if not token:
            raise InvalidToken("missing")
        claims = self._seen.get(token)
        if claims is None:
            claims = self._checked(token)
            self._remember(token, claims)
        else:
            self._seen.move_to_end(token)
        now = self._clock()
        if now >= claims.exp:
            self._seen.pop(token, None)
            raise InvalidToken("expired")
        if now < claims.nbf - LEEWAY_SECONDS:
            raise InvalidToken("not_yet_valid")
        return claims

    def _remember(self, token: str, claims: Claims) -> None:
        self._seen[token] = claims
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def _checked(self, token: str) -> Claims:
        if len(token) > LONGEST_TOKEN:
            raise InvalidToken("malformed")
        try:
            content = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # Times are checked by `verify`, on every use and with its clock.
                options={
                    "require": ["exp", "iat", "nbf", "sub", "jti", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            claims = Claims.model_validate(content)
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise InvalidToken("wrong_audience") from None
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            raise InvalidToken("forged") from None
        except (jwt.InvalidTokenError, ValidationError):
            raise InvalidToken("malformed") from None
        if claims.role is Role.SYSTEM:
            raise InvalidToken("forged")
        return claims
