"""What agents and operators send about a unit's credentials, and how the API's document describes it.

The routes are `gateway.routes.unit_credentials`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from contracts.model import Model
from contracts.unit_credential import LONGEST_GRACE
from gateway.openapi import Json, command_answers, json_body, path_parameters

CODES: Final = "/api/units/{unit_id}/enrolment-codes"
ENROL: Final = "/api/units/{unit_id}/enrol"
TOKEN: Final = "/api/units/{unit_id}/token"  # noqa: S105 - a path
KEYS: Final = "/api/units/{unit_id}/keys"
CREDENTIALS: Final = "/api/units/{unit_id}/credentials"

DAY: Final = 24 * 3600
LONGEST_CODE: Final = 7 * DAY


class NewCode(Model):
    """A new enrolment code is asked for."""

    ttl_seconds: int = Field(DAY, ge=60, le=LONGEST_CODE)
    """How long it may be used."""


class Enrolment(Model):
    """A code, and the key it is to register."""

    code: str = Field(min_length=1, max_length=100)
    public_key: str = Field(min_length=1, max_length=1000)
    """Ed25519: PEM, or base64 of its 32 bytes."""


class Proof(Model):
    """What the unit's key has signed."""

    assertion: str = Field(min_length=1, max_length=4096)


class Rotation(Model):
    """Another key in place of the one that signs."""

    assertion: str = Field(min_length=1, max_length=4096)
    """By the present key, naming the new one."""
    proof: str = Field(min_length=1, max_length=4096)
    """By the new key, naming the present one."""
    public_key: str = Field(min_length=1, max_length=1000)
    grace_seconds: int = Field(LONGEST_GRACE, ge=0, le=LONGEST_GRACE)


_UNIT: Final[Json] = {"unitId": "clinic-001"}
_KEY_ID: Final = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
_AT: Final = "2026-11-20T09:00:00Z"
_EXAMPLE_KEY: Final = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
_SIGNED: Final = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1bml0OmNsaW5pYy0wMDEifQ.c2lnbmF0dXJl"
_LINK: Final[Json] = {"serverTime": _AT, "unitUrls": ["wss://link.example.org/unit"]}


def _operation(
    operation_id: str, summary: str, description: str, body: type[Model], example: Json, answers: Mapping[int, Any]
) -> Json:
    responses = {
        str(status): {
            "description": "Done.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": content}},
        }
        for status, content in answers.items()
    }
    return {
        "tags": ["units"],
        "summary": summary,
        "description": description,
        "operationId": operation_id,
        "parameters": path_parameters(["unit_id"]),
        "security": [],
        "requestBody": json_body(body.model_json_schema(by_alias=True), example),
        "responses": responses,
    }


OPERATIONS: Final[Mapping[str, Json]] = {
    f"POST {CODES}": {
        "x-command": True,
        "tags": ["units"],
        "summary": "A code with which one agent of the unit may register its key, once.",
        "description": "Roles: admin, ops, staff. The code is shown here and nowhere else; a repeat with the same "
        "`Idempotency-Key` shows it again.",
        "operationId": "issueEnrolmentCode",
        "parameters": path_parameters(["unit_id"]),
        "requestBody": json_body(NewCode.model_json_schema(by_alias=True), {"ttlSeconds": DAY}, required=False),
        "responses": command_answers({"code": "7Q0XB-3M9TD-K2V8H-Z5RNA-61CWF", "expiresAt": _AT}, created=True),
    },
    f"POST {ENROL}": _operation(
        "enrolUnit",
        "An agent registers its key with a code.",
        "Without bearer token. The same code and key again get the same answer.",
        Enrolment,
        {"code": "7Q0XB-3M9TD-K2V8H-Z5RNA-61CWF", "publicKey": _EXAMPLE_KEY},
        {201: {**_UNIT, "keyId": _KEY_ID, **_LINK}, 200: {**_UNIT, "keyId": _KEY_ID, **_LINK}},
    ),
    f"POST {TOKEN}": _operation(
        "unitToken",
        "A short token for what the unit's key has signed.",
        "Without bearer token. The assertion is a JWT (EdDSA; `kid` in its header; `iss` and `sub` are "
        "`unit:<unitId>`, `aud` is `carespine`; `jti` never twice; at most 300 s from `iat` to `exp`). Clocks may "
        "differ by 300 s.",
        Proof,
        {"assertion": _SIGNED},
        {200: {"token": _SIGNED, "keyId": _KEY_ID, "expiresAt": _AT, **_LINK}},
    ),
    f"POST {KEYS}": _operation(
        "rotateUnitKey",
        "Another key in place of the one that signs.",
        "Without bearer token: signed by the present key and by the new one, each naming the other as `other_key`.",
        Rotation,
        {"assertion": _SIGNED, "proof": _SIGNED, "publicKey": _EXAMPLE_KEY, "graceSeconds": 3600},
        {200: {**_UNIT, "keyId": _KEY_ID, "replaces": _KEY_ID[::-1], "replacedUntil": _AT, **_LINK}},
    ),
}
"""By method and path."""
