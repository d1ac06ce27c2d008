"""Tasks over HTTP: given, taken, done; seen by those who may; and the task that a unit's refused command leads to."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx

from contracts.envelope import Origin, Status
from contracts.identity import Actor, Role
from contracts.queue import CallNext
from tests.gateway.conftest import Clinic, JsonObject, problem
from tests.kit.commands import Caller, new_id
from tests.kit.waiting import eventually


async def given(clinic: Clinic, **changes: object) -> tuple[str, str]:
    """A task, and the position from which on it is seen."""
    body = {"kind": "call-back", "title": "Call back about the cough", **changes}
    answer = await clinic.api.post("/api/tasks", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/api/tasks/{answer.json()['id']}"
    return answer.json()["id"], answer.headers["Carespine-Position"]


async def seen(clinic: Clinic, path: str, position: str, **asked: str) -> JsonObject:
    """What a question answers once that position is visible."""
    answer = await clinic.api.get(path, params={"position": position, **asked})
    assert answer.status_code == 200, answer.text
    found: JsonObject = answer.json()
    return found


async def test_a_task_is_given_taken_and_done(clinic: Clinic) -> None:
    patient = await clinic.patient()
    task_id, _ = await given(clinic, patientId=patient["id"], priority="high", department="General")
    nurse = clinic.role(Role.NURSE)
    answer: httpx.Response | None = None
    for action, body, status in (
        ("claim", {}, "accepted"),
        ("start", {}, "in-progress"),
        ("hold", {"reason": "no answer", "businessStatus": "waiting-for-patient"}, "on-hold"),
        ("resume", {}, "in-progress"),
        ("complete", {"outcome": "reached", "notes": "feels better"}, "completed"),
    ):
        answer = await clinic.api.post(f"/api/tasks/{task_id}/{action}", json=body, headers=nurse)
        assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text
    assert answer is not None
    position = answer.headers["Carespine-Position"]
    found = await seen(clinic, f"/api/tasks/{task_id}", position)
    assert (found["title"], found["priority"], found["department"]) == (
        "Call back about the cough",
        "urgent",
        "general",
    )
    assert (found["outcome"], found["lastWords"], found["open"]) == ("reached", "feels better", False)
    about = await seen(clinic, f"/api/patients/{patient['id']}/tasks", position)
    assert [one["id"] for one in about["items"]] == [task_id]
    again = await clinic.api.post(f"/api/tasks/{task_id}/start", headers=nurse)
    problem(again, 409, "task_final")


async def test_tasks_are_listed_by_whose_they_are_and_how_far(clinic: Clinic) -> None:
    mine, _ = await given(clinic, assignee="nurse-4")
    anybodys, position = await given(clinic, kind="fetch")
    assert [one["id"] for one in (await seen(clinic, "/api/tasks", position))["items"]] == [anybodys, mine]
    for asked, expected in (
        ({"assignee": "nurse-4"}, [mine]),
        ({"status": "requested"}, [anybodys]),
        ({"open": "true", "kind": "fetch"}, [anybodys]),
        ({"department": "er"}, []),
    ):
        assert [one["id"] for one in (await seen(clinic, "/api/tasks", position, **asked))["items"]] == expected
    first = await seen(clinic, "/api/tasks", position, limit="1")
    rest = await seen(clinic, "/api/tasks", position, limit="1", cursor=first["nextCursor"])
    assert [one["id"] for page in (first, rest) for one in page["items"]] == [anybodys, mine]
    problem(await clinic.api.get("/api/tasks", params={"status": "unheard-of"}), 400, "validation_failed")


async def test_who_may_not_see_or_do_tasks_does_not(clinic: Clinic, other_clinic: Clinic) -> None:
    task_id, position = await given(clinic)
    at = {"position": position}
    for role in (Role.RECEPTIONIST, Role.OPS):
        headers = clinic.network.caller(role, clinic.unit_id)
        problem(await clinic.api.get("/api/tasks", headers=headers), 403, "not_allowed")
        problem(await clinic.api.post(f"/api/tasks/{task_id}/claim", headers=headers), 403, "not_allowed")
    lab = clinic.role(Role.LAB_TECHNICIAN)
    problem(await clinic.api.post("/api/tasks", json={"kind": "x", "title": "y"}, headers=lab), 403, "not_allowed")
    problem(await clinic.api.get(f"/api/tasks/{task_id}", params=at, headers=lab), 404, "not_found")
    claimed = await clinic.api.post(f"/api/tasks/{task_id}/claim", headers=lab)
    at = {"position": claimed.headers["Carespine-Position"]}
    assert (await clinic.api.get(f"/api/tasks/{task_id}", params=at, headers=lab)).status_code == 200
    listed = (await clinic.api.get("/api/tasks", params={**at, "assignee": "somebody-else"}, headers=lab)).json()
    assert [one["id"] for one in listed["items"]] == [task_id], "their own, whoever they ask for"

    problem(await other_clinic.api.get(f"/api/tasks/{task_id}", params=at), 404, "not_found")
    problem(await other_clinic.api.post(f"/api/tasks/{task_id}/cancel"), 404, "task_not_found")
    assert (await other_clinic.api.get("/api/tasks", params=at)).json()["items"] == []


async def test_what_cannot_be_a_task_is_said_so(clinic: Clinic) -> None:
    async def refused(status: int, code: str, **changes: object) -> None:
        body = {"kind": "call-back", "title": "Call back", **changes}
        problem(await clinic.api.post("/api/tasks", json=body), status, code)

    await refused(422, "patient_not_found", patientId=str(new_id()))
    await refused(422, "due_in_past", dueAt="2020-01-01T00:00:00Z")
    await refused(400, "validation_failed", kind="A sentence about somebody")
    await refused(400, "validation_failed", title="")
    problem(await clinic.api.post(f"/api/tasks/{new_id()}/claim"), 404, "task_not_found")
    problem(await clinic.api.get(f"/api/tasks/{new_id()}"), 404, "not_found")


async def test_a_unit_s_refused_command_is_found_as_a_conflict(clinic: Clinic) -> None:
    here = await clinic.checked_in()
    called = await clinic.api.post("/api/queues/general/call-next")
    assert called.json()["entryId"] == here["queueEntryId"]
    async with Caller(clinic.network.installed.rabbitmq_url, instance="conflict.caller") as agent:
        outcome = await agent.tell(
            clinic.unit_id,
            CallNext.model_validate({"department": "general", "entryId": here["queueEntryId"]}),
            origin=Origin.UNIT,
            actor=Actor(subject="desk", role=Role.UNIT, unit=clinic.unit_id),
            issued_at=datetime.now(UTC),
        )
    assert (outcome.status, outcome.code) == (Status.REFUSED, "entry_not_waiting")

    async def conflicts() -> list[JsonObject]:
        found: list[JsonObject] = (await clinic.api.get("/api/tasks?kind=conflict&open=true")).json()["items"]
        return found

    [task] = await eventually(conflicts, what="the task is seen")
    assert (task["status"], task["patientId"], task["title"]) == ("requested", here["patientId"], None)
    assert (task["cause"]["commandId"], task["cause"]["code"]) == (str(outcome.command_id), "entry_not_waiting")
    assert task["cause"]["commandType"] == "queue.CallNext"
