"""What is true of every answer: headers, traces, health, metrics."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import httpx
import structlog

from contracts.identity import Role
from gateway.app import Parts, application
from gateway.asking import Questions
from gateway.callers import Callers
from gateway.measures import Measures
from gateway.routes.auth import Auth
from gateway.routes.dead_letters import Desk
from infra.telemetry.metrics import Metrics
from infra.tokens import Verifier, generate_key_pair, mint
from tests.gateway.conftest import Clinic, Network, person, problem

SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


async def test_every_answer_carries_the_security_headers(clinic: Clinic, anyone: httpx.AsyncClient) -> None:
    for answer in (
        await anyone.get("/health"),
        await anyone.get("/nothing"),
        await anyone.get("/openapi.json"),
        await anyone.post("/api/check-in"),
        await clinic.api.post("/api/patients", json=person()),
        await clinic.api.get("/api/patients"),
        await clinic.api.post("/api/patients", content=b"{", headers={"Content-Type": "text/html"}),
    ):
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY, answer.request.url
        assert "server" not in answer.headers


async def test_no_page_of_another_origin_is_let_in(clinic: Clinic) -> None:
    answer = await clinic.api.options(
        "/api/patients", headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in answer.headers


async def test_a_callers_trace_goes_through(clinic: Clinic) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await clinic.api.get("/nothing", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert (answer.headers["Trace-Id"], answer.json()["traceId"]) == (trace, trace)

    answer = await clinic.api.get("/nothing", headers={"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"})
    assert re.fullmatch(r"(?!0{32})[0-9a-f]{32}", answer.headers["Trace-Id"])


async def test_health_tells_time_version_and_environment(anyone: httpx.AsyncClient) -> None:
    found = (await anyone.get("/health")).json()

    assert (found["status"], found["environment"]) == ("ok", "development")
    assert found["version"]
    assert datetime.now(UTC) - datetime.fromisoformat(found["timestamp"]) < timedelta(minutes=1)
    assert found["checks"] == {"rabbitmq": "ok", "postgres": "ok"}


async def test_live_and_ready_are_answered_without_a_token(anyone: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/health/ready", "/health/startup"):
        assert (await anyone.get(path)).status_code == 200


async def test_metrics_count_by_template_and_never_by_unit_or_patient(
    clinic: Clinic, anyone: httpx.AsyncClient, network: Network
) -> None:
    patient = await clinic.patient()
    await clinic.api.get(f"/api/patients/{patient['id']}", params={"search": "Quillfeather"})
    await clinic.api.get("/api/patients/Quillfeather")
    await clinic.api.request("BREW", f"/coffee/{clinic.unit_id}")
    await anyone.get("/api/patients")

    text = (await anyone.get("/metrics")).text

    assert 'carespine_http_requests_total{code="201",method="POST",route="/api/patients"}' in text
    assert 'route="/api/patients/{patient_id}"' in text
    assert 'carespine_commands_accepted_total{context="patient",type="RegisterPatient"}' in text
    assert 'carespine_auth_failures_total{reason="missing"}' in text
    for hidden in (clinic.unit_id, patient["id"], "Quillfeather", "BREW", "coffee"):
        assert hidden not in text


async def test_a_bug_is_a_problem_and_a_log_line_that_quotes_nothing() -> None:
    private, public = generate_key_pair()
    measures = Measures(Metrics())
    callers = Callers(Verifier(public))

    class Defective:
        def __getattr__(self, name: str) -> NoReturn:
            raise RuntimeError("Quillfeather was here")

    broken: Any = Defective()  # Any: stands for whatever is asked of it
    app = application(
        Parts(
            callers=callers,
            intake=broken,
            calls=broken,
            questions=Questions(callers, broken, broken, partitions=16),
            desk=Desk(callers, broken, None),
            measures=measures,
            body_limit=1000,
            version="0",
            health=[],
            streams=broken,
            access=broken,
            auth=Auth(callers, broken, broken, None),
        )
    )
    headers = {"Authorization": f"Bearer {mint(private, role=Role.STAFF, unit='clinic-1')}"}
    transport = httpx.ASGITransport(app=app)
    with structlog.testing.capture_logs() as lines:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            hot = await client.post("/api/patients", json=person())
            cold = await client.post("/api/units", json={"name": "x"})
            question = await client.get("/api/patients")

    for answer in (hot, cold, question):
        assert "Quillfeather" not in json.dumps(problem(answer, 500, "internal_error"))
    assert [line["event"] for line in lines] == ["request_failed"] * 3
    assert "Quillfeather" not in str(lines)


async def test_what_is_not_ours_is_refused_as_a_problem(anyone: httpx.AsyncClient) -> None:
    for method in ("TRACE", "PROPFIND", "PATCH"):
        answer = await anyone.request(method, "/api/patients")
        problem(answer, 405, "method_not_allowed")
    problem(await anyone.get("/api/patients/"), 404, "not_found")
