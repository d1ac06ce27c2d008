"""The one session that may speak for a unit, in Postgres: epochs taken, positions acknowledged, who is connected.

Whatever is asked while a statement runs goes into the next one, so a storm of ten thousand hellos costs a few dozen
statements and no more connections than a quiet day. Every write says `WHERE epoch = mine`: a row that does not match
belongs to a newer session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import structlog

from infra.database import Connection, DatabaseUnavailable, Pool, connected, plain_array
from ws_bridge.session_rows import (
    CLOSE,
    CONTESTED_SECONDS,
    LEASE_SECONDS,
    MOVE,
    NEWER,
    OPEN,
    ORDERLY,
    RENEW,
    TAKEOVER_SECONDS,
)

HELLOS_AT_ONCE: Final = 500
OPEN_TIMEOUT: Final = 10.0
FLUSH_SECONDS: Final = 0.5
LEASE_MARGIN: Final = 5.0
"""A bridge stops speaking this much before its lease ends, so that clocks need not agree to the second."""
RENEW_SECONDS: Final = 15.0
RENEWED_AT_ONCE: Final = 2_000

log = structlog.get_logger()


@dataclass(frozen=True)
class Asked:
    """A hello that wants the unit's link."""

    unit_id: str
    agent_version: str
    position: int
    instance: UUID | None = None
    """Which agent it is."""


@dataclass(frozen=True)
class Opened:
    """What the database says to a hello; `epoch` 0 when the link is not given."""

    status: str
    """active · suspended · retired · unknown · contested"""
    partition: int
    in_log: bool
    """The position the agent named exists."""
    epoch: int
    head: int
    """How far the unit's feed reaches visibly."""
    speaks_until: float = 0.0
    """Loop time at which the bridge stops speaking to the unit, unless it has renewed."""


UNKNOWN: Final = Opened("unknown", 0, True, 0, 0)


class Held(Protocol):
    """An open session of this bridge (`ws_bridge.link`)."""

    @property
    def unit_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...

    speaks_until: float


Superseded = Callable[[str, int], None]
"""Told (unit id, epoch) of a session newer than ours."""
Companion = Callable[[Connection], Awaitable[None]]
"""Writes something that belongs to acknowledgements, on the connection that has just written them."""


class UnitSessions:
    """This bridge's part of the table `unit_sessions`."""

    def __init__(self, pool: Pool, *, bridge: str, superseded: Superseded) -> None:
        self._pool = pool
        self._bridge = bridge
        self._superseded = superseded
        self._hellos: list[tuple[Asked, asyncio.Future[Opened]]] = []
        self._hello_here = asyncio.Event()
        self._acked: dict[str, tuple[int, int]] = {}
        """unit id -> (epoch, position) to be written."""
        self._closed: dict[str, tuple[int, int]] = {}
        self._companions: list[Companion] = []
        self._trouble: str | None = "database not heard of yet"
        self._well_since = 0.0
        """Loop time since when every renewal has come through; counts while there is no trouble."""

    def ready(self) -> str | None:
        """None when the database answered the last time it was asked, else why not."""
        return self._trouble

    def well_for(self) -> float:
        """Seconds for which the database has taken everything this bridge had to say; 0 in trouble."""
        return 0.0 if self._trouble is not None else asyncio.get_running_loop().time() - self._well_since

    def accompany(self, companion: Companion) -> None:
        """Let `companion` write together with acknowledgements from now on."""
        self._companions.append(companion)

    async def open(self, asked: Asked) -> Opened:
        """Take epoch + 1 for the unit, if it may have a link. Raises DatabaseUnavailable."""
        answer: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._hellos.append((asked, answer))
        self._hello_here.set()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                return await answer
        except TimeoutError:
            raise DatabaseUnavailable("timeout") from None

    def acked(self, unit_id: str, epoch: int, position: int) -> None:
        """Everything through `position` is safe at the unit; written soon."""
        self._acked[unit_id] = (epoch, position)

    def closed(self, unit_id: str, epoch: int, position: int) -> None:
        """Our session of this unit is over; written soon."""
        self._acked.pop(unit_id, None)
        if self._closed.get(unit_id, (0, 0))[0] <= epoch:
            self._closed[unit_id] = (epoch, position)

    async def keep_opening(self) -> None:
        """Answer hellos until cancelled: all that are here at once, one of each unit."""
        while True:
            await self._hello_here.wait()
            self._hello_here.clear()
            while self._hellos:
                await self._open_some()

    async def _open_some(self) -> None:
        batch: dict[str, tuple[Asked, asyncio.Future[Opened]]] = {}
        later: list[tuple[Asked, asyncio.Future[Opened]]] = []
        for hello in self._hellos:
            if hello[1].done():
                continue  # its connection is gone
            if hello[0].unit_id in batch or len(batch) >= HELLOS_AT_ONCE:
                later.append(hello)
            else:
                batch[hello[0].unit_id] = hello
        self._hellos = later
        asked = [hello for hello, _ in batch.values()]
        try:
            found = await self._opened(asked)
        except DatabaseUnavailable as trouble:
            self._in_trouble()
            for _, answer in batch.values():
                if not answer.done():
                    answer.set_exception(trouble)
            return
        self._well()
        for unit_id, (_, answer) in batch.items():
            if not answer.done():
                answer.set_result(found.get(unit_id, UNKNOWN))

    async def _opened(self, asked: Sequence[Asked]) -> dict[str, Opened]:
        async with connected(self._pool) as connection:
            speaks_until = asyncio.get_running_loop().time() + LEASE_SECONDS - LEASE_MARGIN
            cursor = await connection.execute(
                OPEN,
                {
                    "units": [one.unit_id for one in asked],
                    "versions": [one.agent_version for one in asked],
                    "positions": [one.position for one in asked],
                    "instances": [one.instance for one in asked],
                    "bridge": self._bridge,
                    "lease": LEASE_SECONDS,
                    "window": TAKEOVER_SECONDS,
                    "orderly": ORDERLY,
                    "contested": CONTESTED_SECONDS,
                },
            )
            return {
                unit_id: Opened(status, partition, in_log, epoch or 0, head, speaks_until)
                for unit_id, status, partition, in_log, epoch, head in await cursor.fetchall()
            }

    async def keep_writing(self) -> None:
        """Write acks and closes every half second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except DatabaseUnavailable:
                self._in_trouble()

    async def keep_renewing(self, held: Iterable[Held], renewed: Callable[[str], None]) -> None:
        """Renew the leases of all sessions held, each four times before it would end, until cancelled.

        `renewed` hears of units whose lease this bridge had let pass: it may speak to them again.
        """
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(1.0)
            soon = clock() + LEASE_SECONDS - LEASE_MARGIN - RENEW_SECONDS
            due = [one for one in held if one.speaks_until <= soon]
            for start in range(0, len(due), RENEWED_AT_ONCE):
                try:
                    await self._renew(due[start : start + RENEWED_AT_ONCE], renewed)
                except DatabaseUnavailable:
                    self._in_trouble()
                    break

    async def _renew(self, due: Sequence[Held], renewed: Callable[[str], None]) -> None:
        clock = asyncio.get_running_loop().time
        async with connected(self._pool) as connection:
            now = clock()
            ours = await self._move(connection, {one.unit_id: (one.epoch, 0) for one in due}, RENEW)
        for one in due:
            if one.unit_id in ours:
                lapsed, one.speaks_until = one.speaks_until <= clock(), now + LEASE_SECONDS - LEASE_MARGIN
                if lapsed:
                    renewed(one.unit_id)

    async def flush(self) -> None:
        """Write what there is to write now. Raises DatabaseUnavailable, and then keeps it."""
        acked, self._acked = self._acked, {}
        closed, self._closed = self._closed, {}
        if not acked and not closed and self._trouble is None:
            return
        try:
            async with connected(self._pool) as connection:
                if acked:
                    await self._move(connection, acked, MOVE)
                if closed:
                    await connection.execute(CLOSE, _columns(closed))
                for companion in self._companions if acked or closed else ():
                    await companion(connection)
                if not acked and not closed:
                    await connection.execute("SELECT 1")  # is it back?
        except DatabaseUnavailable:
            self._acked = acked | self._acked
            self._closed = closed | self._closed
            raise
        self._well()

    async def _move(self, connection: Connection, moves: dict[str, tuple[int, int]], statement: str) -> set[str]:
        """Move rows that are still ours, and say which; whoever has a newer session of the others is found out."""
        cursor = await connection.execute(statement, {**_columns(moves), "lease": LEASE_SECONDS})
        ours = {unit_id for (unit_id,) in await cursor.fetchall()}
        lost = [unit_id for unit_id in moves if unit_id not in ours]
        if lost:
            cursor = await connection.execute(NEWER, (lost,))
            for unit_id, epoch in await cursor.fetchall():
                self._superseded(unit_id, epoch)
        return ours

    def _well(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._well_since = asyncio.get_running_loop().time()

    def _in_trouble(self) -> None:
        if self._trouble is None:
            log.warning("sessions_not_written", reason="database_unavailable")
        self._trouble = "database unavailable"


def _columns(rows: dict[str, tuple[int, int]]) -> dict[str, str]:
    return {
        "units": plain_array(rows),
        "epochs": plain_array(epoch for epoch, _ in rows.values()),
        "positions": plain_array(position for _, position in rows.values()),
    }
