"""The document: valid, complete, and true of what it describes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from contracts import refusals
from contracts.catalogue import COMMANDS
from contracts.envelope import Outcome
from contracts.identity import Role
from contracts.ids import fresh_command_id
from contracts.model import Refusal
from gateway.command_routes import body_of
from gateway.commands import ROWS
from gateway.problems import CONTENT_REFUSALS, KINDS, REUSED_REFUSALS, VERSION_REFUSALS, dead_lettered
from tests.gateway.conftest import Clinic, JsonObject

Operation = tuple[str, str, JsonObject]


@pytest.fixture
async def document(anyone: httpx.AsyncClient) -> JsonObject:
    """What the gateway says of itself."""
    found: JsonObject = (await anyone.get("/openapi.json")).json()
    return found


def operations(document: JsonObject) -> Iterator[Operation]:
    """Every operation: path, method and what is said of it."""
    for path, of_path in document["paths"].items():
        for method, operation in of_path.items():
            yield path, method, operation


def checker(document: JsonObject, schema: JsonObject) -> Draft202012Validator:
    """Checks values against a schema of the document."""
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


async def test_the_document_is_valid_openapi(document: JsonObject) -> None:
    validate(document)


async def test_the_problem_of_a_dead_lettered_command_is_as_the_document_says(document: JsonObject) -> None:
    outcome = Outcome(
        command_id=uuid4(),
        type="patient.UpdateDemographics",
        unit_id="north",
        status="failed",
        code="parked",
        partition=1,
        dead_letter_id=uuid4(),
    )
    told = json.loads(bytes(dead_lettered(outcome).response(instance="/api/patients", trace_id="0" * 32).body))
    checker(document, {"$ref": "#/components/schemas/ProblemDocument"}).validate(told)


async def test_every_operation_has_a_summary_an_id_of_its_own_and_problems(document: JsonObject) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations(document):
        assert operation["summary"], (method, path)
        assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
        for status, answer in operation["responses"].items():
            kinds = set(answer.get("content", {}))
            usual = "text/event-stream" if path == "/api/stream" else "application/json"
            expected = {"application/problem+json"} if status[0] in "45" else {usual}
            assert kinds == expected, (method, path, status)


async def test_every_body_and_answer_has_an_example_that_fits_its_schema(document: JsonObject) -> None:
    seen = 0
    for path, method, operation in operations(document):
        contents = [answer["content"] for answer in operation["responses"].values()]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"])
        for content in contents:
            for media in content.values():
                errors = [error.message for error in checker(document, media["schema"]).iter_errors(media["example"])]
                assert not errors, (method, path, errors)
                seen += 1
    assert seen > 300


def test_every_example_of_a_command_is_taken_by_its_model() -> None:
    for row in ROWS:
        body_of(row).model_validate(row.example)


def test_every_command_that_somebody_may_give_has_a_path() -> None:
    with_path = {row.command for row in ROWS}
    only_for_units = {"unit_command.ReportUnitCommand", "patient.ReportErasure"}
    for name, command in COMMANDS.items():
        assert (command in with_path) == bool(command.may and name not in only_for_units), name


def test_every_code_is_an_error_and_fit_for_programs() -> None:
    assert all(code == code.lower() and code.isidentifier() for code in KINDS)
    assert all(400 <= kind.status < 600 for kind in KINDS.values())


def test_every_refusal_that_has_a_status_of_its_own_exists() -> None:
    assert refusals.CommandIdReused in Refusal.__subclasses__()
    known = {refusal.code() for refusal in Refusal.__subclasses__()}
    assert known >= {*CONTENT_REFUSALS, *VERSION_REFUSALS, *REUSED_REFUSALS}


async def test_real_answers_fit_the_document(document: JsonObject, clinic: Clinic) -> None:
    seen = await clinic.checked_in()
    position = {"position": seen["position"]}
    for template, path in (
        ("/api/patients/{patientId}", f"/api/patients/{seen['patientId']}"),
        ("/api/patients", "/api/patients"),
        ("/api/patients/{patientId}/encounters", f"/api/patients/{seen['patientId']}/encounters"),
        ("/api/encounters/{encounterId}", f"/api/encounters/{seen['encounterId']}"),
        ("/api/queues/{department}", "/api/queues/general"),
        ("/api/queues", "/api/queues"),
        ("/api/units/{unitId}", f"/api/units/{clinic.unit_id}"),
        ("/api/units", "/api/units"),
        ("/api/notifications", "/api/notifications?department=general"),
    ):
        answer = await clinic.api.get(path, params=position if "?" not in path else None)
        assert answer.status_code == 200, answer.text
        schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        errors = [error.message for error in checker(document, schema).iter_errors(answer.json())]
        assert not errors, (template, errors)
    lost = await clinic.api.get("/nothing")
    problem_schema = {"$ref": "#/components/schemas/ProblemDocument"}
    assert not list(checker(document, problem_schema).iter_errors(lost.json()))


async def test_rarer_answers_fit_the_document_too(document: JsonObject, clinic: Clinic) -> None:
    operator = clinic.role(Role.OPS)
    asked = {"letterIds": [str(uuid4())], "reason": "a question"}
    department = f"/api/units/{clinic.unit_id}/departments"
    body = {"department": "er", "display": "Emergencies"}
    await clinic.api.post(department, json=body, headers=operator)
    issued = fresh_command_id(datetime.now(UTC), os.urandom(10))
    for template, method, path, content, status in (
        ("/api/commands/{commandId}", "get", f"/api/commands/{issued}", None, 200),
        ("/api/units/{unitId}/departments", "post", department, body, 200),
        ("/ops/replays", "post", "/ops/replays", asked, 404),
        ("/ops/ledger", "get", "/ops/ledger?verify=true", None, 200),
        ("/api/patients", "post", "/api/patients", {"firstName": "x" * 20_000}, 413),
    ):
        headers = None if status == 413 else operator
        answer = await clinic.api.request(method, path, json=content, headers=headers)
        assert answer.status_code == status, answer.text
        (media,) = document["paths"][template][method]["responses"][str(status)]["content"].values()
        errors = [error.message for error in checker(document, media["schema"]).iter_errors(answer.json())]
        assert not errors, (template, errors)
