"""Commands to units and live calls: witnesses of the way, and the bridge's part played on the real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import psycopg
import pytest

from contracts.identity import Role
from contracts.live_call import CallOff, LiveAnswer, LiveCall
from contracts.routing import COMMANDS, EVENTS, call_key, call_off_key
from infra.broker.connection import BrokerConnection
from infra.broker.consumer import Delivery, consume
from infra.broker.private_queue import declare_private
from infra.broker.publisher import Publisher
from tests.gateway.conftest import Clinic, JsonObject, problem

Unit = Callable[[LiveCall], LiveAnswer | None]


@asynccontextmanager
async def connected(clinic: Clinic, unit: Unit, name: str = "*") -> AsyncIterator[list[LiveCall]]:
    """A bridge that holds the clinic's link: calls go to `unit`, its answers back. Gives the calls as they come."""
    url = clinic.network.installed.rabbitmq_url
    asked: list[LiveCall] = []
    async with Publisher(url, name="test.bridge") as publisher:
        await publisher.until_up()
        connection = await BrokerConnection.open(url, name="test.bridge")
        try:
            queue = await declare_private(connection, f"bridge.{clinic.unit_id}")
            rpc = (await connection.channel()).rpc
            await rpc.queue_bind(queue, COMMANDS, call_key(clinic.unit_id, name))

            def delivered(delivery: Delivery) -> None:
                call = LiveCall.model_validate_json(delivery.body)
                asked.append(call)
                answer, reply_to = unit(call), delivery.properties.reply_to
                if answer is not None and reply_to is not None:
                    publisher.publish_nowait("", reply_to, answer.to_json(), correlation_id=str(call.call_id))

            await consume(connection, queue, no_ack=True, on_delivery=delivered)
            yield asked
        finally:
            await connection.close()


async def test_a_unit_that_is_not_connected_is_said_so_at_once(clinic: Clinic) -> None:
    answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/waiting-room", json={})
    problem(answer, 503, "unit_not_connected")
    assert answer.headers["Retry-After"]


async def test_a_connected_unit_answers_a_call(clinic: Clinic) -> None:
    def unit(call: LiveCall) -> LiveAnswer:
        return LiveAnswer(call_id=call.call_id, ok=True, body={"echo": call.body, "name": call.name})

    async with connected(clinic, unit):
        answer = await clinic.api.post(
            f"/api/units/{clinic.unit_id}/calls/waiting-room", json={"department": "general"}
        )

    assert (answer.status_code, answer.json()) == (200, {"echo": {"department": "general"}, "name": "waiting-room"})


async def test_a_number_too_large_for_others_is_told_as_text(clinic: Clinic) -> None:
    async with connected(
        clinic, lambda call: LiveAnswer(call_id=call.call_id, ok=True, body={"small": 2**63, "large": 10**30})
    ):
        answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/stock")

    assert (answer.status_code, answer.json()) == (200, {"small": 2**63, "large": str(10**30)})


async def test_a_unit_that_says_no_is_a_bad_gateway_with_its_code(clinic: Clinic) -> None:
    async with connected(clinic, lambda call: LiveAnswer(call_id=call.call_id, ok=False, code="no_such_call")):
        answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/anything")

    assert problem(answer, 502, "unit_call_failed")["unitCode"] == "no_such_call"


async def test_a_unit_that_does_not_answer_in_time_is_a_timeout(clinic: Clinic) -> None:
    async with connected(clinic, lambda call: None) as asked:
        answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/ping", headers={"Prefer": "wait=1"})

    problem(answer, 504, "unit_call_timeout")
    assert timedelta(0) < datetime.now(UTC) - asked[0].deadline < timedelta(seconds=10), "nobody works for the past"


async def test_a_caller_who_leaves_calls_the_question_off(clinic: Clinic) -> None:
    heard = asyncio.Event()
    off: list[CallOff] = []
    connection = await BrokerConnection.open(clinic.network.installed.rabbitmq_url, name="test.off")
    try:
        queue = await declare_private(connection, f"off.{clinic.unit_id}")
        rpc = (await connection.channel()).rpc
        await rpc.queue_bind(queue, EVENTS, call_off_key(clinic.unit_id))

        def called_off(delivery: Delivery) -> None:
            off.append(CallOff.model_validate_json(delivery.body))
            heard.set()

        await consume(connection, queue, no_ack=True, on_delivery=called_off)
        async with connected(clinic, lambda call: None) as asked:
            path = f"/api/units/{clinic.unit_id}/calls/ping"
            with pytest.raises(httpx.ReadTimeout):
                await clinic.api.post(path, headers={"Prefer": "wait=30"}, timeout=1)
            async with asyncio.timeout(5):
                await heard.wait()
    finally:
        await connection.close()

    assert [one.call_id for one in off] == [asked[0].call_id]


async def test_many_calls_at_once_each_get_their_own_answer(clinic: Clinic) -> None:
    def unit(call: LiveCall) -> LiveAnswer:
        return LiveAnswer(call_id=call.call_id, ok=True, body=call.body)

    async with connected(clinic, unit):
        path = f"/api/units/{clinic.unit_id}/calls/statistics"
        answers = await asyncio.gather(*(clinic.api.post(path, json={"number": number}) for number in range(50)))

    assert [answer.json()["number"] for answer in answers] == list(range(50))


async def test_calls_are_named_as_routing_keys_allow(clinic: Clinic) -> None:
    for name in ("Ping", "a.b", "x" * 41, "%23", "*"):
        problem(await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/{name}"), 400, "validation_failed")


async def test_a_call_takes_objects_only(clinic: Clinic) -> None:
    path = f"/api/units/{clinic.unit_id}/calls/ping"
    json = {"Content-Type": "application/json"}
    problem(await clinic.api.post(path, content=b"[1]", headers=json), 400, "validation_failed")
    problem(await clinic.api.post(path, content=b"{", headers=json), 400, "malformed_json")


async def test_operators_may_only_ask_what_tells_of_no_patient(clinic: Clinic) -> None:
    operator = clinic.role(Role.OPS)
    path = f"/api/units/{clinic.unit_id}/calls"
    problem(await clinic.api.post(f"{path}/patient-summary", headers=operator), 403, "not_allowed")
    problem(await clinic.api.post(f"{path}/ping", headers=operator), 503, "unit_not_connected")


async def test_a_command_to_a_unit_is_logged_with_a_day_to_be_done(clinic: Clinic) -> None:
    found = await queued(clinic)

    delivery = found["delivery"]
    assert (found["status"], delivery["status"], delivery["received"]) == ("accepted", "logged", False)
    left = datetime.fromisoformat(delivery["deadline"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=58) < left <= timedelta(hours=24)


async def test_a_command_on_the_agents_disk_is_received(clinic: Clinic) -> None:
    found = await queued(clinic)
    acknowledged(clinic, found["position"])

    delivery = (await clinic.api.get(f"/api/commands/{found['commandId']}")).json()["delivery"]

    assert (delivery["status"], delivery["received"]) == ("received", True)


async def test_a_command_that_the_unit_has_done_is_applied(clinic: Clinic) -> None:
    found = await queued(clinic)
    report = {"unitCommandId": found["commandId"], "applied": True, "result": {"orderNumber": "7"}}
    answer = await clinic.api.post(
        "/api/commands",
        json={"type": "unit_command.ReportUnitCommand", "payload": report},
        headers=clinic.role(Role.UNIT),
    )
    assert answer.status_code == 200, answer.text
    position = {"position": answer.headers["Carespine-Position"]}

    status = (await clinic.api.get(f"/api/commands/{found['commandId']}", params=position)).json()
    listed = (await clinic.api.get(f"/api/units/{clinic.unit_id}/commands")).json()["items"]
    to_operators = await clinic.api.get(f"/api/units/{clinic.unit_id}/commands", headers=clinic.role(Role.OPS))

    assert status["delivery"]["status"] == "applied"
    assert [(one["id"], one["result"]) for one in listed] == [(found["commandId"], {"orderNumber": "7"})]
    assert [one["result"] for one in to_operators.json()["items"]] == [None]


async def test_a_command_can_be_called_off(clinic: Clinic) -> None:
    found = await queued(clinic)
    path = f"/api/units/{clinic.unit_id}/commands/{found['commandId']}/cancel"

    first = await clinic.api.post(path, json={"reason": "by mistake"})
    problem(
        await clinic.api.post(f"/api/units/{clinic.unit_id}/commands/{clinic.unit_id}/cancel"), 400, "validation_failed"
    )

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")


async def test_a_deadline_in_the_past_is_refused(clinic: Clinic) -> None:
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/commands", json={"type": "ping", "deadline": past})
    problem(answer, 422, "deadline_in_past")


async def report(clinic: Clinic, unit_command_id: str, **said: object) -> dict[str, str]:
    """The unit's own word; the position at which it can be seen."""
    answer = await clinic.api.post(
        "/api/commands",
        json={"type": "unit_command.ReportUnitCommand", "payload": {"unitCommandId": unit_command_id, **said}},
        headers=clinic.role(Role.UNIT),
    )
    assert answer.status_code == 200, answer.text
    return {"position": answer.headers["Carespine-Position"]}


async def test_every_state_has_its_witness(clinic: Clinic) -> None:
    found = await queued(clinic)
    received(clinic, found["commandId"], epoch=7)
    position = await report(clinic, found["commandId"], applied=True, result={"orderNumber": "7"})

    delivery = (await clinic.api.get(f"/api/commands/{found['commandId']}", params=position)).json()["delivery"]

    witnesses = [(one["state"], one["by"], one.get("position"), one.get("epoch")) for one in delivery["witnesses"]]
    reported_at = int(position["position"].partition(":")[2])
    assert witnesses == [
        ("logged", "event store", found["position"], None),
        ("received", "agent disk", None, 7),
        ("applied", "unit", reported_at, None),
    ]
    times = [datetime.fromisoformat(one["at"]) for one in delivery["witnesses"]]
    assert times == sorted(times)


async def test_what_is_only_known_from_the_feeds_position_has_a_witness_without_a_time(clinic: Clinic) -> None:
    found = await queued(clinic)
    acknowledged(clinic, found["position"])
    delivery = (await clinic.api.get(f"/api/commands/{found['commandId']}")).json()["delivery"]
    assert delivery["witnesses"][1] == {"state": "received", "by": "agent disk", "attempt": 1}


async def test_a_newer_word_under_the_same_key_supersedes(clinic: Clinic) -> None:
    older = await queued(clinic, supersedeKey="price-list")
    newer = await queued(clinic, supersedeKey="price-list")

    ended = (await clinic.api.get(f"/api/commands/{older['commandId']}")).json()["delivery"]
    position = await report(clinic, older["commandId"], applied=True)
    late = (await clinic.api.get(f"/api/commands/{older['commandId']}", params=position)).json()["delivery"]

    assert (ended["status"], ended["supersededBy"]) == ("superseded", newer["commandId"])
    assert (late["status"], late["lateReport"]) == ("superseded", "applied")
    assert (late["witnesses"][-1]["state"], late["witnesses"][-1]["late"]) == ("applied", True)


async def test_what_was_rejected_is_tried_again_until_a_deadline_of_its_own(clinic: Clinic) -> None:
    found = await queued(clinic)
    path = f"/api/units/{clinic.unit_id}/commands/{found['commandId']}/retry"
    await report(clinic, found["commandId"], applied=False, code="no_bed")

    again = await clinic.api.post(path)
    twice = await clinic.api.post(path)
    position = {"position": again.headers["Carespine-Position"]}
    delivery = (await clinic.api.get(f"/api/commands/{found['commandId']}", params=position)).json()["delivery"]

    assert again.status_code == 200, again.text
    assert (again.json()["status"], again.json()["attempt"]) == ("queued", 2)
    assert twice.headers["Carespine-Outcome"] == "unchanged"
    assert (delivery["status"], delivery["attempt"]) == ("logged", 2)
    assert [one["state"] for one in delivery["witnesses"]] == ["logged", "rejected", "logged"]
    left = datetime.fromisoformat(delivery["deadline"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=58) < left <= timedelta(hours=24)


async def test_what_may_have_been_done_needs_a_word_more(clinic: Clinic) -> None:
    found = await queued(clinic)
    path = f"/api/units/{clinic.unit_id}/commands/{found['commandId']}/retry"
    await report(clinic, found["commandId"], applied=False, code="outcome_unknown")

    problem(await clinic.api.post(path), 409, "outcome_unknown")
    assert (await clinic.api.post(path, json={"confirm": True})).json()["attempt"] == 2
    unknown = f"/api/units/{clinic.unit_id}/commands/{uuid4()}/retry"
    problem(await clinic.api.post(unknown), 404, "unit_command_not_found")


async def test_a_full_mailbox_says_so_until_there_is_room(clinic: Clinic) -> None:
    limits = {"zone": "UTC", "currency": "EUR", "mailboxLimit": 2}
    answer = await clinic.api.put(f"/api/units/{clinic.unit_id}/settings", json=limits)
    assert answer.status_code == 200, answer.text
    first, _ = await queued(clinic), await queued(clinic)
    path = f"/api/units/{clinic.unit_id}/commands"

    assert problem(await clinic.api.post(path, json={"type": "ping"}), 409, "mailbox_full")["about"] == {"limit": "2"}
    await report(clinic, first["commandId"], applied=True)
    assert (await clinic.api.post(path, json={"type": "ping"})).status_code == 201


async def test_a_key_that_could_be_a_sentence_is_not_taken(clinic: Clinic) -> None:
    path = f"/api/units/{clinic.unit_id}/commands"
    for key in ("two words", "", "x" * 81):
        problem(await clinic.api.post(path, json={"type": "ping", "supersedeKey": key}), 400, "validation_failed")


async def queued(clinic: Clinic, **more: object) -> JsonObject:
    """A command left for the clinic: what its status says once it can be seen."""
    order = {"type": "orders.place", "payload": {"code": "24323-8"}, **more}
    answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/commands", json=order)
    assert (answer.status_code, answer.json()["status"]) == (201, "queued")
    position = {"position": answer.headers["Carespine-Position"]}
    found: JsonObject = (await clinic.api.get(answer.headers["Location"], params=position)).json()
    return found


def acknowledged(clinic: Clinic, position: int) -> None:
    """The clinic's agent has everything up to `position` on its disk, as its bridge writes it."""
    with psycopg.connect(clinic.network.installed.postgres_url, autocommit=True) as database:
        database.execute(
            "INSERT INTO unit_sessions (unit_id, epoch, bridge, connected, acked_position) "
            "VALUES (%s, 1, 'bridge', true, %s)",
            (clinic.unit_id, position),
        )


def received(clinic: Clinic, unit_command_id: str, *, epoch: int) -> None:
    """The clinic's agent has acknowledged it in this session, as its bridge writes it."""
    with psycopg.connect(clinic.network.installed.postgres_url, autocommit=True) as database:
        database.execute(
            "INSERT INTO unit_command_deliveries (unit_id, unit_command_id, attempt, epoch, sent_at, received_at) "
            "VALUES (%s, %s, 1, %s, now(), now())",
            (clinic.unit_id, unit_command_id, epoch),
        )
