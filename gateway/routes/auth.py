"""How people get in: register, log in, go on, log out, invite; and the keys others verify our tokens with.

Nobody is told whether there is an account: a wrong password and no account take as long and get the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.envelope import Json, Outcome, Status
from contracts.identity import Actor, Role
from contracts.model import Command
from contracts.staff import (
    MANAGERS,
    ActivateStaff,
    AppointFirstAdmin,
    InvitationNotValid,
    InviteStaff,
    StaffId,
    UnitHasStaff,
)
from gateway.answers import addressed, answer, json_answer
from gateway.attempts import Attempts
from gateway.bodies import parsed
from gateway.callers import Callers, allow, one_unit
from gateway.intake import Intake, request_hash
from gateway.passage import DEFAULT_WAIT, Passage, passage, wishes
from gateway.positions import Position, Positions
from gateway.problems import CHALLENGE, RETRY_AFTER, Problem
from gateway.staff_words import (
    INVITATIONS,
    JWKS,
    LOGIN,
    LOGOUT,
    PROFILE,
    REFRESH,
    REGISTER,
    Invitation,
    Login,
    Logout,
    Refresh,
    Registration,
)
from infra.passwords import Passwords, PasswordsBusy
from infra.staff_accounts import Account, Person, StaffAccounts
from infra.staff_sessions import Given, SessionRefused, StaffSessions
from infra.unit_keys import EnrolmentCodes, code_hash

WRONG_FROM_ONE_ADDRESS: Final = 60
"""Refused logins and registrations of one network address within a minute; then it waits."""

_ENDED: Final = {
    "refresh_token_invalid": "Log in.",
    "refresh_token_reused": "It was used before, so its session has ended. Log in.",
    "session_ended": "Log in.",
    "session_idle": "Nothing was heard of it for too long. Log in.",
    "session_expired": "Its time is over. Log in.",
    "account_not_active": "The account is suspended, or has no role at present; ask an administrator.",
}


@dataclass(frozen=True)
class StaffDoor:
    """What these routes work with."""

    accounts: StaffAccounts
    sessions: StaffSessions
    codes: EnrolmentCodes
    passwords: Passwords
    open_to_first: bool
    """A unit's first user needs nobody's token: in development."""


class Auth:
    """The routes."""

    def __init__(
        self,
        callers: Callers,
        intake: Intake,
        positions: Positions,
        door: StaffDoor | None,
        *,
        turned_away: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`door` is None where this process was not given the keys for it; `turned_away` is told why, each time."""
        self._turned_away = turned_away
        self._callers = callers
        self._intake = intake
        self._positions = positions
        self._served = door
        self._wrong = Attempts(WRONG_FROM_ONE_ADDRESS, 60)

    def routes(self) -> list[Route]:
        """All of them."""
        posts = {
            REGISTER: self._register,
            LOGIN: self._login,
            REFRESH: self._refresh,
            LOGOUT: self._logout,
            INVITATIONS: self._invite,
        }
        found = [Route(path, take, methods=["POST"], name=f"POST {path}") for path, take in posts.items()]
        return [*found, Route(PROFILE, self._profile, name="profile"), Route(JWKS, self._jwks, name="jwks")]

    async def _login(self, request: Request) -> Response:
        self._asked(request, LOGIN)
        door, counted = self._door(), self._not_too_often(request)
        body = parsed(Login, await request.body())
        who = await door.accounts.who(body.unit_id, body.email)
        _wait(await door.accounts.attempt(who))
        account = await door.accounts.find(body.unit_id, who)
        try:
            is_right = await _fits(door, body.password, account)
        except Problem:
            await door.accounts.not_judged(who)
            raise
        if not is_right or account is None:
            self._wrong.failed(counted)
            self._turned_away("login_refused")
            raise Problem(
                "login_refused", "Unit, address or password is wrong.", headers={"WWW-Authenticate": CHALLENGE}
            )
        await door.accounts.forgive(who)
        try:
            return _given(await door.sessions.begin(account.account_id, body.unit_id))
        except SessionRefused as why:
            raise _ended(why) from None

    async def _refresh(self, request: Request) -> Response:
        self._asked(request, REFRESH)
        door, counted = self._door(), self._not_too_often(request)
        body = parsed(Refresh, await request.body())
        try:
            return _given(await door.sessions.carry_on(body.refresh_token))
        except SessionRefused as why:
            self._wrong.failed(counted)
            self._turned_away(why.code)
            raise _ended(why) from None

    async def _logout(self, request: Request) -> Response:
        asked = self._asked(request, LOGOUT)
        door = self._door()
        body = parsed(Logout, await request.body() or b"{}")
        if body.refresh_token is not None:
            found = await door.sessions.of_token(body.refresh_token)
            if found is None:
                raise _ended(SessionRefused("refresh_token_invalid"))
            session_id, account_id = found
        else:
            session_id, account_id = self._session(asked)
        ended = await (door.sessions.end_all(account_id) if body.everywhere else door.sessions.end(session_id))
        return json_answer({"sessionsEnded": ended})

    async def _profile(self, request: Request) -> Response:
        asked = self._asked(request, PROFILE)
        _, account_id = self._session(asked)
        claims = self._callers.bearer(asked)
        person = await self._door().accounts.person(account_id)
        if person is None:
            raise Problem("not_found", "There is no such account any more.")
        return json_answer(
            {
                "accountId": claims.sub,
                "unitId": claims.unit,
                "roles": list(claims.roles),
                "email": person.address,
                "name": person.name,
                "accessTokenExpiresAt": datetime.fromtimestamp(claims.exp, UTC).isoformat(),
            }
        )

    async def _invite(self, request: Request) -> Response:
        asked = self._asked(request, INVITATIONS)
        actor = self._callers.actor(asked)
        allow(actor, MANAGERS)
        door = self._door()
        body = parsed(Invitation, await request.body())
        unit_id = one_unit(actor, asked.text(b"x-unit-id"), body.unit_id)
        order = self._intake.open(actor, unit_id, wishes(asked), asked)
        code = door.codes.code(unit_id, order.command_id)
        command = InviteStaff(
            account_id=StaffId(order.new_id("staff")),
            code_hash=code_hash(code),
            roles=body.roles,
            expires_at=order.issued_at + timedelta(seconds=body.ttl_seconds),
        )
        outcome = await self._intake.submit(order, command, request_hash("POST", INVITATIONS, body.to_json()))
        if outcome is not None and outcome.result is not None:
            await self._seen(outcome)
            outcome = outcome.model_copy(update={"result": {**outcome.result, "code": code}})
        return answer(outcome, order, created="/api/staff/{id}", found_by=addressed([]))

    async def _register(self, request: Request) -> Response:
        asked = self._asked(request, REGISTER)
        door, counted = self._door(), self._not_too_often(request)
        body = parsed(Registration, await request.body())
        try:
            return await self._registered(asked, door, body)
        except Problem as why:
            if why.kind.status < 500:
                self._wrong.failed(counted)
            raise

    async def _registered(self, asked: Passage, door: StaffDoor, body: Registration) -> Response:
        unit_id, person = body.unit_id, Person(body.email, body.name)
        invited = await self._may_register(asked, door, body)
        who = await door.accounts.who(unit_id, body.email)
        account_id = invited or uuid4()
        try:
            password_hash = await door.passwords.hashed(body.password)
        except PasswordsBusy:
            raise _busy() from None
        is_new = await door.accounts.add(account_id, unit_id, who, person, password_hash)
        if not is_new:
            account_id = await self._begun_before(door, body, who, invited)
        command: Command = AppointFirstAdmin(account_id=StaffId(account_id))
        if body.code is not None:
            command = ActivateStaff(account_id=StaffId(account_id), code_hash=code_hash(body.code))
        try:
            outcome = await self._done(asked, unit_id, account_id, command)
        except Problem as why:
            if is_new and why.kind.status < 500:
                await door.accounts.drop(unit_id, account_id)
            if why.code in ("unit_not_found", UnitHasStaff.code()):
                raise _invitation_required() from None  # the same for both: strangers are not told which units exist
            raise
        told = outcome.result or {}
        return json_answer(
            {"accountId": str(account_id), "unitId": unit_id, "roles": told.get("roles", [])},
            201 if outcome.status is Status.ACCEPTED else 200,
        )

    async def _may_register(self, asked: Passage, door: StaffDoor, body: Registration) -> UUID | None:
        """The account that waits for whoever has the code; None: the unit waits for its first user. Raises Problem."""
        if body.code is not None:
            invited = await door.accounts.invited(body.unit_id, code_hash(body.code))
            if invited is None:
                raise Problem("invitation_not_valid", InvitationNotValid.message())
            return invited
        if not door.open_to_first:
            actor = self._callers.actor(asked)
            allow(actor, MANAGERS | {Role.OPS})
            one_unit(actor, body.unit_id)
        if await door.accounts.has_any(body.unit_id):
            raise _invitation_required()
        return None

    async def _begun_before(self, door: StaffDoor, body: Registration, who: bytes, invited: UUID | None) -> UUID:
        """The account of a registration whose answer was lost: the same address, password and invitation."""
        known = await door.accounts.find(body.unit_id, who)
        if known is None or (invited is not None and known.account_id != invited):
            if known is None:
                raise Problem("invitation_not_valid", InvitationNotValid.message())
            raise Problem("address_taken", "There is an account with this address at the unit; log in with it.")
        if not await _fits(door, body.password, known):
            raise Problem("address_taken", "There is an account with this address at the unit; log in with it.")
        return known.account_id

    async def _done(self, asked: Passage, unit_id: str, account_id: UUID, command: Command) -> Outcome:
        """Have the command decided, and wait until everybody can see it. Raises Problem."""
        # The aggregate makes repeating harmless; a key of the caller's choosing would be one more thing to guess.
        wished = replace(wishes(asked), key=None, expected_version=None, wait=DEFAULT_WAIT)
        actor = Actor(subject=str(account_id), role=Role.SYSTEM, unit=unit_id)
        order = self._intake.open(actor, unit_id, wished, asked)
        outcome = await self._intake.submit(order, command, request_hash("POST", REGISTER, command.to_json()))
        if outcome is None or outcome.status is Status.PENDING:
            raise Problem("outcome_pending", "Send the same once more in a moment.", headers=RETRY_AFTER)
        answer(outcome, order, created=None, found_by=addressed([]))  # raises where it was refused
        await self._seen(outcome)
        return outcome

    async def _seen(self, outcome: Outcome) -> None:
        if outcome.position is not None:
            with suppress(Problem):  # only so that it can be used at once
                await self._positions.reach(Position(outcome.partition, outcome.position))

    async def _jwks(self, request: Request) -> Response:
        self._asked(request, JWKS)
        return json_answer(self._callers.published_keys())

    def _session(self, asked: Passage) -> tuple[UUID, UUID]:
        """The session and the account of the bearer; Problem where nobody has logged in."""
        claims = self._callers.bearer(asked)
        if claims.sid is None:
            raise Problem("not_found", "This token is nobody's account; it was not got by a login.")
        return UUID(claims.sid), UUID(claims.sub)

    def _asked(self, request: Request, route: str) -> Passage:
        asked = passage(request)
        asked.route = route
        return asked

    def _door(self) -> StaffDoor:
        if self._served is None:
            detail = "This gateway was not given CARESPINE_TOKEN_PRIVATE_KEY and CARESPINE_MASTER_KEY."
            raise Problem("logins_not_served", detail)
        return self._served

    def _not_too_often(self, request: Request) -> tuple[str, ...]:
        counted = (request.client.host if request.client is not None else "unknown",)
        _wait(self._wrong.wait(counted))
        return counted


async def _fits(door: StaffDoor, password: str, account: Account | None) -> bool:
    try:
        return await door.passwords.fits(password, account.password_hash if account is not None else None)
    except PasswordsBusy:
        raise _busy() from None


def _invitation_required() -> Problem:
    return Problem("invitation_required", UnitHasStaff.message())


def _busy() -> Problem:
    return Problem("logins_busy", "Many are logging in; try again in a moment.", headers=RETRY_AFTER)


def _wait(seconds: float) -> None:
    """Problem 429 when too many were refused."""
    if seconds > 0:
        whole = str(ceil(seconds))
        raise Problem("too_many_attempts", f"Too many were refused; wait {whole} s.", headers={"Retry-After": whole})


def _ended(why: SessionRefused) -> Problem:
    headers = {} if why.code == "account_not_active" else {"WWW-Authenticate": CHALLENGE}
    return Problem(why.code, _ENDED[why.code], headers=headers)


def _given(given: Given) -> Response:
    told: Json = {
        "accountId": str(given.account_id),
        "unitId": given.unit_id,
        "roles": list(given.roles),
        "accessToken": given.access_token,
        "tokenType": "Bearer",
        "accessTokenExpiresAt": given.access_until.isoformat(),
        "refreshToken": given.refresh_token,
        "idleUntil": given.idle_until.isoformat(),
        "sessionExpiresAt": given.session_until.isoformat(),
    }
    return json_answer(told)
