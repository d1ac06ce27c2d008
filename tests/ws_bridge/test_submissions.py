"""Commands made at a unit, over a real bridge into the real broker: taken in order, refused clearly, never half."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import aiormq

from contracts.envelope import CommandEnvelope, Json, Origin, Outcome, Status
from contracts.frames import Accepted, Ask, Outcomes, Refused, Retry, Submit
from contracts.identity import Role
from contracts.ids import fresh_command_id, partition_of
from contracts.routing import commands_queue
from tests.infra.cable import Cable
from tests.kit.commands import new_id
from tests.kit.processes import Started
from tests.projections.logbook import PARTITIONS
from tests.ws_bridge.centre import Centre
from tests.ws_bridge.conftest import Bridges, url_of
from tests.ws_bridge.facts import NOON
from tests.ws_bridge.raw_unit import RawUnit, linked

UNIT = "north"


def command(
    unit: RawUnit, payload: Json | None = None, *, name: str = "queue.CallNext", command_id: UUID | None = None
) -> Submit:
    return Submit(
        epoch=unit.epoch,
        command_id=command_id or fresh_command_id(datetime.now(UTC), os.urandom(10)),
        command=name,
        payload={"department": "intake"} if payload is None else payload,
        issued_at=NOON,
        subject="desk-2",
    )


@asynccontextmanager
async def linked_unit(bridge: Started, bridges: Bridges, centre: Centre) -> AsyncIterator[RawUnit]:
    await centre.unit(UNIT)
    async with linked(url_of(bridge), UNIT, bridges.token(UNIT)) as unit:
        await unit.hello()
        yield unit


async def with_the_handlers(rabbitmq: str, count: int) -> list[CommandEnvelope]:
    """What stands in the unit's partition, oldest first."""
    envelopes: list[CommandEnvelope] = []
    async with aiormq.connect(rabbitmq) as connection, asyncio.timeout(10):
        channel = await connection.channel()
        while len(envelopes) < count:
            message = await channel.basic_get(commands_queue(partition_of(UNIT, PARTITIONS)), no_ack=True)
            if message.body:
                envelopes.append(CommandEnvelope.model_validate_json(message.body))
    return envelopes


async def test_a_command_is_accepted_once_the_broker_has_it_under_the_unit_s_own_name(
    bridge: Started, bridges: Bridges, centre: Centre, rabbitmq: str
) -> None:
    async with linked_unit(bridge, bridges, centre) as unit:
        sent = [command(unit) for _ in range(40)]
        for one in sent:
            await unit.say(one)
        for one in sent:
            assert (await unit.hears(Accepted)).command_id == one.command_id
        envelopes = await with_the_handlers(rabbitmq, 40)
    assert [one.command_id for one in envelopes] == [one.command_id for one in sent]
    first = envelopes[0]
    assert (first.unit_id, first.origin, first.issued_at) == (UNIT, Origin.UNIT, NOON)
    assert (first.actor.subject, first.actor.role, first.actor.unit) == ("desk-2", Role.UNIT, UNIT)


async def test_the_same_command_sent_twice_is_the_same_envelope(
    bridge: Started, bridges: Bridges, centre: Centre, rabbitmq: str
) -> None:
    async with linked_unit(bridge, bridges, centre) as unit:
        one = command(unit)
        for _ in range(2):
            await unit.say(one)
            await unit.hears(Accepted)
        first, second = await with_the_handlers(rabbitmq, 2)
    assert first == second


NEVER: list[tuple[str, Json, str]] = [
    ("queue.DoMagic", {}, "command_unknown"),
    ("unit.SuspendUnit", {"reason": "because"}, "not_allowed"),
    ("queue.Enqueue", {}, "not_allowed"),
    ("queue.CallNext", {"department": "Secret Ward!?"}, "content_invalid"),
    ("queue.CallNext", {"department": "intake", "more": 1}, "content_invalid"),
    ("queue.CallNext", {"department": "intake", "counter": "a\x00b"}, "content_invalid"),
    (
        "unit_command.ReportUnitCommand",
        {"unitCommandId": "01996a2e-3c40-7a51-8b1e-5d2f7c9e0a11", "applied": True, "result": {"order": 10**30}},
        "content_invalid",
    ),
]


async def test_what_can_never_be_taken_is_refused_by_name_and_the_link_goes_on(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    async with linked_unit(bridge, bridges, centre) as unit:
        for name, payload, code in NEVER:
            await unit.say(command(unit, payload, name=name))
            refused = await unit.hears(Refused)
            assert refused.code == code
            assert "Secret" not in refused.detail
        await unit.say(command(unit).model_copy(update={"subject": "a\x00b"}))
        assert (await unit.hears(Refused)).code == "content_invalid"
        await unit.say(command(unit, command_id=new_id()))  # an id that no agent made
        assert (await unit.hears(Refused)).code == "command_id_invalid"
        await unit.say(command(unit))
        await unit.hears(Accepted)


async def test_while_the_broker_is_away_commands_are_put_off_and_then_taken_in_their_order(
    bridges: Bridges, centre: Centre, rabbitmq: str
) -> None:
    async with Cable(rabbitmq) as cable:
        bridge = await bridges.start(CARESPINE_RABBITMQ_URL=cable.url)
        async with linked_unit(bridge, bridges, centre) as unit:
            first, second, third = (command(unit) for _ in range(3))
            cable.pull()
            await unit.say(first)
            assert (await unit.hears(Retry)).command_id == first.command_id
            cable.plug()
            await bridge.ready()
            await unit.say(second)  # none overtakes the one that was put off
            assert (await unit.hears(Retry)).command_id == second.command_id
            for one in (first, second, third):
                await unit.say(one)
                assert (await unit.hears(Accepted)).command_id == one.command_id
            envelopes = await with_the_handlers(rabbitmq, 3)
    assert [one.command_id for one in envelopes] == [one.command_id for one in (first, second, third)]


async def test_how_commands_ended_is_told_when_asked_and_only_to_their_own_unit(
    bridge: Started, bridges: Bridges, centre: Centre
) -> None:
    async with linked_unit(bridge, bridges, centre) as unit:
        settled, unsettled, foreign = (fresh_command_id(datetime.now(UTC), os.urandom(10)) for _ in range(3))
        for command_id, unit_id in ((settled, UNIT), (foreign, "south")):
            await centre.database.execute(
                "INSERT INTO command_receipts (command_id, unit_id, partition, type, status, code, detail, "
                "request_hash, actor, issued_at) "
                "VALUES (%s, %s, 1, 'queue.CallNext', 'refused', 'queue_empty', 'Nobody', 'x', '{}', now())",
                (command_id, unit_id),
            )
        await unit.say(Ask(epoch=unit.epoch, command_ids=[settled, unsettled, foreign]))
        assert (await unit.hears(Outcomes)).outcomes == [
            Outcome(
                command_id=settled,
                type="queue.CallNext",
                unit_id=UNIT,
                status=Status.REFUSED,
                code="queue_empty",
                detail="Nobody",
                partition=1,
            )
        ]
        await unit.say(Ask(epoch=unit.epoch, command_ids=[unsettled]))
        assert (await unit.hears(Outcomes)).outcomes == [], "who asks is answered, also where nothing is known yet"
