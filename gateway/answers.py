"""How a command's outcome becomes an HTTP answer: result, position, place to look, and which preference was followed.

Problems are `gateway.problems`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import orjson
from starlette.responses import Response

from contracts.envelope import Json, Outcome, Status
from gateway.intake import Order
from gateway.problems import dead_lettered, refused

POSITION: Final = "Carespine-Position"
COMMAND: Final = "Carespine-Command"
OUTCOME: Final = "Carespine-Outcome"
"""`accepted`, or `unchanged` where it was so already or the command is a repeated one."""
JSON: Final = "application/json"

_NAMED_BY_PATH: Final = {
    "patient_id": "patient_not_found",
    "encounter_id": "encounter_not_found",
    "entry_id": "queue_entry_not_found",
    "department": "department_not_found",
    "unit_command_id": "unit_command_not_found",
    "task_id": "task_not_found",
    "account_id": "staff_not_found",
}


def addressed(parameters: Iterable[str]) -> frozenset[str]:
    """The refusals that mean: what the path names does not exist. The unit is always part of what is addressed."""
    return frozenset({"unit_not_found"} | {_NAMED_BY_PATH[name] for name in parameters if name in _NAMED_BY_PATH})


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON object or list, as it is."""
    return Response(orjson.dumps(content), status, headers, JSON)


def answer(outcome: Outcome | None, order: Order, *, created: str | None, found_by: frozenset[str]) -> Response:
    """200 or 201 with the result, 202 while it is not known (None); raises Problem for refused and failed.

    `created`: template of the new resource's URL, filled from the result and `unitId`; None when nothing is made.
    """
    headers = {COMMAND: order.name}
    if order.wishes.applied is not None:
        headers["Preference-Applied"] = order.wishes.applied
    if outcome is None or outcome.status is Status.PENDING:
        headers["Location"] = f"/api/commands/{order.name}"
        return json_answer({"commandId": order.name, "status": "pending"}, 202, headers)
    match outcome.status:
        case Status.ACCEPTED | Status.UNCHANGED:
            return _done(outcome, headers, created)
        case Status.REFUSED:
            raise refused(outcome, found_by)
        case Status.FAILED:
            raise dead_lettered(outcome)


def _done(outcome: Outcome, headers: dict[str, str], created: str | None) -> Response:
    headers[OUTCOME] = Status.UNCHANGED.value if outcome.repeated else outcome.status.value
    if outcome.position is not None:
        headers[POSITION] = f"{outcome.partition}:{outcome.position}"
    result: Json = outcome.result or {"commandId": str(outcome.command_id), "status": outcome.status.value}
    if created is None or outcome.status is Status.UNCHANGED:
        return json_answer(result, 200, headers)
    headers["Location"] = created.format_map({"unitId": outcome.unit_id, **result})
    return json_answer(result, 201, headers)
