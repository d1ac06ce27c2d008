"""What a unit has on its own disk: the agent's store, read as an auditor would, and the site's system behind it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@dataclass(frozen=True)
class UnitStore:
    """One agent's store at one moment."""

    facts: list[tuple[int, str, str]]
    """Position, type and command id, in the order of the feed."""
    applied: int
    """How many facts the agent says it ever applied."""
    orders_applied: list[str]
    """Unit commands its journal says were done, by id."""


def read_store(path: Path) -> UnitStore:
    """The store in `agent.db`; the agent may be at work on it."""
    with _opened(path) as store:
        facts = store.execute("SELECT position, type, command_id FROM facts ORDER BY position").fetchall()
        state = dict(store.execute("SELECT key, value FROM state").fetchall())
        orders = store.execute("SELECT unit_command_id FROM unit_commands WHERE state = 'applied'").fetchall()
    return UnitStore(facts, int(state.get("facts_applied", 0)), [order_id for (order_id,) in orders])


def read_position(path: Path) -> int:
    """Through where the feed is on this disk; 0 while there is no store yet."""
    if not path.exists():
        return 0
    with _opened(path) as store:
        try:
            row = store.execute("SELECT value FROM state WHERE key = 'position'").fetchone()
        except sqlite3.OperationalError:  # it is being made at this moment
            return 0
    return int(row[0]) if row else 0


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


class Sites:
    """The software at the units: takes orders over HTTP, each with its id, and remembers how often it did each."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        """How often each order was carried out, by id: once, unless somebody delivered it twice."""
        self.app = Starlette(
            routes=[
                Route("/orders", self._take, methods=["POST"]),
                Route("/orders/{order_id}", self._tell, methods=["GET"]),
                Route("/orders/{order_id}/revalidate", self._wanted, methods=["POST"]),
            ]
        )

    async def _take(self, request: Request) -> JSONResponse:
        order = await request.json()
        self.done[order["id"]] += 1
        return JSONResponse({"handledBy": "site"})

    async def _tell(self, request: Request) -> JSONResponse:
        return JSONResponse({"applied": self.done[request.path_params["order_id"]] > 0})

    async def _wanted(self, request: Request) -> JSONResponse:
        return JSONResponse({"valid": True})
