"""Bearer tokens: minted and verified, EdDSA (Ed25519) JWT. Knows who a token speaks for; what they may do is others'.

Verifying a signature costs 74 µs, so a token seen before is answered from a bounded cache, its lifetime checked each
time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.identity import Role
from contracts.ids import UnitId
from infra.token_keys import KeyRing, signing_key

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

    `code`: missing · malformed · expired · forged · not_yet_valid · wrong_audience · revoked · revocations_not_known.
    Says nothing of the token's content.
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
    sid: str | None = Field(None, max_length=100)
    """The session of a person who has logged in (`infra.staff_sessions`); None: nobody has."""
    roles: tuple[Role, ...] = Field((), max_length=8)
    """All roles of that person; empty: `role` is the only one."""
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
    session: str | None = None,
    roles: Sequence[Role] = (),
    ttl: int = 3600,
    clock: Clock = time.time,
) -> str:
    """A token for `role`, valid for `ttl` seconds from now. `subject` defaults to the unit, else the role.

    `key_id`: the unit's own key that it is given for; `session`: the login that it belongs to, with all the person's
    `roles`. The header names the key it is signed with.
    """
    private, signed_by = signing_key(private_key_pem)
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
    if session is not None:
        claims["sid"] = session
    if roles:
        claims["roles"] = [one.value for one in roles]
    return jwt.encode(claims, private, algorithm=ALGORITHM, headers={"kid": signed_by})


class Verifier:
    """Verifies tokens with the public keys it is given."""

    def __init__(
        self,
        public_keys: str,
        *,
        clock: Clock = time.time,
        cached: int = CACHED_TOKENS,
        ended: Callable[[Claims], str | None] = lambda claims: None,
    ) -> None:
        """`public_keys`: as `KeyRing.read` takes them. `ended`: why the token of a session is not good any more."""
        self.keys = KeyRing.read(public_keys)
        self.ended: Final = ended
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
        if claims.sid is not None and (why := self.ended(claims)) is not None:
            raise InvalidToken(why)
        return claims

    def _remember(self, token: str, claims: Claims) -> None:
        self._seen[token] = claims
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def _checked(self, token: str) -> Claims:
        if len(token) > LONGEST_TOKEN:
            raise InvalidToken("malformed")
        try:
            claims = Claims.model_validate(self._content(token))
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise InvalidToken("wrong_audience") from None
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            raise InvalidToken("forged") from None
        except (jwt.InvalidTokenError, ValidationError):
            raise InvalidToken("malformed") from None
        if Role.SYSTEM in (claims.role, *claims.roles):
            raise InvalidToken("forged")
        return claims

    def _content(self, token: str) -> dict[str, Any]:  # Any: JSON
        named = jwt.get_unverified_header(token).get("kid")
        if named is None:
            candidates = self.keys.all()  # a token of an earlier release names no key
        else:
            key = self.keys.named(named)
            if key is None:
                raise InvalidToken("forged")
            candidates = [key]
        for key in candidates[:-1]:
            try:
                return self._decoded(token, key)
            except jwt.InvalidSignatureError:
                continue
        return self._decoded(token, candidates[-1])

    def _decoded(self, token: str, key: Ed25519PublicKey) -> dict[str, Any]:  # Any: JSON
        content: dict[str, Any] = jwt.decode(  # Any: as above
            token,
            key,
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
        return content
