"""A person who was erased at the centre: forgotten on the agent's disk, to the last byte, and the centre is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contracts.encounter import Triage
from contracts.ids import EncounterId, PatientId
from contracts.patient import ErasureBasis, PatientErased, PatientRegistered
from tests.kit.care import check_in, registration
from tests.kit.commands import new_id
from tests.unit_agent.told import NOON, UNIT, frame, told
from unit_agent import local_commands, outbox, site_record
from unit_agent.hl7v2 import inbox, outgoing
from unit_agent.store import Store

WORDS = (b"Zoraida", b"Quillfeather", b"MRN-gone", b"1984-02-29", b"a cough that stays")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "agent", UNIT) as one:
        inbox.prepare(one)
        outgoing.prepare(one, NOON)
        yield one


def made_here(store: Store, command: Any) -> UUID:  # Any: a command
    """A command of the site's software."""
    with store.transaction() as db:
        made = local_commands.keep_within(
            db, UNIT, command.type_name(), command.to_dict(), subject="desk", key=str(new_id()), now=NOON
        )
    return made.command_id


def on_disk(store: Store) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(store.path.parent.iterdir()))


def lived(store: Store, patient_id: PatientId, mrn: str) -> list[UUID]:
    """A person with everything an agent may keep of one."""
    register = registration(patient_id, mrn=mrn)
    visit = check_in(patient_id)
    commands = [made_here(store, register), made_here(store, visit)]
    fields = register.to_dict()
    store.take([frame(told(store.position + 1, PatientRegistered.model_validate(fields)), after=store.position)],
               head=0, now=NOON)  # fmt: skip
    with store.transaction() as db:
        db.execute(
            "INSERT INTO hl7_received VALUES ('a', ?, 'd', 'A28', ?, '[]', ?, ?)",
            (new_id().hex, NOON.isoformat(), str(patient_id), json.dumps(fields).encode()),
        )
        db.execute("INSERT INTO hl7_patients VALUES (?, ?)", (mrn, str(patient_id)))
        db.execute(
            "INSERT INTO hl7_to_send (position, control_id, fact, patient_id, content) VALUES (1, ?, 'f', ?, ?)",
            (new_id().hex, str(patient_id), json.dumps(fields)),
        )
    return commands


def erase(store: Store, patient_id: PatientId) -> None:
    fact = told(store.position + 1, PatientErased(patient_id=patient_id, basis=ErasureBasis.PERSON_ASKED))
    store.take([frame(fact, after=store.position)], head=0, now=NOON)


def test_nothing_of_the_person_is_left_on_disk_and_the_centre_is_told(store: Store) -> None:
    gone = PatientId(new_id())
    commands = lived(store, gone, "MRN-gone")
    assert all(word in on_disk(store) for word in WORDS)

    erase(store, gone)

    content = on_disk(store)
    assert [word for word in WORDS if word in content] == []
    record = site_record.patient_summary(store.db, str(gone))
    assert record is not None
    assert record["erased"] is True
    for command_id in commands:
        status = outbox.status(store.db, str(command_id))
        assert status is not None
        assert (status["status"], status.get("code")) in {("refused", "patient_erased"), ("accepted", None)}
    (report,) = [one for one in outbox.waiting(store.db, after=0, limit=10) if one.type == "patient.ReportErasure"]
    assert report.payload == {
        "patientId": str(gone),
        "counts": {
            "patients": 1,
            "commands made here": 2,
            "hl7 received": 1,
            "hl7 numbers": 1,
            "hl7 to send": 1,
        },
    }


def test_others_are_untouched_and_nobody_is_forgotten_twice(store: Store) -> None:
    gone, other = PatientId(new_id()), PatientId(new_id())
    lived(store, gone, "MRN-gone")
    lived(store, other, "MRN-other")
    before = site_record.patient_summary(store.db, str(other))
    kept = [dict(row) for row in store.db.execute("SELECT * FROM hl7_received WHERE patient_id = ?", (str(other),))]

    erase(store, gone)
    erase(store, gone)

    assert site_record.patient_summary(store.db, str(other)) == before
    assert kept == [
        dict(row) for row in store.db.execute("SELECT * FROM hl7_received WHERE patient_id = ?", (str(other),))
    ]
    assert store.db.execute("SELECT count(*) FROM outbox WHERE type = 'patient.ReportErasure'").fetchone()[0] == 1
    assert b"MRN-other" in on_disk(store)


def test_a_file_that_could_not_be_scrubbed_is_scrubbed_later(store: Store) -> None:
    gone = PatientId(new_id())
    lived(store, gone, "MRN-gone")
    with store.transaction():
        store.db.execute("INSERT INTO state VALUES ('scrub_due', 1)")
    assert store.scrub()
    assert store.db.execute("SELECT value FROM state WHERE key = 'scrub_due'").fetchone()[0] == 0


def test_an_encounter_named_in_a_command_names_the_person_too(store: Store) -> None:
    gone = PatientId(new_id())
    lived(store, gone, "MRN-gone")
    visit = store.db.execute("SELECT encounter_id FROM provisional_encounters").fetchone()[0]
    triage = made_here(store, Triage(encounter_id=EncounterId(UUID(visit)), acuity=3, note="looks pale indeed"))
    erase(store, gone)
    assert b"looks pale indeed" not in on_disk(store)
    status = outbox.status(store.db, str(triage))
    assert status is not None
    assert status["code"] == "patient_erased"
