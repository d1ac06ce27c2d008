"""Watching a unit live over HTTP: Server-Sent Events, for where WebSockets do not get through."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from contracts.ids import Department
from contracts.portal import MOST_DEPARTMENTS, READERS, TOPIC_READERS, Topic, granted
from gateway.asking import Reading
from gateway.callers import Callers, allow, one_unit, unit_named
from gateway.passage import passage
from gateway.problems import RETRY_AFTER, Problem, invalid_field, unauthenticated
from gateway.streams import MOST_STREAMS, EventStream, Stream, Streams
from infra.portals.hub import Revoked, UnitNotKnown

PATH: Final = "/api/stream"
_POSITION: Final = re.compile(r"\d{1,18}")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def router(callers: Callers, streams: Streams) -> APIRouter:
    """The one route."""
    routes = APIRouter(route_class=Reading, tags=["portals"])

    @routes.get(PATH, response_class=Response, responses={200: _STREAM})
    async def stream(
        request: Request,
        topics: Annotated[str | None, Query(description=_TOPICS, max_length=200)] = None,
        departments: Annotated[
            str | None, Query(description="Only these, by commas; left out: all.", max_length=2_100)
        ] = None,
        unit: Annotated[str | None, Query(description="The unit, for callers that work for the whole network.")] = None,
        last_event_id: Annotated[
            str | None, Header(description="The id of the last event seen: what came after it is sent first.")
        ] = None,
    ) -> Response:
        """A unit's events as they become visible, as Server-Sent Events; the same as on the portal socket."""
        asked = passage(request)
        claims = callers.bearer(asked)
        actor = callers.actor(asked)
        allow(actor, READERS)
        unit_id = one_unit(actor, unit_named(asked, unit))
        wanted = _topics(topics) if topics else frozenset(Topic)
        if not granted(actor.role, wanted):
            raise Problem("not_allowed", f"The role {actor.role.value} may follow none of these topics.")
        following = Stream(claims, unit_id, wanted if topics else granted(actor.role, wanted), _position(last_event_id))
        following.departments = _departments(departments) if departments else None
        if len(streams) >= MOST_STREAMS:
            raise Problem("too_many_streams", "Ask again in a moment.", headers=RETRY_AFTER)
        try:
            await streams.hub.attach(following, _position(last_event_id))
        except UnitNotKnown:
            raise Problem("not_found", "There is no such unit, or it has left the network.") from None
        except Revoked:
            raise unauthenticated("token_invalid", "Portals of this role or account were revoked; sign in.") from None
        return EventStream(following, streams)

    return routes


_STREAM: Final[dict[str, Any]] = {  # Any: OpenAPI
    "description": (
        "`welcome`, then events as on the portal socket (docs/portals.md): the SSE `id` is the position to resume "
        "from, `data` the JSON of the frame; `ping` now and then, `reset` when too much was missed, `bye` at the end."
    ),
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": (
                "id: 4711\nevent: queue-updated\n"
                'data: {"type":"event","event":"queue-updated","topic":"queue-board","position":4711, "…":"…"}\n\n'
            ),
        }
    },
}
_TOPICS: Final = f"What to follow, by commas: {', '.join(TOPIC_READERS)}; left out: all that the role may."


def _topics(text: str) -> frozenset[Topic]:
    names = {name.strip() for name in text.split(",")}
    if names - set(Topic):
        raise invalid_field("topics", f"must be some of {', '.join(Topic)}, by commas")
    return frozenset(Topic(name) for name in names)


def _departments(text: str) -> frozenset[Department]:
    codes = frozenset(code.strip() for code in text.split(","))
    if len(codes) > MOST_DEPARTMENTS or not all(_SLUG.fullmatch(code) for code in codes):
        raise invalid_field("departments", f"must be at most {MOST_DEPARTMENTS} department codes, by commas")
    return codes


def _position(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not _POSITION.fullmatch(text):
        raise invalid_field("Last-Event-ID", "must be an id that this stream gave")
    return int(text)
