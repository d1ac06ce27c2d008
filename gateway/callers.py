"""Who asks and for which unit: the bearer token becomes an actor, and the unit is the token's own or one it may name.

What a role may ask stands on each command (`Command.may`); what it may look at is said by each question's route.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from contracts.identity import PEOPLE, Actor, Role
from contracts.ids import UNIT_ID
from gateway.passage import Passage
from gateway.problems import Problem, invalid_field, unauthenticated
from infra.tokens import InvalidToken, Verifier

READERS: Final = PEOPLE | {Role.UNIT}
"""Who may look at a unit's patients, visits and queues."""
NETWORK: Final = READERS | {Role.OPS}
"""Who may look at units, their commands' status and their mailboxes."""
OPERATORS: Final = frozenset({Role.OPS})

_DETAILS: Final = {
    "expired": "Get a new token.",
    "forged": "It was not signed by this installation's key.",
    "not_yet_valid": "Its time has not come; check the clocks.",
    "wrong_audience": "It was made for another system.",
}


class Callers:
    """Turns bearer tokens into actors."""

    def __init__(self, verifier: Verifier, *, turned_away: Callable[[str], None] = lambda reason: None) -> None:
        self._verifier = verifier
        self._turned_away = turned_away
        """Told why, each time somebody is not let in."""

    def actor(self, asked: Passage) -> Actor:
        """The bearer of the request's token, or Problem 401."""
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
            self._turned_away(why.code)
            code = "token_expired" if why.code == "expired" else "token_invalid"
            raise unauthenticated(code, _DETAILS.get(why.code, "It cannot be read.")) from None
        return Actor.model_construct(subject=claims.sub, role=claims.role, unit=claims.unit)


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
        raise Problem("unit_required", "Name the unit: header X-Unit-Id, or unitId in the body.")
    return unit
