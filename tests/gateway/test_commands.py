"""Giving commands over HTTP: answers, waiting or not, repeating, reading what one wrote."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx

from contracts.identity import Role
from tests.gateway.conftest import Clinic, JsonObject, Network, arrival, person, problem
from tests.kit.waiting import eventually


async def test_a_registered_patient_is_answered_with_an_id_and_where_to_look(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person())

    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/patients/{answer.json()['id']}"
    assert answer.headers["Carespine-Outcome"] == "accepted"


async def test_a_position_makes_the_next_question_wait_until_it_is_visible(clinic: Clinic) -> None:
    patient = await clinic.patient(firstName="Conor", lastName="O'Brien")

    answer = await clinic.api.get(f"/api/patients/{patient['id']}", headers={"Carespine-Position": patient["position"]})

    assert answer.status_code == 200
    assert (answer.json()["lastName"], answer.headers["ETag"]) == ("O'Brien", '"1"')


async def test_checking_in_answers_with_visit_place_and_ticket(clinic: Clinic) -> None:
    patient = await clinic.patient()

    answer = await clinic.api.post("/api/check-in", json=arrival(patient["id"], department="General Medicine"))

    assert answer.status_code == 201
    assert set(answer.json()) == {"encounterId", "queueEntryId", "ticket"}
    queue = await clinic.api.get(
        "/api/queues/general-medicine", params={"position": answer.headers["Carespine-Position"]}
    )
    assert [entry["ticket"] for entry in queue.json()["entries"]] == [answer.json()["ticket"]]


async def test_a_clinic_day_from_arrival_to_discharge(clinic: Clinic) -> None:
    seen = await clinic.checked_in()

    async def ask(path: str, body: JsonObject | None = None) -> JsonObject:
        answer = await clinic.api.post(path, json=body or {})
        assert answer.status_code == 200, (path, answer.text)
        found: JsonObject = answer.json()
        return found

    called = await ask("/api/queues/general/call-next", {"counter": "Room 3"})
    entry = f"/api/queues/general/entries/{called['entryId']}"
    assert (called["patientId"], called["counter"]) == (seen["patientId"], "Room 3")
    assert (await ask(f"{entry}/recall"))["status"] == "called"
    assert (await ask(f"{entry}/no-show"))["status"] == "no-show"
    assert (await ask(f"{entry}/requeue"))["status"] == "waiting"
    assert (await ask(f"{entry}/priority", {"priority": "stat"}))["status"] == "waiting"
    assert (await ask("/api/queues/general/call-next"))["entryId"] == called["entryId"]
    assert (await ask(f"{entry}/start"))["status"] == "in-service"
    assert (await ask(f"{entry}/complete"))["status"] == "done"
    visit = f"/api/encounters/{seen['encounterId']}"
    assert (await ask(f"{visit}/triage", {"acuity": 2}))["status"] == "triaged"
    await ask(f"{visit}/location", {"room": "3"})
    assert (await ask(f"{visit}/start"))["status"] == "in-progress"
    assert (await ask(f"{visit}/discharge", {"note": "well again"}))["status"] == "finished"


async def test_a_transferred_patient_waits_in_the_other_department(clinic: Clinic) -> None:
    seen = await clinic.checked_in()

    answer = await clinic.api.post(
        f"/api/queues/general/entries/{seen['queueEntryId']}/transfer", json={"toDepartment": "radiology"}
    )

    assert answer.status_code == 200
    position = {"position": answer.headers["Carespine-Position"]}
    room = (await clinic.api.get("/api/queues/radiology", params=position)).json()
    assert [entry["id"] for entry in room["entries"]] == [answer.json()["entryId"]]


async def test_respond_async_is_answered_at_once_with_where_to_ask(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person(), headers={"Prefer": "respond-async"})

    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.headers["Preference-Applied"] == "respond-async"

    async def settled() -> JsonObject | None:
        polled = await clinic.api.get(answer.headers["Location"])
        assert polled.status_code == 200, "a poll of an accepted id is never 404"
        found: JsonObject = polled.json()
        return None if found["status"] == "pending" else found

    found = await eventually(settled)
    assert found is not None
    assert (found["status"], found["type"]) == ("accepted", "patient.RegisterPatient")


async def test_a_wait_is_applied_and_said(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person(), headers={"Prefer": "wait=10, handling=lenient"})

    assert (answer.status_code, answer.headers["Preference-Applied"]) == (201, "wait=10")


async def test_an_id_that_nobody_issued_is_not_found(clinic: Clinic) -> None:
    problem(await clinic.api.get(f"/api/commands/{uuid4()}"), 404, "not_found")


async def test_the_same_key_gets_the_first_answer_again_with_the_same_status(clinic: Clinic) -> None:
    body, key = person(), {"Idempotency-Key": f"desk/1 {uuid4()}".replace(" ", "-")}

    first = await clinic.api.post("/api/patients", json=body, headers=key)
    again = await clinic.api.post("/api/patients", json=dict(reversed(body.items())), headers=key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    assert (first.headers["Carespine-Outcome"], again.headers["Carespine-Outcome"]) == ("accepted", "unchanged")


async def test_two_requests_at_once_with_one_key_are_one_command(clinic: Clinic) -> None:
    body, key = person(), {"Idempotency-Key": str(uuid4())}

    answers = await asyncio.gather(*(clinic.api.post("/api/patients", json=body, headers=key) for _ in range(8)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_key_used_for_another_body_is_refused(clinic: Clinic) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    await clinic.api.post("/api/patients", json=person(), headers=key)

    problem(await clinic.api.post("/api/patients", json=person(), headers=key), 422, "idempotency_key_reused")


async def test_a_key_used_for_another_path_is_refused(clinic: Clinic) -> None:
    seen, key = await clinic.checked_in(), {"Idempotency-Key": str(uuid4())}
    visit = f"/api/encounters/{seen['encounterId']}"
    assert (await clinic.api.post(f"{visit}/start", json={}, headers=key)).status_code == 200

    problem(await clinic.api.post(f"{visit}/discharge", json={}, headers=key), 422, "idempotency_key_reused")


async def test_the_same_key_of_two_units_is_two_commands(clinic: Clinic, other_clinic: Clinic) -> None:
    key = {"Idempotency-Key": str(uuid4())}

    here = await clinic.api.post("/api/patients", json=person(), headers=key)
    there = await other_clinic.api.post("/api/patients", json=person(), headers=key)

    assert (here.status_code, there.status_code) == (201, 201)


async def test_a_rule_that_says_no_is_a_conflict_with_its_own_code(clinic: Clinic) -> None:
    taken = person()
    await clinic.api.post("/api/patients", json=taken)

    found = problem(
        await clinic.api.post("/api/patients", json={**person(), "medicalRecordNumber": taken["medicalRecordNumber"]}),
        409,
        "mrn_taken",
    )

    assert taken["medicalRecordNumber"] not in str(found)


async def test_calling_from_an_empty_queue_is_a_conflict(clinic: Clinic) -> None:
    problem(await clinic.api.post("/api/queues/general/call-next"), 409, "queue_empty")


async def test_what_the_path_names_and_is_not_there_is_not_found(clinic: Clinic) -> None:
    problem(await clinic.api.delete(f"/api/patients/{uuid4()}"), 404, "patient_not_found")
    problem(await clinic.api.post(f"/api/encounters/{uuid4()}/start"), 404, "encounter_not_found")
    problem(
        await clinic.api.post(f"/api/queues/general/entries/{await _entry_id(clinic)}/start"), 409, "entry_not_called"
    )


async def test_what_the_body_names_and_is_not_there_is_unprocessable(clinic: Clinic) -> None:
    problem(await clinic.api.post("/api/check-in", json=arrival(str(uuid4()))), 422, "patient_not_found")


async def test_content_that_a_rule_does_not_take_is_unprocessable(clinic: Clinic) -> None:
    problem(await clinic.api.post("/api/patients", json=person(medicalRecordNumber="not-ours")), 422, "mrn_not_valid")
    problem(await clinic.api.post("/api/patients", json=person(dateOfBirth="2099-01-01")), 422, "birth_date_in_future")


async def test_a_change_based_on_an_old_version_is_refused(clinic: Clinic) -> None:
    patient = await clinic.patient()
    path = f"/api/patients/{patient['id']}"
    changed = {"firstName": "Anna", "lastName": "Quillfeather", "dateOfBirth": "1984-02-29"}
    assert (await clinic.api.put(path, json=changed, headers={"If-Match": '"1"'})).status_code == 200

    problem(
        await clinic.api.put(path, json={**changed, "firstName": "Anne"}, headers={"If-Match": '"1"'}),
        412,
        "version_conflict",
    )


async def test_a_deactivated_patient_stays_and_can_come_back(clinic: Clinic) -> None:
    patient = await clinic.patient()
    path = f"/api/patients/{patient['id']}"

    gone = await clinic.api.delete(path)
    assert gone.json()["status"] == "inactive"
    seen = await clinic.api.get(path, params={"position": gone.headers["Carespine-Position"]})
    assert seen.json()["status"] == "inactive"
    assert (await clinic.api.post(f"{path}/reactivate")).json()["status"] == "active"


async def test_only_administrators_deactivate(clinic: Clinic) -> None:
    patient = await clinic.patient()

    for role in (Role.DOCTOR, Role.NURSE, Role.RECEPTIONIST, Role.OPS):
        answer = await clinic.api.delete(f"/api/patients/{patient['id']}", headers=clinic.role(role))
        problem(answer, 403, "not_allowed")
    assert (await clinic.api.delete(f"/api/patients/{patient['id']}", headers=clinic.role(Role.ADMIN))).is_success


async def test_any_command_can_be_given_by_its_name(clinic: Clinic) -> None:
    patient_id = str(uuid4())
    body = {"type": "patient.RegisterPatient", "payload": {"patientId": patient_id, **person()}, "origin": "import"}

    first = await clinic.api.post("/api/commands", json=body)
    again = await clinic.api.post("/api/commands", json=body)

    assert (first.status_code, first.json()) == (200, {"id": patient_id})
    assert (again.status_code, again.headers["Carespine-Outcome"]) == (200, "unchanged")


async def test_commands_of_the_system_itself_cannot_be_given(clinic: Clinic) -> None:
    payload = {"department": "general", "entryId": str(uuid4())}
    answer = await clinic.api.post("/api/commands", json={"type": "queue.CloseEntry", "payload": payload})
    problem(answer, 403, "not_allowed")


async def test_a_command_nobody_knows_is_said_to_be_unknown(clinic: Clinic) -> None:
    problem(await clinic.api.post("/api/commands", json={"type": "no.Such", "payload": {}}), 422, "command_unknown")


async def test_a_network_wide_caller_names_the_unit_in_header_or_body(
    anyone: httpx.AsyncClient, network: Network, clinic: Clinic
) -> None:
    staff = network.caller()

    by_header = await anyone.post("/api/patients", json=person(), headers={**staff, "X-Unit-Id": clinic.unit_id})
    by_body = await anyone.post("/api/patients", json=person(unitId=clinic.unit_id), headers=staff)

    assert (by_header.status_code, by_body.status_code) == (201, 201)
    problem(await anyone.post("/api/patients", json=person(), headers=staff), 400, "unit_required")


async def _entry_id(clinic: Clinic) -> str:
    return str((await clinic.checked_in())["queueEntryId"])
