"""How this API says no: RFC 9457 problem+json with a stable `code`. Only here is it known which code has which status.

What stands in the way is decided elsewhere (refusals in `contracts`, trouble in `infra`); here it becomes an answer. A
problem names fields, codes and ids, never a value somebody sent: values may be a person's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails
from starlette.responses import Response

from contracts.envelope import Outcome
from infra.broker.errors import BrokerUnavailable
from infra.database import DatabaseUnavailable

MEDIA_TYPE: Final = "application/problem+json"


class Kind(NamedTuple):
    """What a code stands for."""

    status: int
    title: str


KINDS: Final[Mapping[str, Kind]] = {
    "malformed_json": Kind(400, "The body is not JSON"),
    "validation_failed": Kind(400, "The request does not have the expected shape"),
    "cursor_invalid": Kind(400, "The cursor does not belong to this list"),
    "header_invalid": Kind(400, "A header cannot be read"),
    "unit_required": Kind(400, "The unit must be named"),
    "bad_request": Kind(400, "The request cannot be read"),
    "token_missing": Kind(401, "A bearer token is needed"),
    "token_invalid": Kind(401, "The bearer token is not valid"),
    "token_expired": Kind(401, "The bearer token has expired"),
    "token_revoked": Kind(401, "The bearer token was revoked"),
    "login_refused": Kind(401, "The login was refused"),
    "refresh_token_invalid": Kind(401, "The refresh token is not valid"),
    "refresh_token_reused": Kind(401, "The refresh token was used before"),
    "session_ended": Kind(401, "The session has ended"),
    "session_expired": Kind(401, "The session has expired"),
    "session_idle": Kind(401, "The session was idle for too long"),
    "assertion_invalid": Kind(401, "The assertion proves nothing"),
    "assertion_expired": Kind(401, "The assertion has expired"),
    "assertion_early": Kind(401, "The assertion is not valid yet"),
    "assertion_replayed": Kind(401, "The assertion was used before"),
    "key_unknown": Kind(401, "No such key is registered"),
    "key_revoked": Kind(401, "The key was revoked"),
    "key_replaced": Kind(401, "The key was replaced"),
    "unit_retired": Kind(401, "The unit has left the network"),
    "certificate_not_this_unit": Kind(403, "The client certificate is not this unit's"),
    "account_not_active": Kind(403, "The account is not active"),
    "invitation_required": Kind(403, "An invitation is needed"),
    "not_allowed": Kind(403, "This role may not do that"),
    "other_unit": Kind(403, "This token speaks for another unit"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "This path does not take that method"),
    "conflict": Kind(409, "The present state does not allow it"),
    "address_taken": Kind(409, "There is an account with this address"),
    "version_conflict": Kind(412, "It has changed since you read it"),
    "body_too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body must be application/json"),
    "content_invalid": Kind(422, "The content is not acceptable"),
    "idempotency_key_reused": Kind(422, "This Idempotency-Key was used for another request"),
    "command_unknown": Kind(422, "There is no such command"),
    "invitation_not_valid": Kind(422, "The invitation is not valid"),
    "too_many_attempts": Kind(429, "Too many attempts were refused"),
    "dead_lettered": Kind(500, "The command was taken but cannot be handled; it is kept for an operator"),
    "internal_error": Kind(500, "Something is wrong on our side"),
    "unit_call_failed": Kind(502, "The unit could not answer the call"),
    "broker_unavailable": Kind(503, "Commands cannot be taken right now"),
    "database_unavailable": Kind(503, "Questions cannot be answered right now"),
    "question_too_slow": Kind(503, "The question takes too long"),
    "logins_busy": Kind(503, "Too many are logging in right now"),
    "logins_not_served": Kind(503, "Logins are not served here"),
    "outcome_pending": Kind(503, "The outcome is not known yet"),
    "unit_keys_not_served": Kind(503, "Units' own keys are not served here"),
    "read_model_behind": Kind(503, "The read model does not know that position yet"),
    "too_many_streams": Kind(503, "No more streams can be served here right now"),
    "unit_not_connected": Kind(503, "The unit is not connected"),
    "unit_call_timeout": Kind(504, "The unit did not answer in time"),
}

CONTENT_REFUSALS: Final = frozenset(
    {
        *("mrn_not_valid", "birth_date_in_future", "death_in_future", "deadline_in_past", "same_department"),
        *("department_not_found", "due_in_past"),
        *("enrolment_code_not_valid", "enrolment_code_expired", "enrolment_code_used"),
        *("invitation_not_valid", "invitation_expired", "role_ends_before_it_starts"),
    }
)
"""Refusals that another content of the same request would not meet; the rest are about the state of things."""
VERSION_REFUSALS: Final = frozenset({"version_conflict"})
REUSED_REFUSALS: Final = frozenset({"command_id_reused"})

RETRY_AFTER: Final = {"Retry-After": "2"}
CHALLENGE: Final = 'Bearer realm="carespine"'


class Problem(Exception):
    """An answer that is not the one asked for."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        kind: Kind | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # Any: JSON values, members of the problem object
    ) -> None:
        super().__init__(code)
        self.code = code
        self.kind = kind or KINDS[code]
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self, *, instance: str, trace_id: str) -> Response:
        """The answer; `instance` is the path asked for, without its query string."""
        body = {
            "type": f"urn:carespine:problem:{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.code,
            "detail": self.detail,
            "instance": instance,
            "traceId": trace_id,
            **self.more,
        }
        return Response(orjson.dumps(body), self.kind.status, self.headers, MEDIA_TYPE)


def refused(outcome: Outcome, addressed: frozenset[str]) -> Problem:
    """A rule said no. `addressed`: the `*_not_found` codes of what the path names, which are 404 and not 422."""
    code = outcome.code or "conflict"
    detail = outcome.detail or "A rule stands in the way."
    more: dict[str, Any] = {"commandId": str(outcome.command_id)}  # Any: JSON values
    if outcome.about:
        more["about"] = outcome.about
    if code in REUSED_REFUSALS:
        return Problem("idempotency_key_reused", "Repeat the same request, or take a new key.", **more)
    return Problem(code, detail, kind=Kind(_refusal_status(code, addressed), _title(code)), **more)


def _refusal_status(code: str, addressed: frozenset[str]) -> int:
    if code in addressed:
        return 404
    if code in VERSION_REFUSALS:
        return 412
    if code in CONTENT_REFUSALS or code.endswith("_not_found"):
        return 422
    return 409


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def dead_lettered(outcome: Outcome) -> Problem:
    """The command was safe, and could not be handled: an operator has it."""
    return Problem(
        "dead_lettered",
        "An operator can see it, repair the cause and replay it; sending it again does not help.",
        commandId=str(outcome.command_id),
        deadLetterId=str(outcome.dead_letter_id) if outcome.dead_letter_id else None,
        reason=outcome.code,
    )


def trouble(error: BrokerUnavailable | DatabaseUnavailable) -> Problem:
    """Something of ours is away: come back a little later."""
    if isinstance(error, DatabaseUnavailable):
        return Problem("database_unavailable", "Commands are still taken; ask again in a moment.", headers=RETRY_AFTER)
    return Problem(
        "broker_unavailable",
        "Nothing is lost if you repeat the request with the same Idempotency-Key in a moment.",
        headers=RETRY_AFTER,
    )


def bug() -> Problem:
    """Something is wrong in this program; what, is in its log."""
    return Problem("internal_error", "It has been noted; quote the traceId when you report it.")


def unauthenticated(code: str, detail: str) -> Problem:
    """No token, or one that is not to be believed."""
    error = "" if code == "token_missing" else ', error="invalid_token"'
    return Problem(code, detail, headers={"WWW-Authenticate": CHALLENGE + error})


def invalid(
    errors: Iterable[ErrorDetails] | Iterable[Mapping[str, Any]], where: str = ""
) -> Problem:  # Any: as pydantic
    """The request does not have the expected shape: which fields, and what they should be."""
    fields = [
        {
            "field": _field(error["loc"] if error["type"] == "extra_forbidden" else _spelt(error["loc"]), where),
            "problem": _sentence(error["type"], error.get("ctx") or {}, error["msg"]),
        }
        for error in errors
    ]
    if any(error["problem"] == "must be JSON" for error in fields):
        return Problem("malformed_json", "The body must be one JSON object, in UTF-8.")
    return Problem("validation_failed", "See `errors` for each field.", errors=fields)


def invalid_field(field: str, problem: str) -> Problem:
    """One field (or parameter) does not have the expected shape."""
    return Problem("validation_failed", "See `errors` for each field.", errors=[{"field": field, "problem": problem}])


_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,60}")
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "json_invalid": "must be JSON",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is out of range",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "date_type": "must be a date, YYYY-MM-DD",
    "date_parsing": "must be a date, YYYY-MM-DD",
    "date_from_datetime_parsing": "must be a date, YYYY-MM-DD",
    "date_from_datetime_inexact": "must be a date without a time",
    "datetime_type": "must be an instant with a zone, such as 2026-11-20T09:00:00Z",
    "datetime_parsing": "must be an instant with a zone, such as 2026-11-20T09:00:00Z",
    "datetime_from_date_parsing": "must be an instant with a zone, such as 2026-11-20T09:00:00Z",
    "timezone_aware": "must be an instant with a zone, such as 2026-11-20T09:00:00Z",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
}


def _sentence(kind: str, context: Mapping[str, Any], message: str) -> str:  # Any: as pydantic gives it
    if kind == "value_error":  # a sentence of our own from `contracts`, which quotes no value
        return str(context.get("error", "is not acceptable"))
    template = _SENTENCES.get(kind)
    return template.format_map(context) if template else "is not acceptable"


def _spelt(location: Iterable[str | int]) -> list[str | int]:
    """Our own names as the document has them."""
    return [to_camel(part) if isinstance(part, str) and "_" in part else part for part in location]


def _field(location: Iterable[str | int], where: str) -> str:
    # Unknown names are the caller's words: only what looks like a field name is repeated.
    names = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    parts = [name if name.isdigit() or _PLAIN.fullmatch(name) else "(unknown)" for name in names]
    return ".".join([where, *parts] if where else parts) or "(body)"
