"""Staff at their portals, through every process: what happens over HTTP is on the screen, to whom it is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import pytest

from contracts.identity import Role
from infra.services.launcher import Services
from tests.gateway.conftest import arrival, person
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import fresh_database
from tests.kit.portals import EVERYTHING, Portal, Stream, turned_away
from tests.kit.processes import Installation, Started, installation


@dataclass
class House:
    """One of each process."""

    installed: Installation
    gateway: Started
    bridge: Started

    @property
    def portal_url(self) -> str:
        return f"ws://127.0.0.1:{self.bridge.environment['CARESPINE_BRIDGE_PORT']}/portal"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.environment['CARESPINE_HTTP_PORT']}"

    def portal(self, role: Role, unit: str | None, **hello: Any) -> Portal:  # Any: fields of the hello
        return Portal(self.portal_url, self.installed.token(role, unit), **hello)

    def client(self, role: Role = Role.STAFF, unit: str | None = None, ttl: int = 3600) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.installed.token(role, unit, ttl)}"}
        return httpx.AsyncClient(base_url=self.api_url, headers=headers, timeout=30)

    async def unit(self, unit_id: str) -> None:
        async with self.client(Role.OPS) as ops:
            answer = await ops.post("/api/units", json={"unitId": unit_id, "name": "A clinic"})
            assert answer.status_code == 201, answer.text
            ready = await ops.get(
                f"/api/units/{unit_id}", headers={"Carespine-Position": answer.headers["Carespine-Position"]}
            )
            assert ready.status_code == 200, ready.text

    async def checked_in(self, unit_id: str, department: str = "general") -> dict[str, str]:
        async with self.client(unit=unit_id) as desk:
            registered = await desk.post("/api/patients", json=person())
            assert registered.status_code == 201, registered.text
            patient_id = registered.json()["id"]
            answer = await desk.post("/api/check-in", json=arrival(patient_id, department=department))
            assert answer.status_code == 201, answer.text
            return {**answer.json(), "patientId": patient_id, "position": answer.headers["Carespine-Position"]}


@pytest.fixture(scope="module")
def house(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The whole way of a command, and of what became of it."""
    with (
        fresh_database(services.postgres_url) as postgres,
        fresh_virtual_host(services) as rabbitmq,
        installation(postgres, rabbitmq, tmp_path_factory.mktemp("portals")) as installed,
    ):
        gateway, bridge = installed.start("gateway"), installed.start("ws_bridge")
        installed.start("command_handlers"), installed.start("projections")

        async def all_ready() -> None:
            await asyncio.gather(*(one.ready() for one in installed.started.values()))

        asyncio.run(all_ready())
        yield House(installed, gateway, bridge)


async def test_a_check_in_over_http_is_on_the_board_and_notifies_the_clinician(house: House) -> None:
    await house.unit("north")
    async with house.portal(Role.DOCTOR, "north") as doctor:
        welcome = await doctor.welcomed()
        assert welcome["topics"] == ["notifications", "patient-status", "queue-board", "results", "units"]
        visit = await house.checked_in("north")
        board = await doctor.event("queue-updated")
        assert board["data"]["change"] == "PatientEnqueued"
        assert board["data"]["entry"]["id"] == visit["queueEntryId"]
        assert board["data"]["entry"]["ticket"] == visit["ticket"]
        assert board["data"]["counts"] == {
            "waiting": 1, "called": 0, "in-service": 0, "done": 0, "no-show": 0, "left": 0, "transferred": 0,
        }  # fmt: skip
        note = await doctor.event("notification", encounterId=visit["encounterId"])
        assert note["data"]["patientId"] == visit["patientId"]
        status = await doctor.event("patient-status-changed", change="PatientArrived")
        assert status["data"]["visit"]["status"] == "arrived"
        positions = [event["position"] for event in doctor.events]
        assert positions == sorted(set(positions))


async def test_what_was_missed_while_away_is_told_once_and_in_order_on_resuming(house: House) -> None:
    await house.unit("south")
    async with house.portal(Role.NURSE, "south", topics=["queue-board"]) as nurse, house.client(unit="south") as desk:
        await nurse.welcomed()
        await house.checked_in("south")
        await nurse.event("queue-updated", change="PatientEnqueued")
        await nurse.close()
        for _ in range(3):
            await house.checked_in("south")
        called = await desk.post("/api/queues/general/call-next", json={"counter": "3"})
        assert called.status_code == 200, called.text
        await nurse.resume()
        await nurse.event("queue-updated", change="PatientCalled")
        told = [(event["data"]["change"], event["data"]["entry"]["ticket"]) for event in nurse.events]
        assert told == [*(("PatientEnqueued", ticket) for ticket in (1, 2, 3, 4)), ("PatientCalled", 1)]
        assert nurse.events[-1]["data"]["entry"]["counter"] == "3"
        assert nurse.events[-1]["data"]["counts"]["waiting"] == 3


async def test_a_desk_calls_the_next_patient_from_its_portal_and_is_told_the_outcome(house: House) -> None:
    await house.unit("east")
    async with house.portal(Role.RECEPTIONIST, "east") as desk:
        await desk.welcomed()
        visit = await house.checked_in("east")
        await desk.event("queue-updated", change="PatientEnqueued")
        await desk.say(
            {"type": "queue-update", "requestId": "r1", "action": "call-next", "payload": {"department": "general"}}
        )
        outcome = await desk.told("outcome", requestId="r1")
        assert (outcome["status"], outcome["result"]["entryId"]) == ("accepted", visit["queueEntryId"])
        called = await desk.event("queue-updated", change="PatientCalled")
        assert called["position"] <= outcome["position"]
        await desk.say(
            {"type": "queue-update", "requestId": "r2", "action": "call-next", "payload": {"department": "general"}}
        )
        refused = await desk.told("outcome", requestId="r2")
        assert (refused["status"], refused["code"]) == ("refused", "queue_empty")
        await desk.say(
            {"type": "patient-status-update", "requestId": "r3", "action": "triage",
             "payload": {"encounterId": visit["encounterId"], "acuity": 2}}
        )  # fmt: skip
        declined = await desk.told("declined", requestId="r3")
        assert declined["code"] == "not_allowed"
    async with house.portal(Role.NURSE, "east", topics=["patient-status"]) as nurse:
        await nurse.welcomed()
        update = {"type": "patient-status-update", "requestId": "t", "action": "triage", "idempotencyKey": "triage-1",
                  "payload": {"encounterId": visit["encounterId"], "acuity": 2}}  # fmt: skip
        await nurse.say(update)
        assert (await nurse.told("outcome", requestId="t"))["status"] == "accepted"
        triaged = await nurse.event("patient-status-changed", change="PatientTriaged")
        assert (triaged["data"]["visit"]["acuity"], triaged["data"]["visit"]["status"]) == (2, "triaged")
        await nurse.say({**update, "requestId": "again"})
        assert (await nurse.told("outcome", requestId="again"))["status"] == "unchanged"


async def test_server_sent_events_tell_the_same_and_resume_from_the_last_id(house: House) -> None:
    await house.unit("west")
    async with house.portal(Role.DOCTOR, "west") as doctor, house.client(Role.DOCTOR, "west") as client:
        await doctor.welcomed()
        async with Stream(client, topics="queue-board,notifications,patient-status,units") as stream:
            await stream.event("welcome")
            first = await house.checked_in("west")
            await stream.event("queue-updated")
            await stream.event("notification")
            seen = stream.last_event_id
        second = await house.checked_in("west")
        await house.checked_in("west", department="radiology")
        async with Stream(client, seen, departments="general") as resumed:
            await resumed.event("notification", encounterId=second["encounterId"])
            await doctor.event("notification", department="radiology")
            by_position = {event["position"]: event for event in doctor.events}
            told = [*stream.events, *resumed.events]
            positions = [int(at) for at, name, data in told if at is not None and data.get("type") == "event"]
            assert positions == sorted(set(positions))
            for at, _, data in told:
                if data.get("type") == "event":
                    assert data == by_position[int(at or 0)]
            assert first["encounterId"] != second["encounterId"]
            departments = {data["data"].get("department", "general") for _, _, data in resumed.events if "data" in data}
            assert departments == {"general"}


async def test_each_role_is_told_what_it_may_read_and_nothing_of_other_units(house: House) -> None:
    """Every topic is asked for by every role, at its own unit while another unit is just as busy."""
    await house.unit("mine")
    await house.unit("theirs")
    everything = {"notification", "queue-updated", "patient-status-changed"}
    expected = {
        **dict.fromkeys(
            (Role.ADMIN, Role.STAFF, Role.DOCTOR, Role.NURSE, Role.PHARMACIST, Role.LAB_TECHNICIAN, Role.RADIOLOGIST),
            everything,
        ),
        Role.RECEPTIONIST: everything - {"notification"},
        Role.BILLING: everything - {"notification"},
    }
    results = {Role.ADMIN, Role.STAFF, Role.DOCTOR, Role.NURSE, Role.LAB_TECHNICIAN, Role.RADIOLOGIST}
    async with AsyncExitStack() as stack:
        portals = {role: await stack.enter_async_context(house.portal(role, "mine")) for role in [*expected, Role.OPS]}
        for role, portal in portals.items():
            welcome = await portal.welcomed()
            assert ("results" in welcome["topics"]) == (role in results)
            assert set(welcome["denied"]) == {*EVERYTHING} - {*welcome["topics"]}
        assert (await portals[Role.OPS].welcomed())["topics"] == ["units"]
        await house.checked_in("theirs")
        mine = await house.checked_in("mine")
        async with house.client(Role.OPS) as ops:
            suspended = await ops.post("/api/units/mine/suspend", json={"reason": "works"})
            assert suspended.status_code == 200, suspended.text
        for role, portal in portals.items():
            changed = await portal.event("unit-changed", status="suspended")
            assert changed["unitId"] == "mine"
            names = {event["event"] for event in portal.events}
            assert names == {*expected.get(role, set()), "unit-changed"}, role
            assert {event["unitId"] for event in portal.events} == {"mine"}
            assert "Quillfeather" not in str(portal.events)
            if role is not Role.OPS:
                entry = next(event for event in portal.events if event["event"] == "queue-updated")["data"]["entry"]
                assert entry["patientId"] == mine["patientId"]


async def test_nobody_gets_a_portal_who_has_none_and_nobody_another_units(house: House) -> None:
    await house.unit("closed")
    assert await turned_away(house.portal_url, house.installed.token(Role.UNIT, "closed")) == 403
    assert await turned_away(house.portal_url, house.installed.token(Role.DOCTOR, "closed", ttl=-10)) == 401
    async with house.portal(Role.DOCTOR, "closed", unitId="north") as stranger:
        bye = await stranger.told("bye")
        assert (bye["code"], bye["mayReconnect"], await stranger.closed()) == (4403, False, 4403)
    async with house.portal(Role.OPS, "closed", topics=["queue-board", "patient-status"]) as ops:
        assert await ops.closed() == 4403
    async with house.portal(Role.NURSE, "nowhere") as lost:
        assert await lost.closed() == 4404
    async with house.client(Role.DOCTOR, "closed") as doctor, house.client(Role.OPS, "closed") as ops_client:
        assert (await doctor.get("/api/stream", params={"unit": "north"})).status_code == 403
        assert (await ops_client.get("/api/stream", params={"topics": "queue-board"})).status_code == 403
        assert (await doctor.get("/api/stream", params={"topics": "gossip"})).status_code == 400
        assert (await doctor.get("/api/stream", headers={"Last-Event-ID": "x"})).status_code == 400
    async with house.client(Role.DOCTOR, "nowhere") as nobody:
        assert (await nobody.get("/api/stream")).status_code == 404
    async with house.client(Role.UNIT, "closed") as agent:
        assert (await agent.get("/api/stream")).status_code == 403


async def test_a_unit_that_is_only_watched_is_not_called(house: House) -> None:
    """A portal's binding is for the feed alone: with no agent there, a live call is answered 503 at once."""
    await house.unit("watched")
    async with house.portal(Role.DOCTOR, "watched") as doctor, house.client(unit="watched") as client:
        await doctor.welcomed()
        answer = await client.post("/api/units/watched/calls/ping", json={}, headers={"Prefer": "wait=5"})
        assert (answer.status_code, answer.json()["code"]) == (503, "unit_not_connected")


async def test_a_browser_offers_its_token_as_a_subprotocol(house: House) -> None:
    await house.unit("browsing")
    token = house.installed.token(Role.STAFF, "browsing")
    async with Portal(house.portal_url, token, as_browser=True) as page:
        await page.welcomed()
        assert page.socket.subprotocol == "carespine.portal.v1"


async def test_what_is_pushed_can_be_read_at_that_position(house: House) -> None:
    """A push never announces what a query cannot yet see."""
    await house.unit("readable")
    async with (
        house.portal(Role.NURSE, "readable", topics=["queue-board"]) as nurse,
        house.client(unit="readable") as client,
    ):
        await nurse.welcomed()
        for number in range(1, 11):
            await house.checked_in("readable")
            event = await nurse.event("queue-updated", counts={**_NOBODY, "waiting": number})
            shown = await client.get(f"/api/queues/general/entries/{event['data']['entry']['id']}")
            assert shown.status_code == 200
            entry = event["data"]["entry"]
            assert {name: shown.json()[name] for name in entry if name != "arrivedAt"} == {
                name: value for name, value in entry.items() if name != "arrivedAt"
            }
            assert datetime.fromisoformat(shown.json()["arrivedAt"]) == datetime.fromisoformat(entry["arrivedAt"])


_NOBODY = dict.fromkeys(("waiting", "called", "in-service", "done", "no-show", "left", "transferred"), 0)
