"""Live calls: a question to a unit, now. Nothing is kept; where nobody answers in time the caller is told.

The message is mandatory: where no bridge holds the unit, no queue is bound and the broker gives it back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts import routing
from contracts.envelope import Json
from contracts.identity import PEOPLE, Role
from contracts.live_call import CallName, CallOff, LiveAnswer, LiveCall
from contracts.text import kept
from gateway.answers import json_answer
from gateway.bodies import parsed_object
from gateway.callers import Callers, allow, one_unit
from gateway.passage import passage, wishes
from gateway.problems import RETRY_AFTER, Problem, invalid_field
from infra.broker.errors import BrokerUnavailable, ReplyLost, Unroutable
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox

PATH: Final = "/api/units/{unit_id}/calls/{name}"
IMPERSONAL: Final = frozenset({"ping", "statistics"})
"""Calls that operators may make: their answers tell of no patient."""
SHORTEST: Final = 1.0
NOBODY_LISTENS: Final = 499
"""What the access log of many servers says of a caller who has left; it reaches nobody."""

_NAME: Final[TypeAdapter[str]] = TypeAdapter(CallName)


class Called(Protocol):
    """Told of every call: how it ended, and after how many seconds."""

    def __call__(self, result: str, seconds: float) -> None: ...


class Calls:
    """Puts questions to units."""

    def __init__(self, publisher: Publisher, replies: ReplyBox, *, called: Called) -> None:
        self._publisher = publisher
        self._replies = replies
        self._called = called

    async def ask(self, unit_id: str, name: str, body: Json, timeout: float) -> LiveAnswer:
        """The unit's answer within `timeout` seconds. Raises Problem 503 or 504, BrokerUnavailable."""
        clock = asyncio.get_running_loop().time
        began = clock()
        result = "unavailable"
        call = LiveCall.model_construct(
            call_id=uuid4(),
            unit_id=unit_id,
            name=name,
            body=body,
            deadline=datetime.now(UTC) + timedelta(seconds=timeout),
        )
        call_id = str(call.call_id)
        try:
            with self._replies.expect(call_id) as answer:
                async with asyncio.timeout(timeout):
                    await self._publisher.publish(
                        routing.COMMANDS,
                        routing.call_key(unit_id, name),
                        call.to_json(),
                        message_id=call_id,
                        correlation_id=call_id,
                        reply_to=self._replies.queue,
                        persistent=False,
                        deadline=timeout,
                        expiration=int(timeout * 1000),
                        type="carespine.live_call",
                    )
                    found = LiveAnswer.model_validate_json(await answer)
            result = "answered" if found.ok else "failed"
            return found
        except Unroutable:
            result = "not_connected"
            raise not_connected() from None
        except asyncio.CancelledError:
            result = "left"
            self._call_off(unit_id, call.call_id)
            raise
        except (TimeoutError, ReplyLost):
            result = "timeout"
            raise Problem("unit_call_timeout", f"No answer came within {timeout:g} s.") from None
        finally:
            self._called(result, clock() - began)

    def _call_off(self, unit_id: str, call_id: UUID) -> None:
        off = CallOff(call_id=call_id, unit_id=unit_id)
        with suppress(BrokerUnavailable):  # the bridge forgets the call at its deadline, too
            self._publisher.publish_nowait(routing.EVENTS, routing.call_off_key(unit_id), off.to_json())


async def _unless_left(
    request: Request, asking: Coroutine[Any, Any, LiveAnswer]
) -> LiveAnswer | None:  # Any: asyncio's
    """What is asked for; None when the caller leaves before it is there, and then nobody asks any more."""
    asked, left = asyncio.ensure_future(asking), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({asked, left}, return_when=asyncio.FIRST_COMPLETED)
        return await asked if asked.done() else None
    finally:
        left.cancel()
        asked.cancel()
        await asyncio.gather(asked, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def not_connected() -> Problem:
    """No bridge holds the unit."""
    return Problem(
        "unit_not_connected",
        "Ask again when it is back, or leave it a durable command: POST /api/units/{unitId}/commands.",
        headers=RETRY_AFTER,
    )


def route(callers: Callers, calls: Calls) -> Route:
    """`POST /api/units/{unitId}/calls/{name}`; `Prefer: wait=N` is the deadline."""

    async def take(request: Request) -> Response:
        asked = passage(request)
        asked.route = PATH
        actor = callers.actor(asked)
        name: str = request.path_params["name"]
        allow(actor, PEOPLE | {Role.OPS} if name in IMPERSONAL else PEOPLE)
        try:
            _NAME.validate_python(name)
        except ValidationError:
            raise invalid_field("name", "must be 1 to 40 characters: a to z, 0 to 9 and dashes") from None
        unit_id = one_unit(actor, request.path_params["unit_id"])
        body = parsed_object(await request.body())
        found = await _unless_left(request, calls.ask(unit_id, name, body, max(wishes(asked).wait, SHORTEST)))
        if found is None:
            return Response(status_code=NOBODY_LISTENS)
        if found.ok:
            return json_answer(kept(found.body))
        if found.code == "unit_not_connected":
            raise not_connected()
        raise Problem("unit_call_failed", "The unit says why in `unitCode`.", unitCode=found.code)

    return Route(PATH, take, methods=["POST"], name=f"POST {PATH}")
