"""Where something of a person can stand besides the log, and how it is emptied there. One place, one function.

Each may be done again and then counts again: what was purged stays purged, and its line stays a line without words.
Trails of who did what keep their lines (they name accounts, ids and codes); the place for audit records is `PLACES`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from psycopg import sql

from infra.database import Connection
from infra.dead_letters.store import DESK_SUBJECT, ERASED, letter_place, release_blocks
from infra.sealing import SealBroken, Sealer


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whose key was destroyed."""

    subject: str
    patient_id: UUID
    unit_id: str
    partition: int
    position: int
    """Of the fact."""


Purge = Callable[[Connection, Sealer, Person], Awaitable[int]]


def _read_table(table: str, *, empty: tuple[str, ...], blank: tuple[str, ...] = ()) -> Purge:
    sets = [sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in empty]
    sets += [sql.SQL("{} = ''").format(sql.Identifier(name)) for name in blank]
    statement = sql.SQL("UPDATE {} SET {}, erased = true WHERE patient_id = %s AND unit_id = %s").format(
        sql.Identifier(table), sql.SQL(", ").join(sets)
    )

    async def purge(connection: Connection, sealer: Sealer, person: Person) -> int:
        return (await connection.execute(statement, (person.patient_id, person.unit_id))).rowcount

    return purge


_STREAMS: Final = """
SELECT 'patient-' || %(patient)s::text
UNION ALL SELECT 'encounter-' || encounter_id FROM read_encounters WHERE patient_id = %(patient)s
UNION ALL SELECT 'task-' || task_id FROM read_tasks WHERE patient_id = %(patient)s
UNION ALL SELECT 'unit_command-' || unit_command_id FROM read_unit_commands
    WHERE patient_id = %(patient)s AND unit_id = %(unit)s
"""
_RECEIPTS: Final = f"""
UPDATE command_receipts r SET result = NULL, about = NULL, request_hash = 'erased'
WHERE r.unit_id = %(unit)s AND (
    r.command_id IN (SELECT command_id FROM events WHERE partition = %(partition)s AND stream IN ({_STREAMS}))
    OR (r.status = 'refused' AND r.about ->> 'patientId' = %(patient)s::text))
"""  # noqa: S608 - all ours
_LETTERS: Final = """
UPDATE dead_letters SET sealed = NULL, error_stack = NULL, envelope = envelope - 'requestHash',
    status = CASE WHEN status IN ('open', 'replaying') THEN 'discarded' ELSE status END,
    resolution = CASE WHEN status IN ('open', 'replaying') THEN %s ELSE resolution END
WHERE letter_id = ANY(%s)
"""


async def _receipts(connection: Connection, sealer: Sealer, person: Person) -> int:
    about = {"patient": person.patient_id, "unit": person.unit_id, "partition": person.partition}
    return (await connection.execute(_RECEIPTS, about)).rowcount


async def _dead_letters(connection: Connection, sealer: Sealer, person: Person) -> int:
    """Letters sealed for the person, and those of the unit or of nobody in which they are named."""
    cursor = await connection.execute("SELECT letter_id FROM dead_letters WHERE subject = %s", (person.subject,))
    found = [row[0] for row in await cursor.fetchall()]
    others = [DESK_SUBJECT, f"unit:{person.unit_id}"]
    await sealer.load(connection, others)
    cursor = await connection.execute(
        "SELECT letter_id, subject, sealed FROM dead_letters WHERE subject = ANY(%s) AND sealed IS NOT NULL "
        "AND (unit_id IS NULL OR unit_id = %s)",
        (others, person.unit_id),
    )
    async for letter_id, subject, sealed in cursor:
        if _names(sealer, subject, letter_id, bytes(sealed), str(person.patient_id)):
            found.append(letter_id)
    if found:
        await connection.execute(_LETTERS, (ERASED, found))
        await release_blocks(connection)
    return len(found)


def _names(sealer: Sealer, subject: str, letter_id: UUID, sealed: bytes, patient_id: str) -> bool:
    try:
        opened = sealer.unseal(subject, letter_place(letter_id), sealed)
    except SealBroken:  # nobody can read it, so nobody is named in it
        return False
    payload = (opened or {}).get("payload")
    written = orjson.dumps(payload)
    if isinstance(payload, str):
        with contextlib.suppress(binascii.Error):
            written += base64.b64decode(payload)
    return patient_id.encode() in written


SAYS_WHO: Final = (
    "medical_record_number", "first_name", "last_name", "date_of_birth", "contact", "room_number", "source_id",
)  # fmt: skip

PLACES: Final[Mapping[str, Purge]] = {
    # Receipts first: the person's streams are found through the read tables, whose lines stay.
    "command_receipts": _receipts,
    "dead_letters": _dead_letters,
    # With them go the search keys: both orders of the folded name.
    "read_patients": _read_table("read_patients", empty=SAYS_WHO, blank=("last_first", "first_last")),
    "read_encounters": _read_table("read_encounters", empty=("reason", "triage_note", "closing_note")),
    "read_tasks": _read_table("read_tasks", empty=("title", "description", "last_words")),
    "read_unit_commands": _read_table("read_unit_commands", empty=("result",)),
}
"""By the name in the report."""
