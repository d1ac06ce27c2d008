"""After an erasure: a search through every byte that Postgres, RabbitMQ and the unit's agent have on their disks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from infra.erasure.scrubbing import scrub
from infra.services.launcher import Services
from infra.services.rabbitmq import PrivateRabbitMQ
from projections.catalogue import READ_MODELS
from tests.erasure.conftest import Clinic, running_clinic
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.processes import installation

GONE = {"firstName": "Xanthippolyta", "lastName": "Quetzalmoor", "dateOfBirth": "1931-07-19"}
OTHER = {"firstName": "Yolandrina", "lastName": "Brackenfeld", "dateOfBirth": "1942-11-03"}
CONTACT = {"phone": "+49 30 5550199", "line": "7 Wexelford Yard", "city": "Trabnitz"}
WORDS = ("Xanthippolyta", "Quetzalmoor", "xanthippolyta", "1931-07-19", "MRN-gone-77", "5550199", "Wexelford",
         "a wheeze since Candlemas", "seemed wan and gaunt", "Ring the niece about it")  # fmt: skip


def holding(folders: Iterable[Path], word: str) -> list[str]:
    """Files in which the word stands, as text of one or of two bytes a character."""
    found = []
    for folder in folders:
        for file in folder.rglob("*"):
            with contextlib.suppress(OSError):  # gone since
                if file.is_file() and not file.is_symlink():
                    content = file.read_bytes()
                    if word.encode() in content or word.encode("utf-16-le") in content:
                        found.append(str(file.relative_to(folder)))
    return found


@pytest.fixture
async def clinic(breakable_services: Services, tmp_path: Path) -> AsyncIterator[Clinic]:
    """On servers of our own, whose files may be looked through."""
    with (
        fresh_database(breakable_services.postgres_url) as postgres,
        fresh_virtual_host(breakable_services) as rabbitmq,
        installation(postgres, rabbitmq, tmp_path) as one,
    ):
        async with running_clinic(one, postgres) as clinic:
            yield clinic


async def in_care(clinic: Clinic, person: dict[str, str], mrn: str, words: tuple[str, str, str]) -> str:
    reason, note, title = words
    told = {**person, "medicalRecordNumber": mrn, "contact": CONTACT if person is GONE else {}}
    patient = str((await clinic.done("POST", "/api/patients", **told))["id"])
    about = {"patientId": patient, "department": "general", "priority": "routine", "reason": reason}
    visit = await clinic.done("POST", "/api/check-in", **about)
    await clinic.done("POST", f"/api/encounters/{visit['encounterId']}/triage", acuity=3, note=note)
    await clinic.done("POST", "/api/tasks", kind="call-back", title=title, patientId=patient)
    return patient


def tables(clinic: Clinic) -> dict[str, list[tuple[object, ...]]]:
    names = [table.name for model in READ_MODELS for table in model.tables]
    return {
        name: sorted(clinic.database.execute(f"SELECT * FROM {name}".encode()).fetchall(), key=repr)  # noqa: S608
        for name in names
    }


@pytest.mark.faults
async def test_no_byte_of_the_person_is_left_and_everybody_else_is_untouched(
    clinic: Clinic, breakable_services: Services
) -> None:
    rabbitmq = breakable_services.rabbitmq
    if breakable_services.postgres is None or not isinstance(rabbitmq, PrivateRabbitMQ):
        pytest.skip("looks through the files of servers on this machine")
    gone = await in_care(clinic, GONE, "MRN-gone-77", WORDS[-3:])
    other = await in_care(clinic, OTHER, "MRN-other-88", ("a limp", "cheerful", "Send the letter"))
    await clinic.everything_visible()
    clinic.database.execute("ANALYZE")
    row = clinic.database.execute("SHOW data_directory").fetchone()
    assert row is not None
    places = [Path(row[0]), rabbitmq.home / "data"]
    for place in places:
        assert holding([place], "Quetzalmoor"), "the search finds nothing even before the erasure"
    events = clinic.database.execute("SELECT * FROM events ORDER BY partition, position").fetchall()

    await clinic.done("POST", f"/api/patients/{gone}/erasure", basis="person-asked")
    report = await clinic.erased(gone)
    assert report["keysDestroyed"] == 1

    after = clinic.database.execute("SELECT * FROM events ORDER BY partition, position").fetchall()
    assert [event for event in after if event[5] != "patient.PatientErased"] == events
    shown = (await clinic.api.get(f"/api/patients/{other}")).json()
    assert (shown["lastName"], shown["medicalRecordNumber"]) == ("Brackenfeld", "MRN-other-88")

    assert holding(places, "Quetzalmoor"), "then there would be nothing for the procedure to do"
    # The stated procedure: Postgres' files are scrubbed, the broker's drained queues are made anew.
    for one in clinic.installed.started.values():
        one.stop()
    assert await asyncio.to_thread(lambda: list(scrub(clinic.installed.postgres_url)))
    await asyncio.to_thread(clinic.forget_broker, breakable_services)

    assert {word: found for word in WORDS if (found := holding(places, word))} == {}
    assert holding(places[:1], "Brackenfeld")

    # Every read model can still be made from the log, and comes to the same.
    stood = tables(clinic)
    await clinic.rebuild_all()
    assert tables(clinic) == stood
