"""What an agent lets itself in with: a token it was given, a file with one that somebody renews, or its own key.

With a key it gets short tokens from the network's gateway and renews them itself; when to do so is
`unit_agent.renewal`'s. The key's place on disk is `unit_agent.keys`'.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from contracts.ids import UNIT_ID
from unit_agent.network import Gateway, NetworkAway, NetworkRefused

if TYPE_CHECKING:  # cryptography is 9 MB of memory, which an agent with a token has no use for
    from infra.unit_keys import SigningKey
    from unit_agent.keys import Enrolment

STILL_GOOD: Final = 15.0
"""Seconds a token has to have left to be used for another connection."""
REMEDIES: Final = {
    "key_unknown": "the network does not know this agent's key: enrol again",
    "key_revoked": "the key was revoked: ask the network for an enrolment code and enrol again",
    "key_replaced": "the key was replaced by another agent's: ask the network who, and enrol again",
    "unit_retired": "the unit has left the network",
    "certificate_not_this_unit": "the client certificate is not this unit's",
}
_WRONG_CLOCK: Final = frozenset({"assertion_expired", "assertion_early"})

log = structlog.get_logger()


class CredentialUnusable(Exception):
    """The credential cannot be read, names no unit or is refused; the message says what to do, never shows a token."""


class CredentialRefused(CredentialUnusable):
    """The network does not take this agent's key, and will not until somebody acts."""


class CredentialDelayed(Exception):
    """No token can be had right now: not the credential's fault. `why` is a short code."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class Credential:
    """`TOKEN`, or `@FILE` which is read again for every connection."""

    def __init__(self, given: str) -> None:
        self._given = given.strip()
        self._used: str | None = None
        """What `bearer` gave last."""

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
        unit = _claims(self.token()).get("unit")
        if not isinstance(unit, str) or not UNIT_ID.fullmatch(unit):
            raise CredentialUnusable("the credential names no unit: `carespine token --role unit --unit U`")
        return unit

    async def bearer(self) -> str:
        """The token for another connection. Raises CredentialUnusable, CredentialDelayed."""
        self._used = None
        self._used = self.token()
        return self._used

    def refused(self) -> bool:
        """The centre has turned away what `bearer` gave last; whether another can be got without anybody's doing."""
        return False

    def has_changed(self) -> bool:
        """Whether there is another than `bearer` gave last."""
        try:
            return self.token() != self._used
        except CredentialUnusable:
            return False

    def is_renewable(self) -> bool:
        """Whether there will ever be a newer one."""
        return self._given.startswith("@")

    def proof(self, now: datetime) -> str | None:
        """An assertion that renews the session in its own link, or None: only tokens are to be had."""
        return None

    async def newer(self, expires_at: datetime) -> str | None:
        """A token that lasts longer than `expires_at`; None: there is none (yet). Raises as `bearer`."""
        token = self.token()
        end = _claims(token).get("exp")
        return token if isinstance(end, int) and end > expires_at.timestamp() + 1 else None

    def renewed(self, token: str | None, expires_at: datetime) -> None:
        """The session was renewed; `token` is for the next connection."""

    def links(self) -> list[str]:
        """Where the unit link is, as far as whoever gives tokens has told."""
        return []


class KeyCredential(Credential):
    """The agent's own key, registered once with a code (`unit_agent.enrolment`)."""

    def __init__(
        self,
        folder: Path,
        *,
        gateway_url: str | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gateway_url`: None, the one it enrolled with. Raises CredentialUnusable when this agent has not enrolled."""
        from unit_agent.keys import KeyFolder

        super().__init__("")
        self._folder = KeyFolder(folder)
        self._clock = clock
        self._ahead = 0.0
        """Seconds by which the centre's clock is ahead of ours, as last told."""
        self._token: tuple[str, float] | None = None
        """With when it runs out by the centre's clock; None: another one is to be got."""
        self._links: list[str] = []
        self._key, self._enrolment = self._read()
        self._gateway = Gateway(gateway_url or self._enrolment.gateway_url, tls=tls)

    def unit(self) -> str:
        """The unit it is enrolled for."""
        return self._enrolment.unit_id

    @property
    def key_id(self) -> str:
        """Which key it is, as operators see it."""
        return self._key.public.key_id

    async def bearer(self) -> str:
        """A token that lasts a while yet, got from the gateway when there is none."""
        self._look_again()
        if self._token is not None and self._now() < self._token[1] - STILL_GOOD:
            return self._token[0]
        return await self._fetched()

    def refused(self) -> bool:
        """Get another the next time."""
        self._token = None
        return True

    def has_changed(self) -> bool:
        """Whether this agent was enrolled anew, or its key replaced."""
        try:
            return self._read()[0].public != self._key.public
        except CredentialUnusable:
            return False

    def is_renewable(self) -> bool:
        """As long as the key is good."""
        return True

    def proof(self, now: datetime) -> str | None:
        """Signed now, by the centre's clock."""
        return self._key.assertion(self.unit(), now.timestamp())

    async def newer(self, expires_at: datetime) -> str | None:
        """Another token from the gateway."""
        return await self._fetched()

    def renewed(self, token: str | None, expires_at: datetime) -> None:
        """Keep the token that came with it."""
        if token is not None:
            self._token = (token, expires_at.timestamp())

    def links(self) -> list[str]:
        """As the gateway told with the last token; before, or where it does not tell: the gateway's own host."""
        scheme, _, rest = self._gateway.url.partition("://")
        return self._links or [f"{'wss' if scheme == 'https' else 'ws'}://{rest}/unit"]

    def _now(self) -> float:
        return self._clock() + self._ahead

    def _read(self) -> tuple[SigningKey, Enrolment]:
        from unit_agent.keys import KeyFileUnusable

        try:
            key, enrolment = self._folder.key(), self._folder.enrolment()
        except KeyFileUnusable as why:
            raise CredentialUnusable(str(why)) from None
        if key is None or enrolment is None:
            raise CredentialUnusable("this agent has not enrolled: python -m unit_agent enrol, with a code")
        return key, enrolment

    def _look_again(self) -> None:
        """Whoever enrolled anew or replaced the key while this agent runs is heard."""
        key, enrolment = self._read()
        if key.public != self._key.public:
            self._key, self._enrolment, self._token = key, enrolment, None

    async def _fetched(self) -> str:
        for attempt in (1, 2, 3):
            try:
                answer = await self._gateway.post(
                    f"/api/units/{self.unit()}/token", {"assertion": self._key.assertion(self.unit(), self._now())}
                )
                return self._taken(answer)
            except NetworkAway as away:
                raise CredentialDelayed(away.why, away.retry_after) from None
            except NetworkRefused as no:
                if attempt == 3 or not self._may_mend(no):
                    raise CredentialRefused(
                        f"{no.code}: {REMEDIES.get(no.code, 'ask the network, and enrol again')}"
                    ) from None
        raise AssertionError("the loop ends by returning or raising")

    def _may_mend(self, no: NetworkRefused) -> bool:
        """Whether asking once more, with a corrected clock or a fresh assertion, may help."""
        if no.code in _WRONG_CLOCK and no.server_time is not None:
            self._hear_time(no.server_time)
            log.warning("clock_differs", unit_id=self.unit(), seconds=round(self._ahead))
            return True
        return no.code == "assertion_replayed"

    def _taken(self, answer: dict[str, Any]) -> str:  # Any: JSON
        try:
            token, expires_at = str(answer["token"]), datetime.fromisoformat(answer["expiresAt"]).timestamp()
            self._hear_time(answer["serverTime"])
        except (KeyError, TypeError, ValueError):
            raise CredentialDelayed("not_an_answer") from None
        links = answer.get("unitUrls")
        self._links = [str(url) for url in links] if isinstance(links, list) else []
        self._token = (token, expires_at)
        return token

    def _hear_time(self, told: str) -> None:
        try:
            self._ahead = datetime.fromisoformat(told).astimezone(UTC).timestamp() - self._clock()
        except (TypeError, ValueError):
            return


def credential_of(
    given: str | None, *, folder: Path, gateway_url: str | None = None, tls: ssl.SSLContext | None = None
) -> Credential:
    """What was given, else the key this agent has enrolled with. Raises CredentialUnusable."""
    return Credential(given) if given else KeyCredential(folder, gateway_url=gateway_url, tls=tls)


def _claims(token: str) -> dict[str, Any]:  # Any: JSON
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, binascii.Error):
        claims = None
    if not isinstance(claims, dict):
        raise CredentialUnusable("the credential is not a token: `carespine token --role unit --unit U`")
    return claims
