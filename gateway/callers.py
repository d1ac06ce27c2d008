"""Who asks and for which unit: the bearer token becomes an actor, and the unit is the token's own or one it may name.

What a role may ask stands on each command (`Command.may`); what it may look at is said by each question's route.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from contracts.envelope import Json
from contracts.identity import PEOPLE, Actor, Role
from contracts.ids import UNIT_ID
from gateway.passage import Passage
from gateway.problems import RETRY_AFTER, Problem, invalid_field, unauthenticated
from infra.tokens import Claims, InvalidToken, Verifier

READERS: Final = PEOPLE | {Role.UNIT}
"""Who may look at a unit's patients, visits and queues."""
NETWORK: Final = READERS | {Role.OPS}
"""Who may look at units, their commands' status and their mailboxes."""
OPERATORS: Final = frozenset({Role.OPS})

_DETAILS: Final = {
    "expired": "Get a new token.",
    "forged": "It was not signed by this installation's key.",
    "not_yet_valid": "Its time has not come; check the clocks.",
    "revoked": "Its session has ended, or the account's roles have changed: take new tokens, or log in.",
    "wrong_audience": "It was made for another system.",
}


class Callers:
    """Turns bearer tokens into actors."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        turned_away: Callable[[str], None] = lambda reason: None,
        forbid: Callable[[Claims], str | None] = lambda claims: None,
        certificate_header: str | None = None,
    ) -> None:
        self._verifier = verifier
        self._turned_away = turned_away
        """Told why, each time somebody is not let in."""
        self._forbid = forbid
        """Why a unit's token is not good any more; None when it is (`infra.unit_credentials.Revocations`)."""
        self._certificate_header = certificate_header.lower().encode() if certificate_header else None
        """Where a proxy names the unit of a client certificate; None: none is asked for."""

    def actor(self, asked: Passage) -> Actor:
        """The bearer of the request's token, or Problem 401."""
        claims = self.bearer(asked)
        return Actor.model_construct(subject=claims.sub, role=claims.role, unit=claims.unit)

    def bearer(self, asked: Passage) -> Claims:
        """What the request's token says, its lifetime too, or Problem 401."""
        header = asked.headers.get(b"authorization")
        if header is None:
            self._turned_away("missing")
            raise unauthenticated("token_missing", "Send `Authorization: Bearer <token>`.")
        scheme, _, token = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            self._turned_away("scheme")
            raise unauthenticated("token_invalid", "Send `Authorization: Bearer <token>`.")
        try:
            claims = self._verifier.verify(token.strip())
        except InvalidToken as why:
            raise self._not_good(why.code) from None
        if claims.role is Role.UNIT:
            self._unit(asked, claims)
        return claims

    def published_keys(self) -> Json:
        """What others verify our tokens with: a JWK Set."""
        return self._verifier.keys.jwks()

    def certified(self, asked: Passage, unit_id: str) -> None:
        """Problem 403 when a client certificate is asked for, and the request came with another unit's, or none."""
        if self._certificate_header is None:
            return
        if asked.headers.get(self._certificate_header, b"").decode("latin-1") != unit_id:
            self._turned_away("certificate")
            raise Problem("certificate_not_this_unit", "Use the certificate that was issued for this unit.")

    def _not_good(self, why: str) -> Problem:
        if why == "revocations_not_known":
            detail = "Whether the session has ended is not known yet."
            return Problem("database_unavailable", detail, headers=RETRY_AFTER)
        self._turned_away(why)
        code = {"expired": "token_expired", "revoked": "token_revoked"}.get(why, "token_invalid")
        return unauthenticated(code, _DETAILS.get(why, "It cannot be read."))

    def _unit(self, asked: Passage, claims: Claims) -> None:
        """What a unit's token has to pass besides."""
        self.certified(asked, claims.unit or "")
        match self._forbid(claims):
            case None:
                return
            case "revocations_not_known":
                raise Problem(
                    "database_unavailable", "Whether the token was revoked is not known yet.", headers=RETRY_AFTER
                )
            case _:
                self._turned_away("revoked")
                raise unauthenticated("token_revoked", "Get a new token; a revoked key has to be enrolled anew.")


def allow(actor: Actor, roles: Set[Role]) -> None:
    """Problem 403 unless the actor's role is one of these."""
    if actor.role not in roles:
        allowed = ", ".join(sorted(role.value for role in roles)) or "nobody outside the system"
        raise Problem("not_allowed", f"The role {actor.role.value} may not do that; allowed: {allowed}.")


def unit_named(asked: Passage, in_query: str | None = None) -> str | None:
    """The unit a request names beside its path and body: header `X-Unit-Id`, or the query parameter `unit`."""
    header = asked.text(b"x-unit-id")
    if header is not None and in_query is not None and header != in_query:
        raise invalid_field("X-Unit-Id", "must be the same as the query parameter `unit`, or left out")
    return header if header is not None else in_query


def unit_for(actor: Actor, named: str | None) -> str | None:
    """The one unit the request is about; None: the caller is network-wide and named none. Raises Problem."""
    if actor.unit is not None:
        if named is not None and named != actor.unit:
            raise Problem("other_unit", f"The token speaks for unit {actor.unit} only.")
        return actor.unit
    if named is not None and not UNIT_ID.fullmatch(named):
        raise invalid_field("unitId", "must be 1 to 40 characters: a to z, 0 to 9 and dashes")
    return named


def one_unit(actor: Actor, *named: str | None) -> str:
    """The one unit the request is about, which must be clear; the names given must agree. Raises Problem."""
    names = {name for name in named if name is not None}
    if len(names) > 1:
        raise invalid_field("unitId", "is named twice, differently")
    unit = unit_for(actor, names.pop() if names else None)
    if unit is None:
        raise Problem(
            "unit_required", "Name the unit: header X-Unit-Id, `unit` in a question's query, or unitId in a body."
        )
    return unit
