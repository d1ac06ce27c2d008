"""What people send to log in, and what the API's document says of it. The routes are `gateway.routes.auth`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, field_validator

from contracts.ids import UnitId
from contracts.model import Model
from contracts.staff import STAFF_ROLES, StaffRole
from gateway.openapi import Json, command_answers, json_body
from infra.passwords import LONGEST, SHORTEST

REGISTER: Final = "/api/auth/register"
LOGIN: Final = "/api/auth/login"
REFRESH: Final = "/api/auth/refresh"
LOGOUT: Final = "/api/auth/logout"
PROFILE: Final = "/api/auth/profile"
INVITATIONS: Final = "/api/auth/invitations"
JWKS: Final = "/.well-known/jwks.json"

DAY: Final = 24 * 3600

Address = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")
]
"""An e-mail address, as far as that can be told without writing to it."""
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")
]
NewPassword = Annotated[str, StringConstraints(min_length=SHORTEST, max_length=LONGEST)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
RefreshToken = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Registration(Model):
    """A person registers: with the code of an invitation, or as the first user of a unit."""

    unit_id: UnitId
    email: Address
    name: Name
    password: NewPassword
    code: str | None = Field(None, min_length=1, max_length=100)
    """Of the invitation; none for the first user of a unit, who becomes its administrator."""

    @field_validator("password")
    @classmethod
    def _is_one(cls, password: str) -> str:
        if len(set(password)) < 5:
            raise ValueError("must have at least 5 different characters")
        return password


class Login(Model):
    """Address and password at a unit."""

    unit_id: UnitId
    email: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=254)]
    password: Password


class Refresh(Model):
    """A refresh token, good once."""

    refresh_token: RefreshToken


class Logout(Model):
    """The end of one session, or of all of the person's."""

    refresh_token: RefreshToken | None = None
    """Whose session it is; without it that of the bearer token."""
    everywhere: bool = False


class Invitation(Model):
    """Somebody is invited into roles."""

    unit_id: UnitId | None = None
    roles: list[StaffRole] = Field(min_length=1, max_length=len(STAFF_ROLES))
    ttl_seconds: int = Field(3 * DAY, ge=60, le=30 * DAY)
    """How long the code can be used."""


_ACCOUNT: Final = "01996a37-2b84-7c19-8e53-7f0d4c6a1b25"
_AT: Final = "2026-11-20T09:00:00Z"
_TOKEN: Final = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJzdWIiOiIwMTk5NmEzNyJ9.c2lnbmF0dXJl"  # noqa: S105 - no token
_OPAQUE: Final = "kX3vJt1nY0m2c5Qb8RwZr7LdPq4sUe6fAhGiNoTzBcE"
_WHO: Final[Json] = {"accountId": _ACCOUNT, "unitId": "clinic-001", "roles": ["nurse"]}
_GIVEN: Final[Json] = {
    **_WHO,
    "accessToken": _TOKEN,
    "tokenType": "Bearer",
    "accessTokenExpiresAt": _AT,
    "refreshToken": _OPAQUE,
    "idleUntil": _AT,
    "sessionExpiresAt": _AT,
}
_PERSON: Final[Json] = {"unitId": "clinic-001", "email": "ana@example.org", "password": "a long sentence of hers"}


def _operation(
    operation_id: str,
    summary: str,
    description: str,
    body: type[Model] | None,
    example: Json,
    answers: Mapping[int, Any],
) -> Json:
    responses = {
        str(status): {
            "description": "Done.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": content}},
        }
        for status, content in answers.items()
    }
    operation: Json = {
        "tags": ["auth"],
        "summary": summary,
        "description": description,
        "operationId": operation_id,
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = json_body(
            body.model_json_schema(by_alias=True), example, required=body is not Logout
        )
        operation["security"] = []
    return operation


OPERATIONS: Final[Mapping[str, Json]] = {
    f"POST {REGISTER}": _operation(
        "registerStaff",
        "A person gets an account.",
        "With the code of an invitation; without one only the first user of a unit, who becomes its administrator (in "
        "production with the bearer token of an operator or administrator).",
        Registration,
        {**_PERSON, "name": "Ana Example", "code": "7Q0XB-3M9TD-K2V8H-Z5RNA-61CWF"},
        {201: _WHO, 200: _WHO},
    ),
    f"POST {LOGIN}": _operation(
        "login",
        "Address and password for a short access token and a refresh token.",
        "Without bearer token. Too many wrong passwords lock the account for a while, whether or not it exists.",
        Login,
        _PERSON,
        {200: _GIVEN},
    ),
    f"POST {REFRESH}": _operation(
        "refreshTokens",
        "New tokens for a refresh token, which is good once.",
        "Without bearer token. A refresh token that comes a second time ends its session: somebody else has it too.",
        Refresh,
        {"refreshToken": _OPAQUE},
        {200: _GIVEN},
    ),
    f"POST {LOGOUT}": _operation(
        "logout",
        "The end of a session, or of all the person's.",
        "By refresh token or by bearer token. Access tokens of what has ended let nobody in within seconds.",
        Logout,
        {"refreshToken": _OPAQUE, "everywhere": False},
        {200: {"sessionsEnded": 1}},
    ),
    f"GET {PROFILE}": _operation(
        "profile",
        "Whose account the bearer token is of.",
        "Of a person who has logged in.",
        None,
        {},
        {200: {**_WHO, "email": "ana@example.org", "name": "Ana Example", "accessTokenExpiresAt": _AT}},
    ),
    f"POST {INVITATIONS}": {
        "x-command": True,
        "tags": ["auth"],
        "summary": "A code with which one person may register, once.",
        "description": "Roles: admin, staff. The code is shown here and nowhere else; a repeat with the same "
        "`Idempotency-Key` shows it again.",
        "operationId": "inviteStaff",
        "requestBody": json_body(
            Invitation.model_json_schema(by_alias=True), {"roles": ["nurse"], "ttlSeconds": 3 * DAY}
        ),
        "responses": command_answers(
            {"id": _ACCOUNT, "roles": ["nurse"], "code": "7Q0XB-3M9TD-K2V8H-Z5RNA-61CWF", "expiresAt": _AT},
            created=True,
        ),
    },
}
"""By method and path."""
