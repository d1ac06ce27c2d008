"""How a unit's agent gets its credentials: enrolment codes, a key registered, tokens for it, another key, and the list.

Agents come here without a bearer token: what they show instead is a code or what their key has signed. Refused attempts
are counted, by unit or key and by address, and too many are not looked at for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final, NoReturn

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.envelope import Json, Outcome, Status
from contracts.identity import Actor, Role
from contracts.ids import UNIT_ID
from contracts.model import Command, Model
from contracts.unit_credential import (
    CREDENTIAL_OPERATORS,
    EnrolmentCodeNotValid,
    EnrolUnit,
    IssueEnrolmentCode,
    RotateUnitKey,
)
from gateway.answers import addressed, answer, json_answer
from gateway.asking import Asking, Questions, Reading
from gateway.attempts import Attempts
from gateway.bodies import parsed
from gateway.callers import Callers, allow, one_unit
from gateway.intake import Intake, request_hash
from gateway.passage import DEFAULT_WAIT, Passage, passage, wishes
from gateway.positions import Position, Positions
from gateway.problems import CHALLENGE, RETRY_AFTER, Kind, Problem, invalid_field
from gateway.unit_proofs import CODES, CREDENTIALS, ENROL, KEYS, TOKEN, Enrolment, NewCode, Proof, Rotation
from infra.settings import UnitAccess
from infra.unit_credentials import Exchange, Issued
from infra.unit_keys import AssertionRefused, EnrolmentCodes, KeyNotUsable, PublicKey, code_hash, key_id_in, verified
from projections import unit_credentials, units

WRONG_CODES: Final = 10
"""Refused enrolments of one unit from one address within a minute; then it waits."""
WRONG_PROOFS: Final = 60
"""Refused assertions of one key from one address within a minute."""
NOT_VALID: Final = Kind(422, "Enrolment code not valid")

_REMEDIES: Final[Mapping[str, str]] = {
    "assertion_invalid": "It is not signed by this key, or not for this unit and purpose.",
    "assertion_expired": "Its time is over; compare your clock with `serverTime`.",
    "assertion_early": "Its time has not come; compare your clock with `serverTime`.",
    "assertion_replayed": "It was used before; sign a new one each time.",
    "key_unknown": "This key is not registered here; enrol with a code.",
    "key_revoked": "This key was revoked; ask the network for a code and enrol with a new key.",
    "key_replaced": "This key was replaced; use the one that replaced it.",
    "unit_retired": "The unit has left the network.",
}


class Credentials(Model):
    """A unit's keys and enrolment codes, the newest first."""

    unit_id: str
    keys: list[unit_credentials.UnitKey]
    enrolment_codes: list[unit_credentials.EnrolmentCode]


@dataclass(frozen=True)
class Access:
    """What these routes work with."""

    callers: Callers
    intake: Intake
    positions: Positions
    exchange: Exchange
    codes: EnrolmentCodes | None
    """None: this process was not given the key that signs."""
    settings: UnitAccess


class UnitAccounts:
    """The routes of agents, and the one that lets them in first."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._wrong_codes = Attempts(WRONG_CODES, 60)
        self._wrong_proofs = Attempts(WRONG_PROOFS, 60)

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(path, take, methods=["POST"], name=f"POST {path}")
            for path, take in (
                (CODES, self._issue), (ENROL, self._enrol), (TOKEN, self._token), (KEYS, self._rotate),
            )
        ]  # fmt: skip

    async def _issue(self, request: Request) -> Response:
        asked = passage(request)
        asked.route = CODES
        actor = self._access.callers.actor(asked)
        allow(actor, CREDENTIAL_OPERATORS)
        unit_id = one_unit(actor, request.path_params["unit_id"])
        raw = await request.body()
        body = parsed(NewCode, raw or b"{}")
        order = self._access.intake.open(actor, unit_id, wishes(asked), asked)
        code = self._codes().code(unit_id, order.command_id)
        expires_at = order.issued_at + timedelta(seconds=body.ttl_seconds)
        command = IssueEnrolmentCode(code_hash=code_hash(code), expires_at=expires_at)
        digest = request_hash("POST", request.scope["path"], body.to_json())
        outcome = await self._access.intake.submit(order, command, digest)
        if outcome is not None and outcome.result is not None:
            if outcome.position is not None:
                with suppress(Problem):  # only so that it can be used at once
                    await self._access.positions.reach(Position(outcome.partition, outcome.position))
            told = {"code": code, "expiresAt": outcome.result.get("expiresAt")}
            outcome = outcome.model_copy(update={"result": told})
        return answer(outcome, order, created=CREDENTIALS.replace("unit_id", "unitId"), found_by=addressed([]))

    async def _enrol(self, request: Request) -> Response:
        asked, unit_id = self._agent(request, ENROL)
        self._codes()
        body = parsed(Enrolment, await request.body())
        key = _public_key(body.public_key)
        counted = (f"{unit_id} {_address(request)}",)
        _look_at(self._wrong_codes.wait(counted))
        hashed = code_hash(body.code)
        command = EnrolUnit(code_hash=hashed, key_id=key.key_id, public_key=key.text)
        try:
            # What is no code at all becomes no command: guessing leaves nothing behind.
            if not await self._access.exchange.knows_code(unit_id, hashed):
                raise Problem("enrolment_code_not_valid", EnrolmentCodeNotValid.message(), kind=NOT_VALID)
            outcome = await self._done(asked, unit_id, command, key)
        except Problem as why:
            if why.kind.status < 500:
                self._wrong_codes.failed(counted)
            raise
        return json_answer(
            {"unitId": unit_id, **self._welcome(), "keyId": key.key_id},
            201 if outcome.status is Status.ACCEPTED else 200,
        )

    async def _token(self, request: Request) -> Response:
        _, unit_id = self._agent(request, TOKEN)
        self._codes()
        body = parsed(Proof, await request.body())
        issued = await self._proved(request, unit_id, body.assertion)
        return json_answer(
            {
                "token": issued.token,
                "keyId": issued.key_id,
                "expiresAt": issued.expires_at.isoformat(),
                **self._welcome(),
            }
        )

    async def _rotate(self, request: Request) -> Response:
        asked, unit_id = self._agent(request, KEYS)
        body = parsed(Rotation, await request.body())
        key = _public_key(body.public_key)
        issued = await self._proved(request, unit_id, body.assertion, other_key=key.key_id)
        counted = (f"{unit_id} {issued.key_id} {_address(request)}",)
        try:
            signed = verified(body.proof, unit_id, key, datetime.now(UTC).timestamp())
            if signed.other_key != issued.key_id:
                raise AssertionRefused("assertion_invalid")
        except AssertionRefused as why:
            self._wrong_proofs.failed(counted)
            _not_proved(why)
        command = RotateUnitKey(
            replaces=issued.key_id, key_id=key.key_id, public_key=key.text, grace_seconds=body.grace_seconds
        )
        outcome = await self._done(asked, unit_id, command, key)
        told = outcome.result or {}
        return json_answer(
            {
                "unitId": unit_id,
                "keyId": key.key_id,
                "replaces": issued.key_id,
                "replacedUntil": told.get("replacedUntil"),
                **self._welcome(),
            }
        )

    def _agent(self, request: Request, route: str) -> tuple[Passage, str]:
        """The unit whose agent asks, with the certificate it came with, where one is asked for."""
        asked = passage(request)
        asked.route = route
        unit_id: str = request.path_params["unit_id"]
        if not UNIT_ID.fullmatch(unit_id):
            raise invalid_field("unitId", "must be 1 to 40 characters: a to z, 0 to 9 and dashes")
        self._access.callers.certified(asked, unit_id)
        return asked, unit_id

    async def _proved(self, request: Request, unit_id: str, assertion: str, *, other_key: str | None = None) -> Issued:
        try:
            # Counted by the key it is said to be of: who does not know which key a unit has cannot keep it away.
            counted = (f"{unit_id} {key_id_in(assertion)} {_address(request)}",)
        except AssertionRefused as why:
            _not_proved(why)
        _look_at(self._wrong_proofs.wait(counted))
        try:
            return await self._access.exchange.take(unit_id, assertion, other_key=other_key)
        except AssertionRefused as why:
            self._wrong_proofs.failed(counted)
            _not_proved(why)

    async def _done(self, asked: Passage, unit_id: str, command: Command, key: PublicKey) -> Outcome:
        """Have the command decided, and wait until everybody can see it. Raises Problem."""
        # The aggregate makes repeating harmless; a key of the caller's choosing would be one more thing to guess.
        wished = replace(wishes(asked), key=None, expected_version=None, wait=DEFAULT_WAIT)
        actor = Actor(subject=f"unit:{unit_id}", role=Role.UNIT, unit=unit_id)
        order = self._access.intake.open(actor, unit_id, wished, asked)
        digest = request_hash("POST", asked.route, key.raw)
        outcome = await self._access.intake.submit(order, command, digest)
        if outcome is None or outcome.status is Status.PENDING:
            raise Problem("outcome_pending", "Send the same once more in a moment.", headers=RETRY_AFTER)
        answer(outcome, order, created=None, found_by=addressed([]))  # raises where it was refused
        if outcome.position is not None:
            await self._access.positions.reach(Position(outcome.partition, outcome.position))
        return outcome

    def _codes(self) -> EnrolmentCodes:
        if self._access.codes is None:
            detail = "This gateway was not given CARESPINE_TOKEN_PRIVATE_KEY, so it lets no unit in by its own key."
            raise Problem("unit_keys_not_served", detail)
        return self._access.codes

    def _welcome(self) -> Json:
        return {"serverTime": datetime.now(UTC).isoformat(), "unitUrls": list(self._access.settings.urls)}


def router(questions: Questions) -> APIRouter:
    """The route of the list."""
    routes = APIRouter(route_class=Reading, tags=["units"])
    operator = Depends(questions.by(CREDENTIAL_OPERATORS))

    @routes.get(CREDENTIALS, responses={200: {"model": Credentials}})
    async def credentials(unit_id: str, asking: Asking = operator) -> Response:
        """A unit's keys and its latest enrolment codes; neither keys nor codes themselves are known here."""
        async with asking.connection() as connection:
            if await units.by_id(connection, unit_id) is None:
                raise Problem("not_found", "There is no such unit, or it is not yours.")
            keys = await unit_credentials.keys_of(connection, unit_id)
            codes = await unit_credentials.codes_of(connection, unit_id)
        found = Credentials(unit_id=unit_id, keys=keys, enrolment_codes=codes)
        return json_answer(found.model_dump(mode="json", by_alias=True))

    return routes


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey.read(text)
    except KeyNotUsable as why:
        raise invalid_field("publicKey", f"is {why}") from None


def _look_at(wait: float) -> None:
    """Problem 429 when too many were refused."""
    if wait > 0:
        seconds = str(ceil(wait))
        raise Problem(
            "too_many_attempts", f"Too many were refused; wait {seconds} s.", headers={"Retry-After": seconds}
        )


def _not_proved(why: AssertionRefused) -> NoReturn:
    now = datetime.now(UTC).isoformat()
    raise Problem(why.code, _REMEDIES[why.code], headers={"WWW-Authenticate": CHALLENGE}, serverTime=now) from None


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"
