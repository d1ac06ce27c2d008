"""Commands to units and live calls: witnesses of the way, and the bridge's part played on the real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from contracts.identity import Role
from contracts.live_call import LiveAnswer, LiveCall
from contracts.routing import COMMANDS, call_key
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


async def test_a_unit_that_says_no_is_a_bad_gateway_with_its_code(clinic: Clinic) -> None:
    async with connected(clinic, lambda call: LiveAnswer(call_id=call.call_id, ok=False, code="no_such_call")):
        answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/anything")

    assert problem(answer, 502, "unit_call_failed")["unitCode"] == "no_such_call"


async def test_a_unit_that_does_not_answer_in_time_is_a_timeout(clinic: Clinic) -> None:
    async with connected(clinic, lambda call: None) as asked:
        answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/calls/ping", headers={"Prefer": "wait=1"})

    problem(answer, 504, "unit_call_timeout")
    assert timedelta(0) < datetime.now(UTC) - asked[0].deadline < timedelta(seconds=10), "nobody works for the past"


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


async def queued(clinic: Clinic) -> JsonObject:
    """A command left for the clinic: what its status says once it can be seen."""
    answer = await clinic.api.post(
        f"/api/units/{clinic.unit_id}/commands", json={"type": "orders.place", "payload": {"code": "24323-8"}}
    )
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
