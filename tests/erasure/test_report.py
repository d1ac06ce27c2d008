"""From the request to the signed report: what is purged, counted and said, and who may see it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from contracts.identity import Role
from infra.erasure.report import ErasureReport
from tests.erasure.conftest import UNIT, Clinic

PERSON = {"firstName": "Zoraida", "lastName": "Quillfeather", "dateOfBirth": "1984-02-29"}


async def in_care(clinic: Clinic, mrn: str) -> str:
    """A person with a visit, a note and a task."""
    patient = str((await clinic.done("POST", "/api/patients", **PERSON, medicalRecordNumber=mrn))["id"])
    about = {"patientId": patient, "department": "general", "priority": "routine", "reason": "a cough"}
    visit = await clinic.done("POST", "/api/check-in", **about)
    await clinic.done("POST", f"/api/encounters/{visit['encounterId']}/triage", acuity=3, note="looks pale")
    await clinic.done("POST", "/api/tasks", kind="call-back", title="Call her back", patientId=patient)
    return patient


def words(clinic: Clinic) -> list[tuple[Any, ...]]:
    """Everything said of anybody in the read tables."""
    return [
        *clinic.database.execute("SELECT patient_id, last_name, last_first FROM read_patients"),
        *clinic.database.execute("SELECT patient_id, reason, triage_note FROM read_encounters"),
        *clinic.database.execute("SELECT patient_id, title, description FROM read_tasks"),
    ]


async def test_an_erasure_is_carried_out_everywhere_counted_and_signed(clinic: Clinic) -> None:
    gone, other = await in_care(clinic, "MRN-1"), await in_care(clinic, "MRN-2")
    before = [row for row in words(clinic) if str(row[0]) == other]

    told = await clinic.done("POST", f"/api/patients/{gone}/erasure", basis="person-asked")
    report = await clinic.erased(gone)

    assert told == {"id": gone, "status": "erased"} | {key: told[key] for key in told if key not in ("id", "status")}
    places = {(place["place"], place["instance"]): place["count"] for place in report["places"]}
    assert places.pop(("command_receipts", "")) == 5
    for process in ("command-handlers-1", "projections-1"):
        assert ("cache", process) in places
    counts = {place: count for (place, instance), count in places.items() if not instance}
    expected = {"dead_letters": 0, "read_patients": 1, "read_encounters": 1, "read_tasks": 1, "read_unit_commands": 0}
    assert counts == expected
    assert (report["keysDestroyed"], report["awaits"], report["basis"]) == (1, [], "person-asked")
    genuine = ErasureReport.model_validate(report)
    assert genuine.is_genuine(clinic.installed.public_key)
    assert not genuine.model_copy(update={"keys_destroyed": 0}).is_genuine(clinic.installed.public_key)
    assert {row[1] for row in words(clinic) if str(row[0]) == gone} == {None}
    assert [row for row in words(clinic) if str(row[0]) == other] == before
    shown = (await clinic.api.get(f"/api/patients/{gone}")).json()
    assert (shown["erased"], shown["lastName"], shown["medicalRecordNumber"]) == (True, None, None)
    found = await clinic.api.post("/api/patients/search", json={"search": "Quill"})
    assert [one["id"] for one in found.json()["items"]] == [other]


async def test_dead_letters_of_the_person_are_given_up_and_block_nothing(clinic: Clinic) -> None:
    gone, other = await in_care(clinic, "MRN-1"), await in_care(clinic, "MRN-2")
    clinic.installed.started["command-handlers-1"].stop()
    defective = clinic.installed.start("command_handlers", CARESPINE_REHEARSE_DEFECT="patient.MarkDeceased")
    await defective.ready()
    for patient in (gone, other):
        dead = {"deceasedAt": "2026-01-01T00:00:00Z"}
        answer = await clinic.api.post(f"/api/patients/{patient}/deceased", json=dead)
        assert answer.status_code == 500, answer.text

        parked = await clinic.api.put(f"/api/patients/{patient}", json=PERSON)
        assert parked.status_code == 500, parked.text

    await clinic.done("POST", f"/api/patients/{gone}/erasure", basis="court-order")
    report = await clinic.erased(gone)

    assert {place["place"]: place["count"] for place in report["places"]}["dead_letters"] == 2
    letters = "SELECT sealed IS NULL, status, resolution FROM dead_letters WHERE subject = %s"
    assert clinic.database.execute(letters.encode(), (gone,)).fetchall() == [(True, "discarded", "erased")] * 2
    assert clinic.database.execute(letters.encode(), (other,)).fetchall() == [(False, "open", None)] * 2
    blocked = clinic.database.execute("SELECT stream FROM stream_blocks").fetchall()
    assert blocked == [(f"patient-{other}",)]


async def test_only_an_admin_of_the_unit_sees_the_report(clinic: Clinic) -> None:
    gone = await in_care(clinic, "MRN-1")
    await clinic.done("POST", f"/api/patients/{gone}/erasure", basis="person-asked")
    await clinic.erased(gone)
    path = f"/api/patients/{gone}/erasure"

    for role, unit, status in (
        (Role.ADMIN, UNIT, 200),
        (Role.NURSE, UNIT, 403),
        (Role.ADMIN, "south-clinic", 404),
        (Role.OPS, None, 403),
    ):
        headers = {"Authorization": f"Bearer {clinic.installed.token(role, unit)}"}
        assert (await clinic.api.get(path, headers=headers)).status_code == status, role
    assert (await clinic.api.get(f"/api/patients/{UUID(int=5)}/erasure")).status_code == 404


async def test_while_a_legal_hold_stands_nobody_is_erased(clinic: Clinic) -> None:
    patient = await in_care(clinic, "MRN-1")
    hold = str(UUID(int=9))
    await clinic.done("POST", f"/api/patients/{patient}/legal-holds", holdId=hold, reason="a case is open")

    refused = await clinic.api.post(f"/api/patients/{patient}/erasure", json={"basis": "person-asked"})
    assert (refused.status_code, refused.json()["code"]) == (409, "under_legal_hold")

    await clinic.done("POST", f"/api/patients/{patient}/legal-holds/{hold}/lift")
    await clinic.done("POST", f"/api/patients/{patient}/erasure", basis="person-asked")
