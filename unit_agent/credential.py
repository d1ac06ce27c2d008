"""The credential the agent was given: a token, or a file with one that somebody renews."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

from contracts.ids import UNIT_ID


class CredentialUnusable(Exception):
    """The credential cannot be read, or names no unit; the message says what to do and never shows the token."""


class Credential:
    """`TOKEN`, or `@FILE` which is read again for every connection."""

    def __init__(self, given: str) -> None:
        self._given = given.strip()

    def token(self) -> str:
        """The token as it is now. Raises CredentialUnusable."""
        if not self._given.startswith("@"):
            return self._given
        path = Path(self._given[1:])
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as why:
            raise CredentialUnusable(f"the credential file {path} cannot be read: {type(why).__name__}") from why
        if not token:
            raise CredentialUnusable(f"the credential file {path} is empty")
        return token

    def unit(self) -> str:
        """The unit the token says it is for; whether that is true, the bridge decides. Raises CredentialUnusable."""
        try:
            body = self.token().split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (IndexError, ValueError, binascii.Error):
            raise CredentialUnusable("the credential is not a token: `carespine token --role unit --unit U`") from None
        unit = claims.get("unit") if isinstance(claims, dict) else None
        if not isinstance(unit, str) or not UNIT_ID.fullmatch(unit):
            raise CredentialUnusable("the credential names no unit: `carespine token --role unit --unit U`")
        return unit
