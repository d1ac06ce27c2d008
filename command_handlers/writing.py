"""Writing a decided batch in one transaction, all of it or nothing.

Events, receipts, claims, counts, timers, blocks, letters that are to go to the desk, and keys that are destroyed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncCursor, AsyncPipeline
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from command_handlers.book import Written
from command_handlers.domain.decider import Claim, Timer
from command_handlers.loading import claim_key
from contracts.dead_letter import DeadLetter
from contracts.envelope import CommandEnvelope, Json, Origin, Outcome
from contracts.identity import SYSTEM
from contracts.model import has_sealed, sealed_fields
from contracts.patient import PatientErased
from contracts.routing import UNIT_LETTER_KEYS
from infra.database import Connection, one_transaction
from infra.event_log import NewEvent, append, notify, reserve
from infra.sealing import Sealer, place, split


class ReceiptTaken(Exception):
    """Somebody answered one of these commands meanwhile; look again and decide again."""


class BlockGone(Exception):
    """A stream was released while something was being parked behind it; look again and decide again."""


@dataclass(slots=True)
class Parked:
    """A new place in a stream's block: the first letter opens it."""

    stream: str
    block_id: UUID
    opens: bool


@dataclass(slots=True)
class Settled:
    """One command as it is to be written. `outcome.position` is filled in when it is."""

    envelope: CommandEnvelope
    outcome: Outcome
    events: Sequence[Written] = ()
    holds: Mapping[Claim, str | None] | None = None
    added: Mapping[str, int] | None = None
    timers: Sequence[Timer] = ()
    timers_over: Sequence[UUID] = ()
    letters: Sequence[DeadLetter] = ()
    """To be sent to the desk once this is committed."""
    parked: Parked | None = None


_RECEIPTS = """
INSERT INTO command_receipts (command_id, unit_id, partition, type, status, code, detail, about, result, position,
    request_hash, actor, causation_id, dead_letter_id, issued_at)
SELECT * FROM unnest(%b::uuid[], %b::text[], %b::int[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::text[]::jsonb[], %b::text[]::jsonb[], %b::bigint[], %b::text[], %b::text[]::jsonb[], %b::uuid[], %b::uuid[],
    %b::timestamptz[])
"""
_RECEIPTS_ANEW = f"""{_RECEIPTS}
ON CONFLICT (command_id) DO UPDATE SET status = EXCLUDED.status, code = EXCLUDED.code, detail = EXCLUDED.detail,
    about = EXCLUDED.about, result = EXCLUDED.result, position = EXCLUDED.position,
    dead_letter_id = EXCLUDED.dead_letter_id, recorded_at = clock_timestamp()
WHERE command_receipts.status = 'failed' AND EXCLUDED.command_id = ANY(%b::uuid[])
"""
_TAKE = """
INSERT INTO claims (unit_id, kind, key, holder) SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::text[])
ON CONFLICT (unit_id, kind, key) DO UPDATE SET holder = EXCLUDED.holder
"""
_FREE = """
DELETE FROM claims c USING unnest(%s::text[], %s::text[], %s::bytea[]) AS freed (u, k, h)
WHERE c.unit_id = u AND c.kind = k AND c.key = h
"""
_COUNT = """
INSERT INTO unit_tallies AS t (unit_id, kind, amount) SELECT * FROM unnest(%s::text[], %s::text[], %s::int[])
ON CONFLICT (unit_id, kind) DO UPDATE SET amount = t.amount + EXCLUDED.amount
"""
_LETTERS = """
INSERT INTO letters_out (letter_id, partition, routing_key, body)
SELECT * FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[])
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a statement must have found, once it has been carried out."""

    cursor: AsyncCursor[tuple[Any, ...]]  # Any: see Connection
    rows: int
    otherwise: Exception


async def write(connection: Connection, sealer: Sealer, epochs: Mapping[int, int], batch: Sequence[Settled]) -> None:
    """Write the batch and commit. Raises `Fenced`, `ReceiptTaken`, `BlockGone`; then nothing was written."""
    subjects = _subjects(batch)
    actors = [settled.envelope.actor.model_dump_json(by_alias=True, exclude_none=True) for settled in batch]
    try:
        async with one_transaction(connection) as pipeline:
            first = await reserve(connection, _counts(epochs, batch))
            await sealer.create(connection, subjects)
            await append(connection, _placed(sealer, first, batch, actors))
            expected = await _write_receipts(connection, batch, actors)
            await _write_claims(connection, sealer, batch)
            await _write_counts(connection, batch)
            await _write_timers(connection, batch)
            await _write_letters(connection, batch)
            await _destroy_keys(connection, batch)
            expected += await _write_blocks(connection, batch)
            if any(settled.events for settled in batch):
                await notify(connection)
            if expected:
                await _check(pipeline, expected)
    except BaseException as why:
        # A key made in a transaction that did not commit must not be used again.
        sealer.forget(subjects)
        for settled in batch:
            settled.outcome = settled.outcome.model_copy(update={"position": None})
        if isinstance(why, UniqueViolation) and why.diag.table_name == "command_receipts":
            raise ReceiptTaken from why
        raise


async def _check(pipeline: AsyncPipeline, expected: Sequence[Expected]) -> None:
    await pipeline.sync()
    for one in expected:
        if one.cursor.rowcount != one.rows:
            raise one.otherwise


def _counts(epochs: Mapping[int, int], batch: Sequence[Settled]) -> dict[int, tuple[int, int]]:
    # A partition with receipts only is reserved with 0: the fence holds for answers too.
    counts = Counter({settled.outcome.partition: 0 for settled in batch})
    for settled in batch:
        counts[settled.outcome.partition] += len(settled.events)
    return {partition: (epochs[partition], count) for partition, count in counts.items()}


def _subjects(batch: Sequence[Settled]) -> dict[str, str]:
    return {
        subject: settled.envelope.unit_id
        for settled in batch
        for written in settled.events
        if has_sealed(written.event) and (subject := written.event.subject()) is not None
    }


def _placed(
    sealer: Sealer, first: Mapping[int, int], batch: Sequence[Settled], actors: Sequence[str]
) -> list[tuple[int, int, NewEvent]]:
    placed: list[tuple[int, int, NewEvent]] = []
    next_position = dict(first)
    for settled, actor in zip(batch, actors, strict=True):
        partition = settled.outcome.partition
        for written in settled.events:
            placed.append((partition, next_position[partition], _new_event(sealer, settled.envelope, written, actor)))
            next_position[partition] += 1
        if settled.events:
            settled.outcome = settled.outcome.model_copy(update={"position": next_position[partition] - 1})
    return placed


def _new_event(sealer: Sealer, envelope: CommandEnvelope, written: Written, actor: str) -> NewEvent:
    event = written.event
    subject = sealed = None
    if sealed_fields(type(event)):
        clear, hidden = split(event, event.to_dict())
        payload = orjson.dumps(clear)
        # Of somebody who was erased no words are kept: there is no key, and there will be none.
        if hidden and (subject := event.subject()) and sealer.holds(subject):
            sealed = sealer.seal(subject, place(written.stream, written.version), hidden)
    else:
        payload = event.to_json()
    return NewEvent(
        unit_id=envelope.unit_id,
        stream=written.stream,
        stream_version=written.version,
        type=event.type_name(),
        type_version=event.version,
        payload=payload.decode(),
        sealed=sealed,
        subject=subject,
        command_id=envelope.command_id,
        causation_id=envelope.causation_id,
        correlation_id=envelope.correlation_id,
        actor=actor,
        occurred_at=envelope.issued_at,
    )


def _json(value: Json | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


async def _write_receipts(connection: Connection, batch: Sequence[Settled], actors: Sequence[str]) -> list[Expected]:
    rows = [
        (
            settled.envelope.command_id,
            settled.envelope.unit_id,
            settled.outcome.partition,
            settled.envelope.type,
            settled.outcome.status.value,
            settled.outcome.code,
            settled.outcome.detail,
            _json(settled.outcome.about),
            _json(settled.outcome.result),
            settled.outcome.position,
            settled.envelope.request_hash,
            actor,
            settled.envelope.causation_id,
            settled.outcome.dead_letter_id,
            settled.envelope.issued_at,
        )
        for settled, actor in zip(batch, actors, strict=True)
    ]
    columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)]
    if replayed := [settled.envelope.command_id for settled in batch if settled.envelope.replay]:
        cursor = await connection.execute(_RECEIPTS_ANEW, [*columns, replayed])
        return [Expected(cursor, len(rows), ReceiptTaken())]
    await connection.execute(_RECEIPTS, columns)
    return []


async def _write_claims(connection: Connection, sealer: Sealer, batch: Sequence[Settled]) -> None:
    final: dict[tuple[str, Claim], str | None] = {}
    for settled in batch:
        for claim, holder in (settled.holds or {}).items():
            final[settled.envelope.unit_id, claim] = holder
    taken = [
        (unit, claim.kind, claim_key(sealer, unit, claim), holder) for (unit, claim), holder in final.items() if holder
    ]
    freed = [
        (unit, claim.kind, claim_key(sealer, unit, claim)) for (unit, claim), holder in final.items() if holder is None
    ]
    if freed:
        await connection.execute(_FREE, [list(column) for column in zip(*freed, strict=True)])
    if taken:
        await connection.execute(_TAKE, [list(column) for column in zip(*taken, strict=True)])


async def _write_counts(connection: Connection, batch: Sequence[Settled]) -> None:
    added: Counter[tuple[str, str]] = Counter()
    for settled in batch:
        for kind, by in (settled.added or {}).items():
            added[settled.envelope.unit_id, kind] += by
    rows = [(unit, kind, by) for (unit, kind), by in added.items() if by]
    if rows:
        await connection.execute(_COUNT, [list(column) for column in zip(*rows, strict=True)])


async def _write_letters(connection: Connection, batch: Sequence[Settled]) -> None:
    rows = [
        (letter.letter_id, settled.outcome.partition, UNIT_LETTER_KEYS[letter.reason.value], letter.to_json().decode())
        for settled in batch
        for letter in settled.letters
    ]
    if rows:
        await connection.execute(_LETTERS, [list(column) for column in zip(*rows, strict=True)])


def erased_by(batch: Sequence[Settled]) -> dict[str, int]:
    """Persons whose key the batch destroys, and their partition."""
    return {
        str(written.event.patient_id): settled.outcome.partition
        for settled in batch
        for written in settled.events
        if isinstance(written.event, PatientErased)
    }


async def _destroy_keys(connection: Connection, batch: Sequence[Settled]) -> None:
    for settled in batch:
        for written in settled.events:
            if isinstance(written.event, PatientErased):
                subject = str(written.event.patient_id)
                await connection.execute(
                    "INSERT INTO erasures (subject, patient_id, unit_id, partition, position, command_id, basis, "
                    "requested_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    (
                        subject,
                        written.event.patient_id,
                        settled.envelope.unit_id,
                        settled.outcome.partition,
                        settled.outcome.position,
                        settled.envelope.command_id,
                        written.event.basis.value,
                        settled.envelope.actor.subject,
                    ),
                )
                await connection.execute("SELECT destroy_subject_key(%s)", (subject,))


async def _write_timers(connection: Connection, batch: Sequence[Settled]) -> None:
    for settled in batch:
        for timer in settled.timers:
            envelope = _timer_envelope(settled.envelope, timer)
            await connection.execute(
                "INSERT INTO timers (timer_id, partition, due_at, envelope) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (timer_id) DO NOTHING",
                (envelope.command_id, settled.outcome.partition, timer.due_at, Jsonb(envelope.to_dict())),
            )
    over = [timer for settled in batch for timer in settled.timers_over]
    if over:
        await connection.execute("DELETE FROM timers WHERE timer_id = ANY(%s)", (over,))


def _timer_envelope(cause: CommandEnvelope, timer: Timer) -> CommandEnvelope:
    type_name = timer.command.type_name()
    return CommandEnvelope(
        command_id=timer.id(cause.command_id),
        type=type_name,
        type_version=timer.command.version,
        unit_id=cause.unit_id,
        payload=timer.command.to_dict(),
        actor=SYSTEM,
        issued_at=timer.due_at,
        request_hash=f"timer:{type_name}",
        origin=Origin.TIMER,
        correlation_id=cause.correlation_id,
        causation_id=cause.command_id,
    )


async def _write_blocks(connection: Connection, batch: Sequence[Settled]) -> list[Expected]:
    expected = []
    for settled in batch:
        parked = settled.parked
        if parked is None:
            continue
        place_of = (settled.outcome.partition, parked.stream, parked.block_id)
        if parked.opens:
            await connection.execute(
                "INSERT INTO stream_blocks (partition, stream, block_id) VALUES (%s, %s, %s)", place_of
            )
            continue
        cursor = await connection.execute(
            "UPDATE stream_blocks SET letters = letters + 1 WHERE partition = %s AND stream = %s AND block_id = %s",
            place_of,
        )
        expected.append(Expected(cursor, 1, BlockGone(parked.stream)))
    return expected
