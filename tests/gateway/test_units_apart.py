"""One unit's data is not another's: not to read, not to change, not to guess at."""

from __future__ import annotations

from uuid import uuid4

import httpx

from contracts.identity import Role
from tests.gateway.conftest import Clinic, Network, person, problem


async def test_another_units_patient_cannot_be_read(clinic: Clinic, other_clinic: Clinic) -> None:
    patient = await clinic.patient()
    position = {"position": patient["position"]}
    assert (await clinic.api.get(f"/api/patients/{patient['id']}", params=position)).status_code == 200

    there = other_clinic.api
    problem(await there.get(f"/api/patients/{patient['id']}", params=position), 404, "not_found")
    problem(await there.get(f"/api/patients/{patient['id']}/encounters", params=position), 404, "not_found")
    assert (await there.get("/api/patients", params=position)).json()["items"] == []


async def test_another_units_patient_cannot_be_changed(clinic: Clinic, other_clinic: Clinic) -> None:
    patient = await clinic.patient()

    answer = await other_clinic.api.delete(f"/api/patients/{patient['id']}")

    assert answer.status_code in (404, 409), answer.text
    seen = await clinic.api.get(f"/api/patients/{patient['id']}", params={"position": patient["position"]})
    assert seen.json()["status"] == "active"


async def test_another_units_patient_cannot_be_found(clinic: Clinic, other_clinic: Clinic) -> None:
    name = f"Hidden{uuid4().hex[:8]}"
    patient = await clinic.patient(lastName=name)
    query = {"search": name, "position": patient["position"], "total": "true"}

    assert (await clinic.api.get("/api/patients", params=query)).json()["total"] == 1
    assert (await other_clinic.api.get("/api/patients", params=query)).json()["total"] == 0
    searched = await other_clinic.api.post("/api/patients/search", json={"search": name})
    assert searched.json()["items"] == []


async def test_a_units_token_cannot_speak_for_another(clinic: Clinic, other_clinic: Clinic) -> None:
    there, name = clinic.api, other_clinic.unit_id
    named = {"X-Unit-Id": name}

    problem(await there.post("/api/patients", json=person(), headers=named), 403, "other_unit")
    problem(await there.post("/api/patients", json=person(unitId=name)), 403, "other_unit")
    problem(await there.get("/api/patients", headers=named), 403, "other_unit")
    problem(await there.get("/api/patients", params={"unit": name}), 403, "other_unit")
    problem(await there.get(f"/api/units/{name}"), 403, "other_unit")
    problem(await there.get(f"/api/units/{name}/commands"), 403, "other_unit")
    problem(await there.post(f"/api/units/{name}/commands", json={"type": "ping"}), 403, "other_unit")
    problem(await there.post(f"/api/units/{name}/calls/ping"), 403, "other_unit")
    problem(await there.put(f"/api/units/{name}/settings", json={}), 403, "other_unit")
    body = {"type": "queue.CallNext", "unitId": name, "payload": {"department": "general"}}
    problem(await there.post("/api/commands", json=body), 403, "other_unit")


async def test_what_became_of_another_units_command_stays_hidden(clinic: Clinic, other_clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person())
    path = f"/api/commands/{answer.headers['Carespine-Command']}"

    assert (await clinic.api.get(path)).json()["status"] == "accepted"
    assert (await other_clinic.api.get(path)).json() == {"commandId": path.rsplit("/", 1)[1], "status": "pending"}


async def test_a_units_token_sees_only_its_own_unit_in_the_list(clinic: Clinic, other_clinic: Clinic) -> None:
    answer = await clinic.api.post(
        "/api/units/" + clinic.unit_id + "/departments", json={"department": "x", "display": "X"}
    )
    position = {"position": answer.headers["Carespine-Position"]}

    found = (await clinic.api.get("/api/units", params=position)).json()

    assert [unit["id"] for unit in found["items"]] == [clinic.unit_id]


async def test_a_network_wide_caller_sees_all_units_or_the_one_it_names(
    anyone: httpx.AsyncClient, network: Network, clinic: Clinic, other_clinic: Clinic
) -> None:
    name, staff = f"Shared{uuid4().hex[:8]}", network.caller(Role.STAFF)
    for one in (clinic, other_clinic):
        patient = await one.patient(lastName=name)
        await anyone.get("/api/units", params={"position": patient["position"]}, headers=staff)

    query = {"search": name, "total": "true"}
    whole = await anyone.get("/api/patients", params=query, headers=staff)
    here = await anyone.get("/api/patients", params={**query, "unit": clinic.unit_id}, headers=staff)

    assert whole.json()["total"] == 2
    assert [patient["unitId"] for patient in here.json()["items"]] == [clinic.unit_id]


async def test_the_same_record_number_is_free_in_another_unit(clinic: Clinic, other_clinic: Clinic) -> None:
    body = person()
    assert (await clinic.api.post("/api/patients", json=body)).status_code == 201
    assert (await other_clinic.api.post("/api/patients", json=body)).status_code == 201
