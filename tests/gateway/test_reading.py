"""Asking questions: pages, cursors, totals, search, positions, and rooms as they stand."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import httpx
import pytest

from tests.gateway.conftest import Clinic, JsonObject, Network, person, problem


async def registered(clinic: Clinic, *names: tuple[str, str]) -> str:
    """Patients with these first and last names; returns the position of the last."""
    position = ""
    for first, last in names:
        answer = await clinic.api.post("/api/patients", json=person(firstName=first, lastName=last))
        assert answer.status_code == 201, answer.text
        position = answer.headers["Carespine-Position"]
    return position


async def last_names(clinic: Clinic, **query: str | int) -> list[str]:
    """Last names on every page, in order."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        answer = await clinic.api.get("/api/patients", params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        found += [item["lastName"] for item in answer.json()["items"]]
        cursor = answer.json()["nextCursor"]
        if cursor is None:
            return found


async def test_pages_together_are_the_whole_list_once(clinic: Clinic) -> None:
    names = [("Ana", f"Name{number:02d}") for number in range(7)]
    position = await registered(clinic, *names)

    for limit in (1, 3, 7, 200):
        assert await last_names(clinic, limit=limit, position=position) == [last for _, last in names]


async def test_a_total_is_exact_and_only_there_when_asked_for(clinic: Clinic) -> None:
    position = await registered(clinic, ("A", "One"), ("B", "Two"), ("C", "Three"))

    page = (await clinic.api.get("/api/patients", params={"limit": 1, "position": position})).json()
    counted = (await clinic.api.get("/api/patients", params={"limit": 1, "total": "true"})).json()

    assert (page["total"], counted["total"]) == (None, 3)


async def test_patients_are_found_by_name_number_and_birth_date(clinic: Clinic) -> None:
    await registered(clinic, ("Jose", "Almeida"), ("Anna", "Müller"))
    answer = await clinic.api.post(
        "/api/patients",
        json=person(firstName="Zoë", lastName="O'Brien", dateOfBirth="1931-12-24", medicalRecordNumber="MRN-FIND-ME"),
    )
    position = answer.headers["Carespine-Position"]

    for typed, found in (
        ("alm", ["Almeida"]),
        ("muller", ["Müller"]),
        ("o'b", ["O'Brien"]),
        ("zoe", ["O'Brien"]),
        ("1931-12-24", ["O'Brien"]),
        ("MRN-FIND-ME", ["O'Brien"]),
        ("nobody", []),
    ):
        assert await last_names(clinic, search=typed, position=position) == found, typed


async def test_the_search_in_a_body_finds_what_the_one_in_the_url_finds(clinic: Clinic) -> None:
    position = await registered(clinic, ("Ana", "Samesame"), ("Bea", "Samesame"))
    await clinic.api.get("/api/patients", params={"position": position})

    in_url = await clinic.api.get("/api/patients", params={"search": "same", "limit": 1, "total": "true"})
    in_body = await clinic.api.post("/api/patients/search", json={"search": "same", "limit": 1, "total": True})

    assert in_url.json() == in_body.json()
    assert in_body.json()["total"] == 2


async def test_a_cursor_of_one_list_is_not_taken_by_another(clinic: Clinic) -> None:
    position = await registered(clinic, ("Ana", "One"), ("Bea", "Two"))
    page = (await clinic.api.get("/api/patients", params={"limit": 1, "position": position})).json()

    answer = await clinic.api.get("/api/patients", params={"cursor": page["nextCursor"], "search": "one"})
    problem(answer, 400, "cursor_invalid")


async def test_a_position_that_nobody_has_reached_is_said_to_be_ahead(clinic: Clinic) -> None:
    partition = (await clinic.patient())["position"].partition(":")[0]
    began = time.monotonic()

    answer = await clinic.api.get("/api/patients", headers={"Carespine-Position": f"{partition}:999999999"})

    problem(answer, 503, "read_model_behind")
    assert answer.headers["Retry-After"]
    assert 4 < time.monotonic() - began < 15


async def test_many_can_wait_for_positions_at_once(clinic: Clinic) -> None:
    async def write_and_read(number: int) -> JsonObject:
        patient = await clinic.patient(firstName=f"Ana{number}")
        answer = await clinic.api.get(f"/api/patients/{patient['id']}", params={"position": patient["position"]})
        assert answer.status_code == 200, answer.text
        found: JsonObject = answer.json()
        return found

    found = await asyncio.gather(*(write_and_read(number) for number in range(40)))
    assert sorted(one["firstName"] for one in found) == sorted(f"Ana{number}" for number in range(40))


async def test_a_patients_visits_are_listed_the_newest_first(clinic: Clinic) -> None:
    first = await clinic.checked_in()
    await clinic.api.post(f"/api/encounters/{first['encounterId']}/discharge")
    answer = await clinic.api.post(
        "/api/check-in", json={"patientId": first["patientId"], "department": "general", "priority": "urgent"}
    )
    position = {"position": answer.headers["Carespine-Position"]}

    visits = (await clinic.api.get(f"/api/patients/{first['patientId']}/encounters", params=position)).json()["items"]

    assert [visit["id"] for visit in visits] == [answer.json()["encounterId"], first["encounterId"]]
    assert [visit["status"] for visit in visits] == ["arrived", "finished"]
    one = await clinic.api.get(f"/api/encounters/{first['encounterId']}")
    assert one.json() == visits[1]
    still_open = (await clinic.api.get("/api/encounters", params={"department": "General"})).json()["items"]
    assert [visit["id"] for visit in still_open] == [answer.json()["encounterId"]]


async def test_a_waiting_room_is_in_the_order_of_being_called(clinic: Clinic) -> None:
    routine = await clinic.checked_in(priority="routine")
    await clinic.checked_in(priority="emergency")
    last = await clinic.checked_in(priority="high")
    position = {"position": last["position"]}

    room = (await clinic.api.get("/api/queues/general", params=position)).json()
    named = (await clinic.api.get("/api/queues/general", params={"names": "true"})).json()

    assert [(entry["priority"], entry["place"]) for entry in room["entries"]] == [
        ("stat", 1),
        ("urgent", 2),
        ("routine", 3),
    ]
    assert (room["counts"]["waiting"], room["counts"]["called"]) == (3, 0)
    assert {entry["lastName"] for entry in room["entries"]} == {None}, "a board is told no names"
    assert {entry["lastName"] for entry in named["entries"]} == {"Quillfeather"}
    one = (await clinic.api.get(f"/api/queues/general/entries/{routine['queueEntryId']}")).json()
    assert (one["id"], one["status"]) == (routine["queueEntryId"], "waiting")
    problem(await clinic.api.get(f"/api/queues/general/entries/{uuid4()}"), 404, "not_found")


async def test_departments_are_seen_at_a_glance(clinic: Clinic) -> None:
    for code in ("general", "radiology"):
        path = f"/api/units/{clinic.unit_id}/departments"
        assert (await clinic.api.post(path, json={"department": code, "display": code.title()})).status_code == 201
    await clinic.checked_in()
    last = await clinic.checked_in()

    found = (await clinic.api.get("/api/queues", params={"position": last["position"]})).json()["departments"]

    assert [(one["department"], one["display"], one["waiting"]) for one in found] == [
        ("general", "General", 2),
        ("radiology", "Radiology", 0),
    ]
    assert (found[0]["longestWaitSeconds"] > 0, found[1]["longestWaitSeconds"]) == (True, 0)


async def test_clinicians_find_that_a_patient_waits(clinic: Clinic) -> None:
    seen = await clinic.checked_in(practitionerId="dr-1", priority="urgent")
    query = {"department": "general", "position": seen["position"]}

    found = (await clinic.api.get("/api/notifications", params=query)).json()["items"]
    for_another = (await clinic.api.get("/api/notifications", params={**query, "practitioner": "dr-2"})).json()

    assert [(one["encounterId"], one["practitionerId"]) for one in found] == [(seen["encounterId"], "dr-1")]
    assert for_another["items"] == []


async def test_a_unit_is_shown_with_its_settings_and_departments(clinic: Clinic) -> None:
    path = f"/api/units/{clinic.unit_id}"
    await clinic.api.put(f"{path}/settings", json={"zone": "Europe/Berlin", "ageingMinutes": 15})
    answer = await clinic.api.post(f"{path}/departments", json={"department": "General Medicine", "display": "GM"})

    found = (await clinic.api.get(path, params={"position": answer.headers["Carespine-Position"]})).json()

    assert (found["settings"]["zone"], found["settings"]["ageingMinutes"]) == ("Europe/Berlin", 15)
    assert found["departments"] == [{"department": "general-medicine", "display": "GM"}]


async def test_a_unit_can_be_suspended_resumed_and_retired(clinic: Clinic) -> None:
    path = f"/api/units/{clinic.unit_id}"
    for action, body, status in (
        ("suspend", {"reason": "renovation"}, "suspended"),
        ("resume", {}, "active"),
        ("retire", {"reason": "closed"}, "retired"),
    ):
        answer = await clinic.api.post(f"{path}/{action}", json=body)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        shown = await clinic.api.get(path, params={"position": answer.headers["Carespine-Position"]})
        assert shown.json()["status"] == status
    problem(await clinic.api.post("/api/patients", json=person()), 409, "unit_is_retired")


@pytest.mark.parametrize(
    "path", ["/api/queues", "/api/queues/general", "/api/encounters", "/api/notifications?department=x"]
)
async def test_what_is_of_one_unit_must_name_it(anyone: httpx.AsyncClient, network: Network, path: str) -> None:
    problem(await anyone.get(path, headers=network.caller()), 400, "unit_required")
