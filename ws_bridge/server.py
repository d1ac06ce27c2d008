"""What is served where: a path has a look at the opening handshake and a host for the connections it lets in.

Knows nothing of what is said on a connection: that is the place's (`ws_bridge.hosting` for units).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from contracts.frames import MAX_FRAME_BYTES
from infra.http_server import listening_socket
from infra.settings import Listening
from ws_bridge.admission import UNIT_PATH, Visitor, problem
from ws_bridge.entrance import Entrance

OPEN_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 3.0
BACKLOG: Final = 4096
"""Connections that may wait to be accepted. The loops' own 100 overflow in a storm, and whoever is dropped there is
told nothing: their system tries again later and later, for a minute and more.
"""


@dataclass(frozen=True)
class Place:
    """What is at a path."""

    subprotocol: str
    look: Callable[[ServerConnection, Request], Response | None]
    """Before the upgrade: None lets the visitor in, anything else is the answer. Quick: runs on the event loop."""
    host: Callable[[Visitor], Awaitable[None]]
    """Looks after one connection until it has ended; must not raise."""


@asynccontextmanager
async def serving(
    places: Mapping[str, Place], entrance: Entrance, listening: Listening
) -> AsyncIterator[tuple[Server, str]]:
    """Serve these paths while the block runs; gives the server and its URL. Links are not closed on leaving."""

    entered = {path: Request(path, Headers()) for path in places}

    def look(connection: ServerConnection, request: Request) -> Response | None:
        place = places.get(request.path.partition("?")[0])
        if place is None:
            return problem(404, "not_found", f"Units connect to {UNIT_PATH}.")
        answer = entrance.look(connection, request)
        return answer if answer is not None else place.look(connection, request)

    def handle(connection: ServerConnection) -> Awaitable[None]:
        # Not a coroutine itself: it would be kept beside the host's for as long as the link lasts, and so would the
        # headers of the handshake, the token among them.
        if not isinstance(connection, Visitor) or connection.request is None:
            raise RuntimeError("a connection that has been let in is a visitor")
        path = connection.request.path.partition("?")[0]
        connection.request, connection.response = entered[path], None
        return places[path].host(connection)

    listener = listening_socket(listening.host, listening.port)
    async with serve(
        handle,
        sock=listener,
        process_request=look,
        create_connection=Visitor,
        subprotocols=[Subprotocol(place.subprotocol) for place in places.values()],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=4,
        open_timeout=OPEN_SECONDS,
        ping_interval=None,  # see `Visitor.knock`
        close_timeout=CLOSE_SECONDS,
        server_header=None,
        backlog=BACKLOG,
    ) as server:
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        yield server, f"ws://{host}:{listener.getsockname()[1]}"
