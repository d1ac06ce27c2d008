"""What lets a link go on: the credential it was opened with, its renewal in the session, and the end of it.

Whether an assertion or token is good is `infra.unit_credentials`'; who is let in at all is `ws_bridge.admission`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from contracts.envelope import Json
from contracts.frames import CloseCode, Renew, Renewed
from contracts.identity import Role
from contracts.unit_credential import UnitCredentialRevoked
from infra.database import DatabaseUnavailable
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims, Clock, InvalidToken, Verifier
from infra.unit_credentials import Exchange, Revocation, Revocations
from infra.unit_keys import AssertionRefused

GRACE: Final = 30.0
"""Seconds a link goes on after its token has run out, for those who can renew it themselves."""
AT_ONCE: Final = 2
"""Renewals that ask the database at the same time; the others wait their turn."""
PATIENCE: Final = 8.0
HELD_OVER: Final = 60.0
"""Seconds for which a link goes on whose renewal could not be looked at, because our database is away."""
LONGEST_HELD_OVER: Final = 3600.0
"""Seconds since its credential was last looked at, after which no link is held over any more."""

_REVOKED: Final = UnitCredentialRevoked.type_name()
_ENROL_AGAIN: Final = frozenset({"key_revoked", "key_unknown"})

log = structlog.get_logger()


class Happened(Protocol):
    """A fact, as far as credentials look at it."""

    @property
    def type(self) -> str: ...
    @property
    def payload(self) -> Json: ...


@dataclass(slots=True)
class LinkCredential:
    """What a link is held by: the token it was opened with, or what that was renewed to."""

    unit_id: str
    key_id: str | None
    """The unit's own key; None: a token that somebody else renews."""
    issued_at: int
    expires_at: float
    """Seconds since the epoch."""
    looked_at: float
    """When it was last found good."""

    @classmethod
    def of(cls, claims: Claims, now: float) -> LinkCredential:
        """The one that a verified token stands for."""
        return cls(claims.unit or "", claims.kid, claims.iat, claims.exp, now)

    @property
    def ends_at(self) -> float:
        """When the link ends, unless it is renewed before."""
        return self.expires_at + (GRACE if self.key_id is not None else 0.0)

    def ended_by(self, revocation: Revocation) -> CloseCode | None:
        """How the link ends because of this; None when it goes on."""
        if not revocation.ends(issued_at=self.issued_at, key_id=self.key_id):
            return None
        # Another key than the revoked one is still good: its holder only needs another token.
        return CloseCode.CREDENTIAL_REVOKED if revocation.voids(self.key_id) else CloseCode.TOKEN_NOT_VALID

    def ended_by_any(self, facts: Iterable[Happened]) -> CloseCode | None:
        """How the link ends because of one of these facts of its unit; None when it goes on."""
        for fact in facts:
            if fact.type == _REVOKED:
                happened = datetime.fromisoformat(fact.payload["notBefore"])
                ended = self.ended_by(Revocation(self.unit_id, fact.payload.get("keyId"), happened))
                if ended is not None:
                    return ended
        return None


class Renewable(Protocol):
    """An open link."""

    @property
    def unit_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...

    credential: LinkCredential

    def say(self, frame: bytes) -> None: ...
    def end(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None: ...


class Renewals:
    """Answers `renew`: with `renewed`, or with the close."""

    def __init__(
        self,
        exchange: Exchange,
        verifier: Verifier,
        revocations: Revocations,
        metrics: Metrics,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._exchange = exchange
        self._verifier = verifier
        self._revocations = revocations
        self._metrics = metrics
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)

    def shut_out(self, link: Renewable) -> CloseCode | None:
        """Why a link whose session is being opened is not given after all: its credential was revoked meanwhile.

        Asked when the link can already be told of revocations, so that none falls in between.
        """
        held = link.credential
        match self._revocations.against(held.unit_id, key_id=held.key_id, issued_at=held.issued_at):
            case None:
                return None
            case "key_revoked":
                return CloseCode.CREDENTIAL_REVOKED
            case _:
                return CloseCode.TOKEN_NOT_VALID

    async def hear(self, link: Renewable, renew: Renew) -> None:
        """A newer credential for this session. Holds up its own link only."""
        try:
            async with asyncio.timeout(PATIENCE):
                if renew.assertion is not None:
                    await self._by_assertion(link, renew.assertion)
                elif renew.token is not None:
                    self._by_token(link, renew.token)
                else:
                    raise AssertionRefused("assertion_invalid")
        except AssertionRefused as why:
            code = CloseCode.CREDENTIAL_REVOKED if why.code in _ENROL_AGAIN else CloseCode.TOKEN_NOT_VALID
            self._metrics.unit_renewals.labels("refused").inc()
            log.warning("renewal_refused", unit_id=link.unit_id, reason=why.code)
            link.end(code, f"the renewal was refused: {why.code}")
        except (DatabaseUnavailable, TimeoutError):
            self._hold_over(link)

    async def _by_assertion(self, link: Renewable, assertion: str) -> None:
        async with self._turn:
            issued = await self._exchange.take(link.unit_id, assertion)
        link.credential = LinkCredential(
            link.unit_id, issued.key_id, issued.issued_at, issued.expires_at.timestamp(), self._clock()
        )
        self._renewed(link, issued.expires_at, issued.token)

    def _by_token(self, link: Renewable, token: str) -> None:
        try:
            claims = self._verifier.verify(token)
        except InvalidToken as why:
            raise AssertionRefused(f"token_{why.code}") from None
        if claims.role is not Role.UNIT or claims.unit != link.unit_id:
            raise AssertionRefused("token_of_another_unit")
        forbidden = self._revocations.forbid(claims)
        if forbidden is not None:
            raise AssertionRefused(forbidden)
        link.credential = LinkCredential.of(claims, self._clock())
        self._renewed(link, datetime.fromtimestamp(claims.exp, UTC), None)

    def _renewed(self, link: Renewable, expires_at: datetime, token: str | None) -> None:
        self._metrics.unit_renewals.labels("renewed").inc()
        link.say(Renewed(epoch=link.epoch, expires_at=expires_at, token=token).to_json())

    def _hold_over(self, link: Renewable) -> None:
        """It is our trouble that the renewal cannot be looked at: the link goes on for a little, and asks again."""
        now, held = self._clock(), link.credential
        if now - held.looked_at > LONGEST_HELD_OVER:
            self._metrics.unit_renewals.labels("refused").inc()
            link.end(CloseCode.TOKEN_NOT_VALID, "the credential could not be looked at for too long")
            return
        self._metrics.unit_renewals.labels("held_over").inc()
        held.expires_at = max(held.expires_at, now + HELD_OVER)
        until = datetime.fromtimestamp(now, UTC) + timedelta(seconds=HELD_OVER)
        link.say(Renewed(epoch=link.epoch, expires_at=until).to_json())
