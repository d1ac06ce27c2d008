"""Reading what a batch needs, in as few round trips as its commands allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from command_handlers.book import Book, Known, initial
from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Claim
from contracts.catalogue import event_from
from infra.database import Connection
from infra.event_log import Json, read_streams
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


async def seen_before(connection: Connection, command_ids: Iterable[UUID]) -> dict[UUID, Receipt]:
    """Answers given before to these commands."""
    async with connection.cursor(row_factory=class_row(Receipt)) as cursor:
        await cursor.execute(_RECEIPTS, (list(command_ids),))
        return {receipt.command_id: receipt for receipt in await cursor.fetchall()}


async def blocks(connection: Connection, partitions: Iterable[int]) -> dict[tuple[int, str], Block]:
    """Streams of these partitions that are held behind a dead letter."""
    async with connection.cursor(row_factory=class_row(Block)) as cursor:
        await cursor.execute(_BLOCKS, (list(partitions),))
        return {(block.partition, block.stream): block for block in await cursor.fetchall()}


async def load(
    connection: Connection,
    sealer: Sealer,
    books: Mapping[int, Book],
    *,
    streams: Iterable[tuple[int, str]],
    claims: Iterable[tuple[int, str, Claim]],
) -> None:
    """Bring streams `(partition, stream)` and claims `(partition, unit, claim)` into the books.

    Raises whatever reading an event raises (an unknown word, a broken seal): the command that needs it is poison.
    """
    wanted = [(partition, stream) for partition, stream in set(streams) if books[partition].known(stream) is None]
    if wanted:
        await _load_streams(connection, sealer, books, wanted)
    asked = [
        (partition, unit, claim)
        for partition, unit, claim in set(claims)
        if (unit, claim) not in books[partition].holders
    ]
    if asked:
        await _load_claims(connection, sealer, books, asked)


async def _load_streams(
    connection: Connection, sealer: Sealer, books: Mapping[int, Book], wanted: list[tuple[int, str]]
) -> None:
    stored = await read_streams(connection, wanted)
    by_stream: dict[tuple[int, str], Known] = {place: initial(place[1]) for place in wanted}
    for opened in await sealer.open(connection, stored):
        row = opened.event
        known = by_stream[row.partition, row.stream]
        event = event_from(row.type, row.type_version, opened.payload)
        state: Any = aggregate_for(event.context).evolve(known.state, event)  # Any: the aggregate's own state
        by_stream[row.partition, row.stream] = Known(row.unit_id, row.stream_version, state)
    for (partition, stream), known in by_stream.items():
        books[partition].loaded[stream] = known


async def _load_claims(
    connection: Connection, sealer: Sealer, books: Mapping[int, Book], asked: list[tuple[int, str, Claim]]
) -> None:
    places: dict[tuple[str, str, bytes], list[tuple[int, str, Claim]]] = defaultdict(list)
    for partition, unit, claim in asked:
        places[unit, claim.kind, claim_key(sealer, unit, claim)].append((partition, unit, claim))
        books[partition].holders[unit, claim] = None
    cursor = await connection.execute(
        _CLAIMS, ([unit for unit, _, _ in places], [kind for _, kind, _ in places], [key for _, _, key in places])
    )
    for unit, kind, key, holder in await cursor.fetchall():
        for partition, _, claim in places[unit, kind, bytes(key)]:
            books[partition].holders[unit, claim] = holder


def claim_key(sealer: Sealer, unit_id: str, claim: Claim) -> bytes:
    """What stands in the table for a claim: a keyed hash, so that no MRN does."""
    return sealer.master.hashed(unit_id, claim.kind, claim.key)
