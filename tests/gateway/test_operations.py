"""Operators: links, progress, refusals, dead letters, replays and the ledger."""

from __future__ import annotations

from contracts.identity import Role
from tests.gateway.conftest import DEFECTIVE, Clinic, JsonObject, problem
from tests.kit.waiting import eventually

DECEASED = {"deceasedAt": "2026-11-20T04:30:00Z"}


async def dead(clinic: Clinic) -> JsonObject:
    """A command that could not be handled: the problem its caller was told."""
    patient = await clinic.patient()
    path, headers = f"/api/patients/{patient['id']}/deceased", {"Prefer": "wait=20"}
    answer = await clinic.api.post(path, json=DECEASED, headers=headers)
    return {**problem(answer, 500, "dead_lettered"), "patientId": patient["id"]}


async def filed(clinic: Clinic, letter_id: str) -> JsonObject:
    """The letter, once the desk has filed it."""

    async def look() -> JsonObject | None:
        answer = await clinic.api.get(f"/ops/dead-letters/{letter_id}", headers=clinic.role(Role.OPS))
        return answer.json() if answer.status_code == 200 else None

    found = await eventually(look, within=20)
    assert found is not None
    return found


async def test_a_command_that_cannot_be_handled_is_kept_and_its_caller_told(clinic: Clinic) -> None:
    told = await dead(clinic)

    letter = await filed(clinic, told["deadLetterId"])

    assert (letter["commandId"], letter["type"], letter["status"]) == (told["commandId"], DEFECTIVE, "open")
    assert letter["unitId"] == clinic.unit_id
    assert "payload" not in letter
    assert DECEASED["deceasedAt"] not in str(letter)
    status = (await clinic.api.get(f"/api/commands/{told['commandId']}")).json()
    assert (status["status"], status["deadLetterId"]) == ("failed", told["deadLetterId"])


async def test_a_payload_is_shown_for_a_reason_that_the_ledger_keeps(clinic: Clinic) -> None:
    told = await dead(clinic)
    await filed(clinic, told["deadLetterId"])
    path, operator = f"/ops/dead-letters/{told['deadLetterId']}/reveal", clinic.role(Role.OPS)

    problem(await clinic.api.post(path, json={}, headers=operator), 400, "validation_failed")
    shown = await clinic.api.post(path, json={"reason": "looking for the cause"}, headers=operator)

    assert shown.json()["payload"]["patientId"] == told["patientId"]
    entries = (await clinic.api.get("/ops/ledger", params={"limit": 200}, headers=operator)).json()["items"]
    assert ("revealed", "looking for the cause") in {
        (entry["act"], entry["reason"]) for entry in entries if entry["letterId"] == told["deadLetterId"]
    }


async def test_a_replay_can_be_seen_before_it_is_run(clinic: Clinic) -> None:
    told = await dead(clinic)
    await filed(clinic, told["deadLetterId"])
    operator = clinic.role(Role.OPS)
    body = {"letterIds": [told["deadLetterId"]], "reason": "a trial", "dryRun": True}

    planned = await clinic.api.post("/ops/replays", json=body, headers=operator)

    assert (planned.status_code, planned.json()["runId"]) == (200, None)
    assert [item["letterId"] for item in planned.json()["items"]] == [told["deadLetterId"]]
    assert (await filed(clinic, told["deadLetterId"]))["status"] == "open"


async def test_a_replay_of_what_is_still_broken_comes_back_to_the_desk(clinic: Clinic) -> None:
    told = await dead(clinic)
    await filed(clinic, told["deadLetterId"])
    operator = clinic.role(Role.OPS)
    body = {"letterIds": [told["deadLetterId"]], "reason": "perhaps now"}

    run = await clinic.api.post("/ops/replays", json=body, headers=operator)
    assert run.status_code == 201

    async def done() -> JsonObject | None:
        found: JsonObject = (await clinic.api.get(run.headers["Location"], headers=operator)).json()
        return found if found["status"] != "running" else None

    found = await eventually(done, within=30)
    assert found is not None
    assert [item["status"] for item in found["items"]] == ["failed"]
    listed = (await clinic.api.get("/ops/replays", headers=operator)).json()["items"]
    assert run.json()["runId"] in {one["runId"] for one in listed}


async def test_a_letter_can_be_given_up_once(clinic: Clinic) -> None:
    told = await dead(clinic)
    await filed(clinic, told["deadLetterId"])
    path, operator = f"/ops/dead-letters/{told['deadLetterId']}/discard", clinic.role(Role.OPS)

    gone = await clinic.api.post(path, json={"reason": "sent by a test system"}, headers=operator)
    assert (gone.status_code, gone.json()["status"]) == (200, "discarded")
    problem(await clinic.api.post(path, json={"reason": "once more"}, headers=operator), 409, "dead_letter_not_open")
    replay = {"letterIds": [told["deadLetterId"]], "reason": "after all"}
    problem(await clinic.api.post("/ops/replays", json=replay, headers=operator), 409, "dead_letter_not_open")

    ledger = (await clinic.api.get("/ops/ledger", params={"verify": "true"}, headers=operator)).json()
    assert ledger["firstBreak"] is None


async def test_letters_that_do_not_exist_are_not_found(clinic: Clinic) -> None:
    operator, nowhere = clinic.role(Role.OPS), "01996a40-2b6d-5e11-a0c9-1d77f2b94e60"
    problem(await clinic.api.get(f"/ops/dead-letters/{nowhere}", headers=operator), 404, "dead_letter_not_found")
    problem(await clinic.api.get(f"/ops/replays/{nowhere}", headers=operator), 404, "not_found")
    body = {"letterIds": [nowhere], "reason": "a trial"}
    problem(await clinic.api.post("/ops/replays", json=body, headers=operator), 404, "dead_letter_not_found")


async def test_letters_and_ledger_are_read_page_by_page(clinic: Clinic) -> None:
    letters = {(await filed(clinic, (await dead(clinic))["deadLetterId"]))["letterId"] for _ in range(2)}
    operator = clinic.role(Role.OPS)

    for path, key in (("/ops/dead-letters", "letterId"), ("/ops/ledger", "entry")):
        seen: list[object] = []
        query: dict[str, str | int] = {"limit": 1}
        while True:
            page = (await clinic.api.get(path, params=query, headers=operator)).json()
            seen += [item[key] for item in page["items"]]
            if page["nextCursor"] is None:
                break
            query = {"limit": 1, "cursor": page["nextCursor"]}
        assert len(seen) == len(set(map(str, seen)))
        if key == "letterId":
            assert letters <= set(map(str, seen))
        for cursor in ("AAAA", "!!"):
            problem(await clinic.api.get(path, params={"cursor": cursor}, headers=operator), 400, "cursor_invalid")


async def test_operators_see_links_progress_and_refusals(clinic: Clinic) -> None:
    refused = problem(await clinic.api.post("/api/queues/general/call-next"), 409, "queue_empty")
    operator = clinic.network.caller(Role.OPS)
    wrong = await clinic.api.get("/ops/units", params={"cursor": "!!"}, headers=operator)
    problem(wrong, 400, "cursor_invalid")

    async def listed() -> JsonObject | None:
        query: dict[str, str | int] = {"limit": 200, "connected": "false"}
        links = (await clinic.api.get("/ops/units", params=query, headers=operator)).json()["items"]
        return next((link for link in links if link["unitId"] == clinic.unit_id), None)

    link = await eventually(listed)
    assert link is not None
    assert (link["connected"], link["acknowledgedPosition"]) == (False, 0)
    progress = (await clinic.api.get("/ops/projections", headers=operator)).json()
    assert [one["partition"] for one in progress["partitions"]] == list(range(16))
    assert progress["faults"] == []
    refusals = (await clinic.api.get("/ops/refusals", headers=operator)).json()["items"]
    assert (refused["commandId"], "queue_empty") in {(one["commandId"], one["code"]) for one in refusals}
