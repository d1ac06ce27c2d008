"""Reading what a batch needs, in as few round trips as its commands allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import class_row

from command_handlers.book import Book, Known, initial
from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Claim
from contracts.catalogue import event_from
from infra.database import Connection
from infra.event_log import Json, StoredEvent, ask_streams, read_streams
from infra.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a command was answered before."""

    command_id: UUID
    unit_id: str
    partition: int
    type: str
    status: str
    code: str | None
    detail: str | None
    about: Json | None
    result: Json | None
    position: int | None
    request_hash: str
    dead_letter_id: UUID | None


@dataclass(frozen=True, slots=True)
class Block:
    """A stream with an unresolved dead letter."""

    partition: int
    stream: str
    block_id: UUID
    letters: int


_RECEIPTS = """
SELECT command_id, unit_id, partition, type, status, code, detail, about, result, position, request_hash, dead_letter_id
FROM command_receipts WHERE command_id = ANY(%s)
"""
_BLOCKS = "SELECT partition, stream, block_id, letters FROM stream_blocks WHERE partition = ANY(%s)"
_CLAIMS = """
SELECT c.unit_id, c.kind, c.key, c.holder FROM claims c
JOIN unnest(%s::text[], %s::text[], %s::bytea[]) AS wanted (u, k, h) ON c.unit_id = u AND c.kind = k AND c.key = h
"""
_COUNTS = """
SELECT t.unit_id, t.kind, t.amount FROM unit_tallies t
JOIN unnest(%s::text[], %s::text[]) AS wanted (u, k) ON t.unit_id = u AND t.kind = k
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What the database said when a batch began."""

    receipts: dict[UUID, Receipt]
    """Answers given before to these commands."""
    blocks: dict[tuple[int, str], Block]
    """Streams of these partitions that are held behind a dead letter."""
    wanted: list[tuple[int, str]]
    events: list[StoredEvent]
    """Of the streams `wanted`, not in the books yet: see `enter_streams`."""


async def find(
    connection: Connection,
    sealer: Sealer,
    books: Mapping[int, Book],
    *,
    command_ids: Iterable[UUID],
    streams: Iterable[tuple[int, str]],
    claims: Iterable[tuple[int, str, Claim]],
    counts: Iterable[tuple[int, str, str]],
) -> Found:
    """Everything a batch needs of the database, in one round trip. Claims and counts are in the books afterwards."""
    wanted = _unknown_streams(books, streams)
    asked = _unknown_claims(books, claims)
    counted = _unknown_counts(books, counts)
    receipts = connection.cursor(row_factory=class_row(Receipt))
    held = connection.cursor(row_factory=class_row(Block))
    async with connection.pipeline():
        await receipts.execute(_RECEIPTS, (list(command_ids),))
        await held.execute(_BLOCKS, (list(books),))
        events = await ask_streams(connection, wanted) if wanted else None
        holders = await _Claims.ask(connection, sealer, asked) if asked else None
        amounts = await _Counts.ask(connection, counted) if counted else None
    if holders:
        await holders.enter(books)
    if amounts:
        await amounts.enter(books)
    return Found(
        receipts={receipt.command_id: receipt for receipt in await receipts.fetchall()},
        blocks={(block.partition, block.stream): block for block in await held.fetchall()},
        wanted=wanted,
        events=await events.fetchall() if events else [],
    )


async def load(
    connection: Connection,
    sealer: Sealer,
    books: Mapping[int, Book],
    *,
    streams: Iterable[tuple[int, str]] = (),
    claims: Iterable[tuple[int, str, Claim]] = (),
    counts: Iterable[tuple[int, str, str]] = (),
) -> None:
    """Bring streams `(partition, stream)`, claims `(partition, unit, claim)` and counts into the books.

    Raises whatever reading an event raises (an unknown word, a broken seal): the command that needs it is poison.
    """
    if wanted := _unknown_streams(books, streams):
        await enter_streams(connection, sealer, books, wanted, await read_streams(connection, wanted))
    if asked := _unknown_claims(books, claims):
        await (await _Claims.ask(connection, sealer, asked)).enter(books)
    if counted := _unknown_counts(books, counts):
        await (await _Counts.ask(connection, counted)).enter(books)


def _unknown_streams(books: Mapping[int, Book], streams: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(partition, stream) for partition, stream in set(streams) if books[partition].known(stream) is None]


def _unknown_claims(
    books: Mapping[int, Book], claims: Iterable[tuple[int, str, Claim]]
) -> list[tuple[int, str, Claim]]:
    return [
        (partition, unit, claim)
        for partition, unit, claim in set(claims)
        if (unit, claim) not in books[partition].holders
    ]


def _unknown_counts(books: Mapping[int, Book], counts: Iterable[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    return [
        (partition, unit, kind) for partition, unit, kind in set(counts) if (unit, kind) not in books[partition].counts
    ]


async def enter_streams(
    connection: Connection,
    sealer: Sealer,
    books: Mapping[int, Book],
    wanted: Sequence[tuple[int, str]],
    stored: Sequence[StoredEvent],
) -> None:
    """Into the books: the streams `wanted`, whose whole history is `stored`. Raises what reading an event raises."""
    by_stream: dict[tuple[int, str], Known] = {place: initial(place[1]) for place in wanted}
    for opened in await sealer.open(connection, stored):
        row = opened.event
        known = by_stream[row.partition, row.stream]
        event = event_from(row.type, row.type_version, opened.payload)
        state: Any = aggregate_for(event.context).evolve(known.state, event)  # Any: the aggregate's own state
        by_stream[row.partition, row.stream] = Known(row.unit_id, row.stream_version, state)
    for (partition, stream), known in by_stream.items():
        books[partition].loaded[stream] = known


@dataclass(frozen=True, slots=True)
class _Claims:
    """A question for who holds claims; in a pipeline it is answered when that has ended."""

    places: Mapping[tuple[str, str, bytes], list[tuple[int, str, Claim]]]
    cursor: AsyncCursor[tuple[Any, ...]]  # Any: see Connection

    @classmethod
    async def ask(cls, connection: Connection, sealer: Sealer, asked: Sequence[tuple[int, str, Claim]]) -> _Claims:
        places: dict[tuple[str, str, bytes], list[tuple[int, str, Claim]]] = defaultdict(list)
        for partition, unit, claim in asked:
            places[unit, claim.kind, claim_key(sealer, unit, claim)].append((partition, unit, claim))
        units, kinds, keys = zip(*places, strict=True)
        return cls(places, await connection.execute(_CLAIMS, (list(units), list(kinds), list(keys))))

    async def enter(self, books: Mapping[int, Book]) -> None:
        for asked in self.places.values():
            for partition, unit, claim in asked:
                books[partition].holders[unit, claim] = None
        for unit, kind, key, holder in await self.cursor.fetchall():
            for partition, _, claim in self.places[unit, kind, bytes(key)]:
                books[partition].holders[unit, claim] = holder


@dataclass(frozen=True, slots=True)
class _Counts:
    """A question for how many of a kind units have; in a pipeline it is answered when that has ended."""

    asked: Sequence[tuple[int, str, str]]
    cursor: AsyncCursor[tuple[Any, ...]]  # Any: see Connection

    @classmethod
    async def ask(cls, connection: Connection, asked: Sequence[tuple[int, str, str]]) -> _Counts:
        units, kinds = [unit for _, unit, _ in asked], [kind for _, _, kind in asked]
        return cls(asked, await connection.execute(_COUNTS, (units, kinds)))

    async def enter(self, books: Mapping[int, Book]) -> None:
        found = {(unit, kind): int(amount) for unit, kind, amount in await self.cursor.fetchall()}
        for partition, unit, kind in self.asked:
            books[partition].counts[unit, kind] = found.get((unit, kind), 0)


def claim_key(sealer: Sealer, unit_id: str, claim: Claim) -> bytes:
    """What stands in the table for a claim: a keyed hash, so that no MRN does."""
    return sealer.hashed(unit_id, claim.kind, claim.key)
