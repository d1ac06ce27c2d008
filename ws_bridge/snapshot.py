"""A unit's state instead of the events that led to it, for an agent that was away for very long and asks for that.

Read from the read tables in one transaction that sees the checkpoint and the tables as of one instant, so the facts
after the checkpoint go on from exactly what the snapshot says. A few workers at most do this at the same time; who
finds none free is sent the events.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from websockets.exceptions import ConnectionClosed

from contracts.frames import MAX_FRAME_BYTES, CloseCode
from contracts.queue import ACTIVE
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.sealing import KeyNotKnown, SealBroken, Sealer
from ws_bridge.link import ACK_SECONDS, Link
from ws_bridge.pages import read_streams_through
from ws_bridge.session import Tellable

SNAPSHOTS_AT_ONCE: Final = 2
ROWS_AT_ONCE: Final = 500
TROUBLE_AWAY: Final = 60.0
LEASE_LOOK: Final = 0.1

_AS_OF_NOW: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SCOPE: Final = "SELECT set_config('carespine.unit', %s, true), set_config('TimeZone', 'UTC', true)"
_VISIBLE: Final = "SELECT position FROM projection_checkpoints WHERE partition = %s"
_BEHIND: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM events WHERE partition = %s AND unit_id = %s AND position > %s AND position <= %s LIMIT %s) AS missing
"""
_LEFT_OUT: Final = """
SELECT count(*) FROM projection_faults WHERE partition = %s
    AND read_model IN ('units', 'patients', 'encounters', 'waiting_room', 'unit_commands')
"""
_COMMANDS: Final = """
SELECT 'unit_command-' || unit_command_id FROM read_unit_commands WHERE unit_id = %s AND (status = 'queued'
    OR status IN ('expired', 'rejected') AND settled_at > now() - interval '30 days')
"""
"""Unit commands that are to be done, and those that may be tried again: the unit has to know what they are about."""
_KINDS: Final = {
    "unit": "SELECT jsonb_build_object('unitId', unit_id, 'name', name, 'settings', settings, 'status', status) "
    "FROM read_units WHERE unit_id = %(unit_id)s",
    "department": "SELECT jsonb_build_object('department', department, 'display', display) "
    "FROM read_departments WHERE unit_id = %(unit_id)s",
    "patient": "SELECT jsonb_build_object('patientId', patient_id, 'medicalRecordNumber', medical_record_number, "
    "'firstName', first_name, 'lastName', last_name, 'dateOfBirth', date_of_birth, 'gender', gender, "
    "'contact', contact, 'roomNumber', room_number, 'status', status, 'deceasedAt', deceased_at, 'erased', erased) "
    "FROM read_patients WHERE unit_id = %(unit_id)s",
    "encounter": "SELECT jsonb_build_object('encounterId', encounter_id, 'patientId', patient_id, "
    "'queueEntryId', queue_entry_id, 'encounterClass', encounter_class, 'department', department, "
    "'priority', priority, 'status', status, 'acuity', acuity, 'room', room, 'arrivedAt', arrived_at) "
    "FROM read_encounters WHERE unit_id = %(unit_id)s AND open",
    "queue_entry": "SELECT jsonb_build_object('entryId', entry_id, 'department', department, "
    "'serviceDay', service_day, 'patientId', patient_id, 'encounterId', encounter_id, 'priority', priority, "
    "'ticket', ticket, 'status', status, 'arrivedAt', arrived_at, 'calledAt', called_at, 'counter', counter) "
    "FROM read_waiting_room WHERE unit_id = %(unit_id)s AND (status = ANY(%(active)s) OR service_day >= "
    "(SELECT (now() AT TIME ZONE zone)::date FROM read_units WHERE unit_id = %(unit_id)s))",
}
"""What a unit's state consists of, in the order in which it is sent; closed visits and places of past days are over."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Wanted:
    """Whose state, for which session, and from how far behind on."""

    unit_id: str
    partition: int
    epoch: int
    after: int
    """Through where the unit has been told."""
    beyond: int
    """No snapshot unless so many events and more are missing."""


@dataclass(frozen=True)
class State:
    """A unit's state as of a position, in frames ready to be sent, each compressed while it waits."""

    position: int
    frames: Sequence[bytes]
    facts: Sequence[Tellable]
    """Those in the frames."""

    def __iter__(self) -> Iterator[bytes]:
        """The frames."""
        return map(zlib.decompress, self.frames)


class Parts:
    """Fills parts of the usual size with records and facts that are JSON already."""

    def __init__(self, epoch: int, position: int, *, frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._epoch, self._position = epoch, position
        self._room = frame_bytes - 200  # for the rest of the frame
        self._frames: list[bytes] = []
        self._records: list[bytes] = []
        self._facts: list[bytes] = []
        self._told: list[Tellable] = []
        self._size = 0

    def record(self, kind: str, body: bytes) -> None:
        """One more record."""
        text = b'{"kind":"%b","body":%b}' % (kind.encode(), body)
        self._make_room(len(text))
        self._records.append(text)

    def fact(self, fact: Tellable) -> None:
        """One more fact."""
        text = fact.to_json()
        self._told.append(fact)
        self._make_room(len(text))
        self._facts.append(text)

    def done(self) -> State:
        """All of it, the last part marked as such."""
        self._close(last=True)
        return State(self._position, self._frames, self._told)

    def _make_room(self, size: int) -> None:
        if self._size and self._size + size > self._room:
            self._close(last=False)
        self._size += size + 1

    def _close(self, *, last: bool) -> None:
        frame = b'{"type":"snapshot","epoch":%d,"position":%d,"part":%d,"last":%b,"records":[%b],"facts":[%b]}' % (
            self._epoch,
            self._position,
            len(self._frames),
            b"true" if last else b"false",
            b",".join(self._records),
            b",".join(self._facts),
        )
        self._frames.append(zlib.compress(frame, 1))
        self._records, self._facts, self._size = [], [], 0


class Snapshots:
    """Workers that read and send snapshots."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer
        self._asked: asyncio.Queue[Link] = asyncio.Queue()
        self._free = 0
        """Workers with nothing to do."""

    def take(self, link: Link) -> bool:
        """Whether a worker looks after this link now, which asks for a snapshot; else it is sent the events."""
        if not self._free:
            link.session.without_snapshot()
            return False
        self._free -= 1
        link.session.snapshot_under_way()
        self._asked.put_nowait(link)
        return True

    async def serve(self, go_on: Callable[[Link], None]) -> None:
        """One worker, until cancelled; `go_on` is told of each link that is to be sent facts from here on."""
        while True:
            self._free += 1
            link = await self._asked.get()
            if link.is_open and await self._told(link):
                go_on(link)

    async def _told(self, link: Link) -> bool:
        """Send a snapshot, or find that none is needed; False when the link is over."""
        try:
            state = await self._read(link)
        except DatabaseUnavailable:
            log.warning("snapshot_not_read", unit_id=link.unit_id, reason="database_unavailable")
            state = None
        except (KeyNotKnown, SealBroken) as trouble:
            log.error("feed_cannot_be_opened", unit_id=link.unit_id, error_type=type(trouble).__name__)
            link.end(CloseCode.TROUBLE, "the unit's feed cannot be read", retry_after=TROUBLE_AWAY)
            return False
        if state is None:
            link.session.without_snapshot()
            return True
        for frame in state:
            if not await _sent(link, frame):
                return False
        link.was_told_all(state.position, state.facts)
        log.info("snapshot_sent", unit_id=link.unit_id, position=state.position, count=len(state.frames))
        return True

    async def _read(self, link: Link) -> State | None:
        session = link.session
        wanted = Wanted(link.unit_id, link.partition, link.epoch, session.feed.told, session.snapshot_beyond)
        async with connected(self._pool) as connection:
            return await read_state(connection, self._sealer, wanted)


async def read_state(connection: Connection, sealer: Sealer, wanted: Wanted) -> State | None:
    """The unit's state as of one instant; None when it is not so far behind, or the state would not be whole."""
    unit_id, partition = wanted.unit_id, wanted.partition
    async with connection.transaction():
        await connection.execute(_AS_OF_NOW)
        await connection.execute(_SCOPE, (unit_id,))
        position = await _number(connection, _VISIBLE, (partition,))
        behind = await _number(connection, _BEHIND, (partition, unit_id, wanted.after, position, wanted.beyond + 1))
        if behind <= wanted.beyond:
            return None
        if await _number(connection, _LEFT_OUT, (partition,)):
            return None  # the read tables are not all that the log has come to, so the unit gets the log
        parts = Parts(wanted.epoch, position)
        about = {"unit_id": unit_id, "active": sorted(ACTIVE)}
        for kind, query in _KINDS.items():
            async with connection.cursor(name=f"snapshot_{kind}") as cursor:
                cursor.itersize = ROWS_AT_ONCE
                await cursor.execute(_as_text(query), about)
                async for (body,) in cursor:
                    parts.record(kind, body.encode())
        opened = await connection.execute(_COMMANDS, (unit_id,))
        streams = [stream for (stream,) in await opened.fetchall()]
        for fact in await read_streams_through(connection, sealer, partition, streams, position):
            parts.fact(fact)
        return parts.done()


def _as_text(query: str) -> str:
    return f"SELECT jsonb_strip_nulls(body)::text FROM ({query}) AS one (body)"  # noqa: S608 - ours


async def _number(connection: Connection, query: str, values: tuple[object, ...]) -> int:
    cursor = await connection.execute(query.encode(), values)
    row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


async def _sent(link: Link, frame: bytes) -> bool:
    """Send one part, as slowly as the unit reads; False when the link is over."""
    try:
        async with asyncio.timeout(ACK_SECONDS):
            while link.is_open and not link.may_speak:  # noqa: ASYNC110 - a lease is renewed by the clock
                await asyncio.sleep(LEASE_LOOK)
            if link.is_open:
                await link.socket.send(frame, text=True)
    except TimeoutError:
        link.end(CloseCode.TOO_SLOW, "the unit does not read")
    except ConnectionClosed:
        return False
    return link.is_open
