"""A bridge's inbox: what concerns its units, and word of every gap."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from contracts import routing
from infra.broker.consumer import Delivery
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.inbox import Inbox
from infra.broker.publisher import Publisher
from infra.broker.topology import declare
from tests.infra.cable import Cable
from tests.kit.waiting import eventually


class Bridge:
    """An inbox and what came in."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.gaps = 0
        self.inbox = Inbox(url, instance=f"test-{secrets.token_hex(4)}", on_delivery=self._seen, on_gap=self._gap)

    def _seen(self, delivery: Delivery) -> None:
        self.seen.append((delivery.routing_key, delivery.body))

    def _gap(self) -> None:
        self.gaps += 1


@pytest.fixture
async def bridge(cable: Cable, rabbitmq: str) -> AsyncIterator[Bridge]:
    """A bridge on a cable, its broker ready."""
    await declare(rabbitmq, partitions=1)
    bridge = Bridge(cable.url)
    async with bridge.inbox:
        await bridge.inbox.until_up()
        yield bridge


def push(publisher: Publisher, unit: str, body: bytes) -> None:
    publisher.publish_nowait(routing.EVENTS, routing.feed_key(unit), body)


async def call(publisher: Publisher, unit: str) -> None:
    await publisher.publish(routing.COMMANDS, routing.call_key(unit, "ping"), b"", message_id=secrets.token_hex(8))


async def test_what_concerns_a_unit_comes_and_what_concerns_another_does_not(
    bridge: Bridge, publisher: Publisher
) -> None:
    await bridge.inbox.bind("north")
    push(publisher, "south", b"1")
    push(publisher, "north", b"2")
    await call(publisher, "north")
    await eventually(lambda: len(bridge.seen) == 2)
    assert sorted(bridge.seen) == [("unit.north.call.ping", b""), ("unit.north.feed.batch", b"2")]
    with pytest.raises(Unroutable):
        await call(publisher, "south")


async def test_a_command_for_the_handlers_is_not_for_the_bridge(bridge: Bridge, publisher: Publisher) -> None:
    await bridge.inbox.bind("north")
    await publisher.publish(routing.COMMANDS, routing.command_key("north", 0, "queue.CallNext"), b"", message_id="1")
    await call(publisher, "north")
    await eventually(lambda: bridge.seen)
    assert [key for key, _ in bridge.seen] == ["unit.north.call.ping"]


async def test_after_unbinding_a_live_call_is_unroutable(bridge: Bridge, publisher: Publisher) -> None:
    await bridge.inbox.bind("north")
    bridge.inbox.unbind("north")

    async def unroutable() -> bool:
        try:
            await call(publisher, "north")
        except Unroutable:
            return True
        return False

    await eventually(unroutable)
    await bridge.inbox.bind("north")
    await call(publisher, "north")


async def test_a_storm_of_links_is_bound_in_a_moment(bridge: Bridge, publisher: Publisher) -> None:
    units = [f"unit-{number}" for number in range(500)]
    await asyncio.wait_for(asyncio.gather(*map(bridge.inbox.bind, units)), 10)
    await asyncio.gather(*(call(publisher, unit) for unit in units))
    await eventually(lambda: len(bridge.seen) == 500)


async def test_bound_unbound_and_bound_again_it_ends_as_last_said(bridge: Bridge, publisher: Publisher) -> None:
    for _ in range(5):
        binding = asyncio.create_task(bridge.inbox.bind("north"))
        await asyncio.sleep(0)
        bridge.inbox.unbind("north")
        binding.cancel()
        await asyncio.gather(binding, return_exceptions=True)
    await bridge.inbox.bind("north")
    await call(publisher, "north")
    await eventually(lambda: bridge.seen)


async def test_after_a_lost_connection_every_unit_is_bound_again_and_the_owner_hears_of_the_gap(
    bridge: Bridge, publisher: Publisher, cable: Cable
) -> None:
    units = [f"unit-{number}" for number in range(50)]
    await asyncio.gather(*map(bridge.inbox.bind, units))
    assert bridge.gaps == 0
    cable.pull()
    await eventually(lambda: bridge.inbox.ready() is not None)
    with pytest.raises(BrokerUnavailable):
        await bridge.inbox.bind("late")
    bridge.inbox.unbind("unit-0")
    cable.plug()
    await eventually(lambda: bridge.gaps == 1)
    assert bridge.inbox.ready() is None
    for unit in [*units[1:], "late"]:
        await call(publisher, unit)
    with pytest.raises(Unroutable):
        await call(publisher, "unit-0")
    await eventually(lambda: len(bridge.seen) == 50)


async def test_an_inbox_to_which_nothing_comes_says_so_although_its_connection_stands(
    bridge: Bridge, publisher: Publisher, cable: Cable
) -> None:
    await bridge.inbox.bind("north")
    assert bridge.inbox.ready() is None
    cable.hold_answers()
    await eventually(lambda: bridge.inbox.ready() == "no deliveries come", within=15)
    cable.let_answers_through()
    await eventually(lambda: bridge.inbox.ready() is None)
    push(publisher, "north", b"2")
    await eventually(lambda: bridge.seen == [(routing.feed_key("north"), b"2")])
