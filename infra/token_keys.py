"""The keys tokens are signed with: how they are named, read and published (RFC 7517, 7638, 8037). Signing and verifying
is `infra.tokens`'.

Several may be good at once. To change the signing key without sending anybody away: let every process verify with both
public keys, then sign with the new one, and drop the old public key when the last token it signed has run out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

Json = dict[str, Any]  # Any: JSON
MOST_KEYS: Final = 16

_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class KeysNotUsable(ValueError):
    """What was given as token keys is none; never says more of it than what is wrong."""


class KeyRing:
    """Public keys by their ids."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id_of(key): key for key in keys}
        if not 1 <= len(self._keys) <= MOST_KEYS:
            raise KeysNotUsable(f"between 1 and {MOST_KEYS} token keys are needed")

    @classmethod
    def read(cls, text: str) -> KeyRing:
        """PEM, one or several after one another, or a JWK Set. Raises KeysNotUsable."""
        if text.lstrip().startswith("{"):
            return cls(_of_jwks(text))
        return cls(_of_pem(block) for block in _PEM.findall(text))

    def named(self, key_id: str) -> Ed25519PublicKey | None:
        """The key of that id, or None."""
        return self._keys.get(key_id)

    def all(self) -> list[Ed25519PublicKey]:
        """Every key."""
        return list(self._keys.values())

    def jwks(self) -> Json:
        """The JWK Set that others verify our tokens with."""
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": _x(key), "kid": key_id, "use": "sig", "alg": "EdDSA"}
                for key_id, key in self._keys.items()
            ]
        }


def key_id_of(key: Ed25519PublicKey) -> str:
    """The key's JWK thumbprint (RFC 7638): the same wherever it is computed."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{_x(key)}"}}'
    return _base64url(hashlib.sha256(canonical.encode()).digest())


@lru_cache(maxsize=4)
def signing_key(private_key_pem: str) -> tuple[Ed25519PrivateKey, str]:
    """The key and its id; reading PEM costs more than signing, so the last few are kept. Raises KeysNotUsable."""
    try:
        private = load_pem_private_key(private_key_pem.encode(), None)
    except (ValueError, TypeError):
        raise KeysNotUsable("the signing key cannot be read") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeysNotUsable("the signing key is not an Ed25519 private key")
    return private, key_id_of(private.public_key())


def _of_pem(block: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(block.encode())
    except ValueError:
        raise KeysNotUsable("a token key cannot be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeysNotUsable("a token key is not an Ed25519 public key")
    return key


def _of_jwks(text: str) -> list[Ed25519PublicKey]:
    try:
        listed = orjson.loads(text)["keys"]
        return [_of_jwk(jwk) for jwk in listed]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise KeysNotUsable("the token keys are not a JWK Set") from None


def _of_jwk(jwk: Mapping[str, object]) -> Ed25519PublicKey:
    x = jwk["x"]
    if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519") or not isinstance(x, str):
        raise KeysNotUsable("a token key is not an Ed25519 public key")
    if "d" in jwk:
        raise KeysNotUsable("a private key stands among the public ones")
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    except (ValueError, binascii.Error):
        raise KeysNotUsable("a token key cannot be read") from None


def _x(key: Ed25519PublicKey) -> str:
    return _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
