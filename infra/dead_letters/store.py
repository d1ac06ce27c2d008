"""Letters in Postgres: filed with their payload sealed, listed, shown, discarded; and the streams they block."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from contracts.dead_letter import UNIT_REASONS, DeadLetter, Reason
from contracts.ids import UNIT_ID
from contracts.text import holds_nul
from infra.database import Connection
from infra.dead_letters import ledger
from infra.event_log import Json
from infra.sealing import Sealer, place

Status = Literal["open", "replaying", "replayed", "discarded"]
DESK_SUBJECT = "desk"
"""Seals what nobody can read."""
ERASED = "erased"
"""How a letter is dealt with whose payload told of somebody who was erased: it can never be sent again."""
_NAMES = {
    "commandId": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "unitId": UNIT_ID,
    "type": re.compile(r"[a-z_]{1,40}\.[A-Za-z]{1,59}"),
}


class LetterNotFound(LookupError):
    """There is no dead letter with this id."""


class LetterNotOpen(Exception):
    """The letter is being replayed, has been replayed or was discarded."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, without its payload."""

    letter_id: UUID
    command_id: UUID | None
    unit_id: str | None
    partition: int | None
    stream: str | None
    block_id: UUID | None
    seq: int
    type: str | None
    reason: str
    error_type: str | None
    error_stack: str | None
    fingerprint: str
    origin: str
    attempts: int
    code_version: str
    status: Status
    resolution: str | None
    envelope: Json
    """The envelope without its payload; with `raw` (bytes of the message) where nobody could read it."""
    first_failed_at: datetime
    last_failed_at: datetime
    filed_at: datetime
    followers: int
    """Open letters parked behind it in the same block."""

    @property
    def is_raw(self) -> bool:
        """Whether nobody could read the message: it can only be sent again as it was."""
        return "raw" in self.envelope

    @property
    def is_of_a_unit(self) -> bool:
        """Whether it is about a unit command that was not done: replaying it means trying that again."""
        return self.reason in UNIT_REASONS


_COLUMNS = """
letter_id, command_id, unit_id, partition, stream, block_id, seq, type, reason, error_type, error_stack, fingerprint,
origin, attempts, code_version, status, resolution, envelope, first_failed_at, last_failed_at, filed_at,
(SELECT count(*)::int FROM dead_letters f WHERE f.block_id = l.block_id AND f.seq > l.seq AND f.status = 'open')
    AS followers
"""


_FILE = """
INSERT INTO dead_letters AS l (letter_id, command_id, unit_id, partition, stream, block_id, seq, type, reason,
    error_type, error_stack, fingerprint, origin, code_version, envelope, sealed, subject, first_failed_at,
    last_failed_at)
VALUES (%(letter_id)s, %(command_id)s, %(unit_id)s, %(partition)s, %(stream)s, %(block_id)s, %(seq)s, %(type)s,
    %(reason)s, %(error_type)s, %(error_stack)s, %(fingerprint)s, %(origin)s, %(code_version)s, %(envelope)s,
    %(sealed)s, %(subject)s, %(failed_at)s, %(failed_at)s)
ON CONFLICT (letter_id) DO UPDATE SET
    attempts = l.attempts + (l.last_failed_at < EXCLUDED.last_failed_at)::int,
    reason = EXCLUDED.reason, error_type = EXCLUDED.error_type, error_stack = EXCLUDED.error_stack,
    fingerprint = EXCLUDED.fingerprint, code_version = EXCLUDED.code_version,
    stream = coalesce(l.stream, EXCLUDED.stream), block_id = coalesce(l.block_id, EXCLUDED.block_id),
    seq = CASE WHEN l.block_id IS NULL THEN EXCLUDED.seq ELSE l.seq END,
    last_failed_at = greatest(l.last_failed_at, EXCLUDED.last_failed_at),
    status = CASE WHEN l.status = 'replaying' THEN 'replaying' ELSE 'open' END, resolution = NULL
WHERE l.reason <> ALL(%(units)s)
    OR (l.status = 'open' AND l.last_failed_at < EXCLUDED.last_failed_at AND EXCLUDED.reason <> 'unit_settled')
"""
"""A command that dies again opens its letter again. What is told of a unit command's end may come twice, and in any
order: it changes only a letter that is open, and only if it is newer."""
_SETTLED = """
UPDATE dead_letters SET status = 'replayed', resolution = %s WHERE letter_id = %s AND status = 'open'
"""
_ERASED = """
UPDATE dead_letters SET status = 'discarded', resolution = %s, sealed = NULL WHERE letter_id = %s
"""
_ANSWERED = """
UPDATE dead_letters SET status = 'replayed', resolution = 'already-applied' WHERE letter_id = %s AND status = 'open'
AND EXISTS (SELECT FROM command_receipts WHERE command_id = %s AND status <> 'failed')
"""


async def file(connection: Connection, sealer: Sealer, dead: DeadLetter) -> Letter:
    """File a letter; filing it again counts an attempt. A letter whose command has been answered is no open matter."""
    envelope, payload, subject = _parts(dead)
    command_id = envelope.get("commandId")
    unit_id = envelope.get("unitId")
    async with connection.transaction():
        sealed = None
        if payload is not None:
            await sealer.create(connection, {subject: unit_id or "-"})
            if sealer.holds(subject):
                sealed = sealer.seal(subject, letter_place(dead.letter_id), {"payload": payload})
        await connection.execute(
            _FILE,
            {
                "letter_id": dead.letter_id,
                "command_id": command_id,
                "unit_id": unit_id,
                "partition": dead.partition,
                "stream": dead.stream,
                "block_id": dead.block_id,
                "seq": dead.seq,
                "type": envelope.get("type"),
                "reason": dead.reason.value,
                "error_type": dead.error_type,
                "error_stack": dead.error_stack,
                "fingerprint": dead.fingerprint,
                "origin": dead.origin,
                "code_version": dead.code_version,
                "envelope": Jsonb(envelope),
                "sealed": sealed,
                "subject": subject,
                "failed_at": dead.failed_at,
                "units": [reason.value for reason in UNIT_REASONS],
            },
        )
        if payload is not None and sealed is None:  # about somebody who was erased
            await connection.execute(_ERASED, (ERASED, dead.letter_id))
            await release_blocks(connection)
        elif dead.reason is Reason.UNIT_SETTLED:
            settled = await connection.execute(_SETTLED, (dead.resolution, dead.letter_id))
            if settled.rowcount:
                how = dead.resolution or "-"
                await ledger.record(connection, actor="carespine", act="settled", reason=how, letter_id=dead.letter_id)
        elif command_id is not None:
            # A letter of a handler whose transaction failed afterwards, and whose retry went well, is no open matter.
            await connection.execute(_ANSWERED, (dead.letter_id, command_id))
            await release_blocks(connection)
    return await get_letter(connection, dead.letter_id)


async def list_letters(
    connection: Connection,
    *,
    status: Status | None = "open",
    reasons: Collection[str] | None = None,
    unit_id: str | None = None,
    cursor: UUID | None = None,
    limit: int = 50,
) -> list[Letter]:
    """Letters, oldest first, of any of these reasons; `cursor` is the last letter id of the page before."""
    async with connection.cursor(row_factory=class_row(Letter)) as rows:
        await rows.execute(
            # The column list is ours, not input.
            f"SELECT {_COLUMNS} FROM dead_letters l WHERE (%(status)s::text IS NULL OR status = %(status)s) "  # noqa: S608
            "AND (%(reasons)s::text[] IS NULL OR reason = ANY(%(reasons)s)) "
            "AND (%(unit_id)s::text IS NULL OR unit_id = %(unit_id)s) "
            "AND (%(cursor)s::uuid IS NULL OR (filed_at, letter_id) > "
            "(SELECT filed_at, letter_id FROM dead_letters WHERE letter_id = %(cursor)s)) "
            "ORDER BY filed_at, letter_id LIMIT %(limit)s".encode(),
            {
                "status": status,
                "reasons": None if reasons is None else list(reasons),
                "unit_id": unit_id,
                "cursor": cursor,
                "limit": limit,
            },
        )
        return await rows.fetchall()


async def get_letter(connection: Connection, letter_id: UUID) -> Letter:
    """One letter, or `LetterNotFound`."""
    async with connection.cursor(row_factory=class_row(Letter)) as rows:
        await rows.execute(f"SELECT {_COLUMNS} FROM dead_letters l WHERE letter_id = %s".encode(), (letter_id,))  # noqa: S608
        found = await rows.fetchone()
    if found is None:
        raise LetterNotFound(str(letter_id))
    return found


async def reveal(connection: Connection, sealer: Sealer, letter_id: UUID, *, actor: str, reason: str) -> Json | None:
    """The letter's payload, opened; None when its key is gone. The look is recorded in the ledger."""
    async with connection.transaction():
        await ledger.record(connection, actor=actor, act="revealed", reason=reason, letter_id=letter_id)
    return await _payload(connection, sealer, letter_id)


async def message_of(connection: Connection, sealer: Sealer, letter: Letter) -> bytes | None:
    """The original message as it is to be sent again; None when its key is gone."""
    opened = await _payload(connection, sealer, letter.letter_id)
    if opened is None or letter.resolution == ERASED:
        return None
    if letter.is_raw:
        return base64.b64decode(str(opened["payload"]))
    return orjson.dumps({**letter.envelope, **opened})


async def discard(connection: Connection, *, letter_id: UUID, actor: str, reason: str) -> Letter:
    """Give a letter up, for good and with a reason; its stream goes on when nothing else holds it."""
    async with connection.transaction():
        updated = await connection.execute(
            "UPDATE dead_letters SET status = 'discarded', resolution = %s WHERE letter_id = %s AND status = 'open'",
            (reason, letter_id),
        )
        if updated.rowcount != 1:
            await get_letter(connection, letter_id)
            raise LetterNotOpen(str(letter_id))
        await ledger.record(connection, actor=actor, act="discarded", reason=reason, letter_id=letter_id)
        await release_blocks(connection)
    return await get_letter(connection, letter_id)


async def release_blocks(connection: Connection) -> int:
    """Let streams go on whose every letter is dealt with; returns how many. Safe against letters arriving meanwhile."""
    released = await connection.execute(
        """
        DELETE FROM stream_blocks b WHERE b.letters = (
            SELECT count(*) FROM dead_letters l WHERE l.block_id = b.block_id AND l.status IN ('replayed', 'discarded'))
        """
    )
    return released.rowcount


async def _payload(connection: Connection, sealer: Sealer, letter_id: UUID) -> Json | None:
    cursor = await connection.execute("SELECT sealed, subject FROM dead_letters WHERE letter_id = %s", (letter_id,))
    row = await cursor.fetchone()
    if row is None:
        raise LetterNotFound(str(letter_id))
    sealed, subject = row
    await sealer.load(connection, [subject])
    return sealer.unseal(subject, letter_place(letter_id), bytes(sealed)) if sealed is not None else {}


def letter_place(letter_id: UUID) -> str:
    """What a letter's payload is bound to."""
    return place(f"letter-{letter_id}", 0)


def _parts(dead: DeadLetter) -> tuple[Json, object, str]:
    """(envelope without payload, what to seal, whose key seals it)."""
    body = _body(dead)
    try:
        message = orjson.loads(body)
        envelope = {key: value for key, value in message.items() if key != "payload"}
    except (orjson.JSONDecodeError, AttributeError):
        return {"raw": len(body)}, base64.b64encode(body).decode(), DESK_SUBJECT
    payload, unit_id = message.get("payload"), envelope.get("unitId")
    if dead.reason is Reason.UNDECODABLE or not isinstance(payload, dict) or holds_nul(envelope):
        # Anything may stand in it: only what has the shape of a name of ours is kept in clear.
        known = {key: envelope[key] for key, shape in _NAMES.items() if shape.fullmatch(str(envelope.get(key)))}
        return {"raw": len(body), **known}, base64.b64encode(body).decode(), DESK_SUBJECT
    about = payload.get("patientId")
    try:
        return envelope, payload, str(UUID(about)) if isinstance(about, str) else f"unit:{unit_id}"
    except ValueError:
        return envelope, payload, f"unit:{unit_id}"


def _body(dead: DeadLetter) -> bytes:
    try:
        return base64.b64decode(dead.message, validate=True) if dead.base64 else dead.message.encode()
    except binascii.Error:
        return dead.message.encode()
