"""Sealing: opens where it was sealed and nowhere else, and never again once the key is destroyed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import psycopg
import pytest

from contracts.ids import PatientId
from contracts.patient import PatientRegistered
from infra.database import Connection, pool
from infra.event_log import StoredEvent
from infra.master_keys import MasterKey, keyed_hash
from infra.sealing import KeyNotKnown, SealBroken, Sealer, place, split
from tests.kit.commands import new_id

HIDDEN = {"lastName": "Quillfeather"}


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection]:
    """Acting as the handlers."""
    async with pool(postgres, role="handlers") as some, some.connection() as connection:
        yield connection


def stored(sealed: bytes, *, subject: str = "p1", version: int = 1) -> StoredEvent:
    """An event as the log has it."""
    now = datetime.now(UTC)
    return StoredEvent(
        0,
        1,
        "u1",
        "patient-p1",
        version,
        "t",
        1,
        {"gender": "other"},
        sealed,
        subject,
        new_id(),
        None,
        "c",
        {},
        now,
        now,
    )


async def test_what_was_sealed_opens_in_another_process_with_the_same_master_key(connection: Connection) -> None:
    master = MasterKey(os.urandom(32))
    writer, reader = Sealer(master), Sealer(master)
    await writer.create(connection, {"p1": "u1"})
    sealed = writer.seal("p1", place("patient-p1", 1), HIDDEN)

    (opened,) = await reader.open(connection, [stored(sealed)])

    assert opened.payload == {"gender": "other", **HIDDEN}
    assert not opened.erased
    assert b"Quill" not in sealed


async def test_what_was_sealed_in_one_place_does_not_open_in_another(connection: Connection) -> None:
    sealer = Sealer(MasterKey(os.urandom(32)))
    await sealer.create(connection, {"p1": "u1", "p2": "u1"})
    sealed = sealer.seal("p1", place("patient-p1", 1), HIDDEN)

    for moved in (stored(sealed, version=2), stored(sealed, subject="p2"), stored(sealed[:-1] + b"x")):
        with pytest.raises(SealBroken):
            await sealer.open(connection, [moved])


async def test_a_destroyed_key_leaves_the_clear_fields_and_says_so(connection: Connection, postgres: str) -> None:
    master = MasterKey(os.urandom(32))
    sealer = Sealer(master)
    await sealer.create(connection, {"p1": "u1"})
    sealed = sealer.seal("p1", place("patient-p1", 1), HIDDEN)
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("DELETE FROM subject_keys")

    (opened,) = await Sealer(master).open(connection, [stored(sealed)])

    assert opened.erased
    assert opened.payload == {"gender": "other"}


async def test_a_key_of_another_master_key_is_trouble_that_names_the_key(connection: Connection) -> None:
    sealer = Sealer(MasterKey(os.urandom(32)))
    await sealer.create(connection, {"p1": "u1"})
    sealed = sealer.seal("p1", place("patient-p1", 1), HIDDEN)

    with pytest.raises(KeyNotKnown, match=sealer.master.id):
        await Sealer(MasterKey(os.urandom(32))).open(connection, [stored(sealed)])


async def test_after_a_change_of_master_key_the_retired_one_still_opens(connection: Connection) -> None:
    old, new = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    sealer = Sealer(old)
    await sealer.create(connection, {"p1": "u1"})
    sealed = sealer.seal("p1", place("patient-p1", 1), HIDDEN)

    (opened,) = await Sealer(new, retired=[old]).open(connection, [stored(sealed)])

    assert opened.payload["lastName"] == "Quillfeather"


async def test_two_processes_making_a_key_for_one_person_end_with_the_same(connection: Connection) -> None:
    master = MasterKey(os.urandom(32))
    one, other = Sealer(master), Sealer(master)
    await one.create(connection, {"p1": "u1"})
    await other.create(connection, {"p1": "u1"})

    sealed = other.seal("p1", place("patient-p1", 1), HIDDEN)

    assert one.unseal("p1", place("patient-p1", 1), sealed) == HIDDEN


def test_a_word_is_split_by_the_types_of_its_fields() -> None:
    word = PatientRegistered(
        patient_id=PatientId(new_id()),
        medical_record_number="MRN-1",
        first_name="Zoraida",
        last_name="Quillfeather",
        date_of_birth=date(1984, 2, 29),
    )

    clear, hidden = split(word, word.to_dict())

    assert sorted(clear) == ["gender", "patientId"]
    assert sorted(hidden or {}) == ["dateOfBirth", "firstName", "lastName", "medicalRecordNumber"]


async def test_a_keyed_hash_tells_equal_from_different_and_stays_when_the_master_key_changes(
    connection: Connection, postgres: str
) -> None:
    old, new = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    before, after = Sealer(old), Sealer(new, retired=[old])
    await before.ready(connection)
    await after.ready(connection)

    assert before.hashed("u1", "mrn", "MRN-1") == after.hashed("u1", "mrn", "MRN-1")
    assert before.hashed("u1", "mrn", "MRN-1") != before.hashed("u1", "mrn", "MRN-2")
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("DELETE FROM subject_keys")
    other = Sealer(new)
    await other.ready(connection)
    assert other.hashed("u1", "mrn", "MRN-1") != before.hashed("u1", "mrn", "MRN-1")


async def test_hashes_of_an_installation_older_than_the_hashing_key_still_hold(connection: Connection) -> None:
    old, new = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    await Sealer(old).create(connection, {"p1": "u1"})
    sealer = Sealer(new, retired=[old])
    await sealer.ready(connection)
    assert sealer.hashed("u1", "mrn", "MRN-1") == keyed_hash(old.first_hashing, "u1", "mrn", "MRN-1")
