"""Input that is wrong: each gets a clear answer, nothing of it comes back or is kept, and the gateway goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.identity import Role
from tests.gateway.conftest import Clinic, Network, arrival, person, problem

JSON = {"Content-Type": "application/json"}
SECRET = "Zebedee-Unrepeatable"
"""A value that must never come back in a problem."""


async def test_malformed_json_is_said_to_be_malformed(clinic: Clinic) -> None:
    for raw in (b"{", b"", b"\xff\xfe{}", b'{"firstName": "Ana",}', b"null x", b'{"a": "\\ud800"}'):
        problem(await clinic.api.post("/api/patients", content=raw, headers=JSON), 400, "malformed_json")


async def test_json_that_is_no_object_is_refused(clinic: Clinic) -> None:
    for raw in (b"[]", b"null", b'"text"', b"7"):
        problem(await clinic.api.post("/api/patients", content=raw, headers=JSON), 400, "validation_failed")


async def test_every_wrong_field_is_named_and_none_is_repeated(clinic: Clinic) -> None:
    wrong = {
        "firstName": "",
        "lastName": SECRET * 10,
        "dateOfBirth": SECRET,
        "gender": SECRET,
        "contact": {"email": 7, "street": SECRET},
        "medicalRecordNumber": None,
        "nickname": SECRET,
    }

    found = problem(await clinic.api.post("/api/patients", json=wrong), 400, "validation_failed")

    assert {error["field"] for error in found["errors"]} == {
        "firstName", "lastName", "dateOfBirth", "gender", "contact.email", "contact.street", "medicalRecordNumber",
        "nickname",
    }  # fmt: skip
    assert SECRET not in json.dumps(found)


async def test_a_field_name_that_is_somebodys_words_is_not_repeated(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person(**{f"{SECRET} was here": True}))

    found = problem(answer, 400, "validation_failed")
    assert found["errors"] == [{"field": "(unknown)", "problem": "is not a field of this request"}]


async def test_names_in_snake_case_are_not_known(clinic: Clinic) -> None:
    wrong = {"first_name" if name == "firstName" else name: value for name, value in person().items()}
    found = problem(await clinic.api.post("/api/patients", json=wrong), 400, "validation_failed")
    assert {error["field"] for error in found["errors"]} == {"firstName", "first_name"}


async def test_ids_are_the_gateways_to_give(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person(patientId=str(uuid4())))
    problem(answer, 400, "validation_failed")


async def test_numbers_texts_and_lists_in_the_wrong_place_are_refused(clinic: Clinic) -> None:
    for wrong in (
        arrival("not-a-uuid"),
        arrival(str(uuid4()), department=["general"]),
        arrival(str(uuid4()), department="!!"),
        arrival(str(uuid4()), priority="sometime"),
        arrival(str(uuid4()), reason={"a": 1}),
        arrival(str(uuid4()), reason="x" * 501),
        {},
    ):
        problem(await clinic.api.post("/api/check-in", json=wrong), 400, "validation_failed")


async def test_a_number_is_no_date_and_true_is_no_number(clinic: Clinic) -> None:
    for born in (0, 1.5, "86400", "0"):
        found = problem(await clinic.api.post("/api/patients", json=person(dateOfBirth=born)), 400, "validation_failed")
        assert found["errors"] == [{"field": "dateOfBirth", "problem": "must be a date, YYYY-MM-DD"}]
    died = f"/api/patients/{uuid4()}/deceased"
    for at in (5, "1899999999"):
        problem(await clinic.api.post(died, json={"deceasedAt": at}), 400, "validation_failed")
    for acuity in (True, "3"):
        triage = await clinic.api.post(f"/api/encounters/{uuid4()}/triage", json={"acuity": acuity})
        assert problem(triage, 400, "validation_failed")["errors"][0]["field"] == "acuity"


async def test_an_id_in_the_address_is_named_as_the_document_names_it(clinic: Clinic) -> None:
    found = problem(await clinic.api.post("/api/encounters/abc/discharge", json={}), 400, "validation_failed")
    assert found["errors"] == [{"field": "encounterId", "problem": "must be a UUID"}]


async def test_a_nul_character_is_refused_before_it_can_do_harm(clinic: Clinic) -> None:
    raw = json.dumps(arrival(str(uuid4()), reason="a\x00b")).encode()
    problem(await clinic.api.post("/api/check-in", content=raw, headers=JSON), 400, "validation_failed")

    harmless = await clinic.checked_in(reason="the text \\u0000 written out")
    assert harmless["ticket"]


async def test_a_nul_character_anywhere_else_is_refused_too(clinic: Clinic, network: Network) -> None:
    for path in ("/api/notifications?department=er&practitioner=%00", "/api/units?search=a%00", "/api/units/a%00b"):
        problem(await clinic.api.get(path), 400, "validation_failed")
    letter, operator = f"/ops/dead-letters/{uuid4()}/discard", network.caller(Role.OPS)
    answer = await clinic.api.post(letter, json={"reason": "a test\x00"}, headers=operator)
    problem(answer, 400, "validation_failed")


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "1" + "0" * 400, "NaN", "-Infinity", "1e999"])
async def test_a_number_that_cannot_be_kept_is_refused_before_it_can_do_harm(clinic: Clinic, number: str) -> None:
    body = f'{{"type": "orders.place", "payload": {{"lines": [{{"amount": {number}}}]}}}}'
    answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/commands", content=body, headers=JSON)
    assert problem(answer, 400, "validation_failed")["errors"] == [
        {"field": "payload", "problem": "must hold only finite numbers, whole ones of at most 64 bits"}
    ]


async def test_an_instant_that_some_zone_has_no_year_for_is_refused(clinic: Clinic) -> None:
    patient = await clinic.patient()
    for instant in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        answer = await clinic.api.post(f"/api/patients/{patient['id']}/deceased", json={"deceasedAt": instant})
        problem(answer, 400, "validation_failed")


async def test_an_id_that_tells_no_day_is_no_queue_entry_s(clinic: Clinic) -> None:
    for entry_id in (uuid4(), UUID(int=(1 << 128) - 1)):
        problem(await clinic.api.get(f"/api/queues/er/entries/{entry_id}"), 404, "not_found")


async def test_an_unknown_unit_is_not_found(clinic: Clinic, network: Network) -> None:
    staff = network.caller()
    headers = {**staff, "X-Unit-Id": "nowhere-at-all"}
    problem(await clinic.api.post("/api/patients", json=person(), headers=headers), 404, "unit_not_found")


async def test_a_unit_id_that_cannot_be_one_is_refused(anyone: httpx.AsyncClient, network: Network) -> None:
    for name in ("UPPER", "a.b", "a#", "x" * 41, "ü"):
        headers = {**network.caller(), "X-Unit-Id": name.encode()}
        answer = await anyone.post("/api/patients", json=person(), headers=headers)  # type: ignore[arg-type]  # bytes
        problem(answer, 400, "validation_failed")


async def test_a_unit_named_twice_and_differently_is_refused(anyone: httpx.AsyncClient, network: Network) -> None:
    headers = {**network.caller(), "X-Unit-Id": "here"}
    problem(await anyone.post("/api/patients", json=person(unitId="there"), headers=headers), 400, "validation_failed")


async def test_an_announced_body_that_is_too_large_is_refused_unread(clinic: Clinic) -> None:
    answer = await clinic.api.post("/api/patients", json=person(firstName="x" * 20_000))

    found = problem(answer, 413, "body_too_large")
    assert (found["limit"], answer.headers["Connection"]) == (16384, "close")


async def test_a_body_that_grows_too_large_is_cut_off(clinic: Clinic) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"firstName": "'
        for _ in range(400):
            yield b"x" * 1000

    for path in ("/api/check-in", "/api/patients/search"):
        problem(await clinic.api.post(path, content=pieces(), headers=JSON), 413, "body_too_large")


async def test_other_content_types_are_refused(clinic: Clinic) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"):
        answer = await clinic.api.post("/api/patients", content=b"{}", headers={"Content-Type": kind})
        problem(answer, 415, "unsupported_media_type")
    fhir = {"Content-Type": "application/fhir+json; charset=utf-8"}
    problem(await clinic.api.post("/api/patients", content=b"{}", headers=fhir), 400, "validation_failed")


async def test_headers_that_cannot_be_read_are_refused(clinic: Clinic) -> None:
    for header in (
        {"Idempotency-Key": "x" * 201},
        {"Idempotency-Key": "with space"},
        {"If-Match": "abc"},
        {"If-Match": '"1", "2"'},
    ):
        problem(await clinic.api.post("/api/patients", json=person(), headers=header), 400, "header_invalid")


async def test_preferences_that_mean_nothing_are_ignored(clinic: Clinic) -> None:
    for prefer in ("wait", "wait=-1", "wait=soon", "", "return=minimal", "wait=99999999999"):
        answer = await clinic.api.post("/api/patients", json=person(), headers={"Prefer": prefer})
        assert answer.status_code == 201


async def test_an_unknown_path_is_a_problem_without_the_query(clinic: Clinic) -> None:
    found = problem(await clinic.api.get("/api/nothing", params={"name": SECRET}), 404, "not_found")
    assert found["instance"] == "/api/nothing"


async def test_a_wrong_method_is_told_which_are_right(clinic: Clinic) -> None:
    answer = await clinic.api.put("/api/patients", json={})
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"
    problem(await clinic.api.patch(f"/api/patients/{uuid4()}", json={}), 405, "method_not_allowed")


async def test_ids_in_paths_must_be_ids(clinic: Clinic) -> None:
    for path in ("/api/patients/7", "/api/encounters/x'--", "/api/commands/0"):
        problem(await clinic.api.get(path), 400, "validation_failed")
    problem(await clinic.api.post("/api/encounters/7/start"), 400, "validation_failed")
    problem(await clinic.api.post("/api/queues/@@/call-next"), 400, "validation_failed")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=ten", "total=perhaps", "status=asleep"])
async def test_a_question_that_cannot_be_understood_is_refused(clinic: Clinic, query: str) -> None:
    problem(await clinic.api.get(f"/api/patients?{query}"), 400, "validation_failed")


@pytest.mark.parametrize("cursor", ["x", "!!!!", "AAAA", "YXxi", "bXwwMQ", "a" * 399])
async def test_a_cursor_nobody_gave_is_refused(clinic: Clinic, cursor: str) -> None:
    problem(await clinic.api.get(f"/api/patients?cursor={cursor}"), 400, "cursor_invalid")


@pytest.mark.parametrize("position", ["1", "99:1", "1:-1", "a:b", "1:1:1", "1:" + "9" * 30])
async def test_a_position_nobody_gave_is_refused(clinic: Clinic, position: str) -> None:
    problem(await clinic.api.get("/api/patients", params={"position": position}), 400, "validation_failed")


async def test_what_looks_like_sql_is_only_a_name(clinic: Clinic) -> None:
    name = "'; DROP TABLE events; --"
    patient = await clinic.patient(lastName=name)
    found = await clinic.api.get("/api/patients", params={"search": name, "position": patient["position"]})
    assert [item["lastName"] for item in found.json()["items"]] == [name]


async def test_the_payload_of_a_named_command_is_held_to_its_shape(clinic: Clinic) -> None:
    for payload in ({}, {"patientId": str(uuid4()), "first_name": SECRET}, {**person(), "patientId": SECRET}):
        body = {"type": "patient.RegisterPatient", "payload": payload}
        found = problem(await clinic.api.post("/api/commands", json=body), 400, "validation_failed")
        assert all(error["field"].startswith("payload.") for error in found["errors"])
        assert SECRET not in json.dumps(found)


async def test_after_all_that_nothing_personal_stands_in_the_log(network: Network, clinic: Clinic) -> None:
    await clinic.api.get("/api/patients", params={"search": SECRET})
    await clinic.api.post("/api/patients/search", json={"search": SECRET})
    await clinic.api.post("/api/patients", json=person(lastName=SECRET, dateOfBirth=SECRET))

    logged = network.gateway.log_text()
    assert SECRET not in logged
    assert "Quillfeather" not in logged
    assert "request_failed" not in logged
