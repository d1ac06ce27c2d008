"""A real bridge with portals on it, the centre in the test's hand: pushes get lost, portals stop reading."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from uuid import UUID

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from contracts.encounter import ClinicianNotified
from contracts.frames import PORTAL_SUBPROTOCOL
from contracts.identity import Role
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.queue import PatientCalled, PatientEnqueued, PriorityCode
from infra.portals.following import BUDGET_BYTES
from tests.kit.commands import new_id
from tests.kit.portals import Portal
from tests.kit.processes import Started
from tests.kit.waiting import eventually
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.raw_unit import linked

UNIT = "north-clinic"
PATIENT = PatientId(new_id())
VISIT = EncounterId(new_id())


def told_of(entry: UUID | None = None) -> ClinicianNotified:
    """A clinician is to know."""
    return ClinicianNotified(
        encounter_id=VISIT,
        patient_id=PATIENT,
        department="general",
        queue_entry_id=QueueEntryId(entry or new_id()),
        priority=PriorityCode.ROUTINE,
    )


def enqueued(entry: QueueEntryId, ticket: int) -> PatientEnqueued:
    """A patient waits."""
    return PatientEnqueued(
        department="general", service_day=datetime.now(UTC).date(), entry_id=entry, patient_id=PATIENT,
        encounter_id=VISIT, priority=PriorityCode.ROUTINE, ticket=ticket, arrived_at=datetime.now(UTC),
    )  # fmt: skip


def called(entry: QueueEntryId, ticket: int, counter: str) -> PatientCalled:
    """It is the patient's turn."""
    return PatientCalled(
        department="general", service_day=datetime.now(UTC).date(), entry_id=entry, patient_id=PATIENT, ticket=ticket,
        counter=counter,
    )  # fmt: skip


async def test_a_push_that_was_lost_is_made_good_and_one_that_came_before_its_time_waits(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    entry, other = QueueEntryId(new_id()), QueueEntryId(new_id())
    async with Portal(url_of(bridge, "/portal"), bridges.token(UNIT, role=Role.DOCTOR)) as doctor:
        await doctor.welcomed()
        await centre.happens(UNIT, enqueued(entry, 1), pushed=False)
        await doctor.event("queue-updated", within=10, change="PatientEnqueued")
        lost = await centre.happens(UNIT, enqueued(other, 2), pushed=False)
        await centre.happens(UNIT, called(entry, 1, "3"))
        await doctor.event("queue-updated", within=10, change="PatientCalled")
        assert lost in [event["position"] for event in doctor.events]
        # Not visible: it is written, and nobody is told before a query can see it.
        hidden = await centre.happens(UNIT, called(other, 2, "4"), visible=False, pushed=False)
        seen = await centre.happens(UNIT, told_of(), visible=False, pushed=False)
        await asyncio.sleep(0)
        assert all(event["position"] < hidden for event in doctor.events)
        await centre.becomes_visible(doctor.frames[0]["partition"], seen)
        await centre.push(UNIT, after=lost, through=seen)
        await doctor.event("notification")
        positions = [event["position"] for event in doctor.events]
        assert positions == sorted(set(positions))
        assert positions[-2:] == [hidden, seen]


async def test_a_units_link_and_its_portals_are_told_independently(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    portal = Portal(url_of(bridge, "/portal"), bridges.token(UNIT, role=Role.NURSE))
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        async with portal as nurse:
            await nurse.welcomed()
            first = await centre.happens(UNIT, told_of())
            await nurse.event("notification")
            await unit.knows(first)
        second = await centre.happens(UNIT, told_of())
        await unit.knows(second)  # the unit is still bound for, now that nobody watches
    portal.hello["position"] = portal.position
    async with portal as nurse:
        third = await centre.happens(UNIT, told_of())
        await eventually(lambda: [event["position"] for event in nurse.events] == [first, second, third], within=10)


async def test_a_portal_that_does_not_read_is_cut_and_holds_up_no_other(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    await centre.unit(UNIT)
    url, token = url_of(bridge, "/portal"), bridges.token(UNIT, role=Role.DOCTOR)
    entry = QueueEntryId(new_id())
    async with Portal(url, token) as doctor, await _deaf(url, token) as deaf:
        await doctor.welcomed()
        await deaf.send(orjson.dumps({"type": "hello", "topics": ["notifications", "queue-board"]}).decode())
        await centre.happens(UNIT, enqueued(entry, 1))
        await doctor.event("queue-updated")
        sent = 0
        while sent < 12 * BUDGET_BYTES and not await _closes(bridge):
            await centre.happens(UNIT, *(told_of() for _ in range(400)), called(entry, 1, str(sent)))
            sent += 400 * 480
            wanted = sent // 480
            await eventually(lambda: _told(doctor) == wanted, within=10, what="the other is told everything")  # noqa: B023 - asked at once
        assert await _closes(bridge)


def _told(portal: Portal) -> int:
    return sum(event["event"] == "notification" for event in portal.events)


async def _deaf(url: str, token: str) -> ClientConnection:
    """A connection whose machine takes next to nothing."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
    await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
    return await connect(
        url, sock=small, subprotocols=[Subprotocol(PORTAL_SUBPROTOCOL)], compression=None, max_queue=1,
        additional_headers={"Authorization": f"Bearer {token}"}, close_timeout=1,
    )  # fmt: skip


async def _closes(bridge: Started) -> bool:
    """Whether the bridge has cut somebody for being too slow."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(bridge.health_url + "/metrics")).text
    return 'carespine_portal_closes_total{code="4428"} 1.0' in text
