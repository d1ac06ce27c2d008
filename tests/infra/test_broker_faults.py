"""The broker killed, restarted or out of memory in the middle of a stream: nothing confirmed is lost, order holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiormq
import pytest

from infra.broker import connection
from infra.broker.consumer import ConsumingConnection
from infra.broker.errors import BrokerUnavailable, ConsumerLost, ConsumerRefused
from infra.broker.inbox import Inbox
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox
from infra.broker.topology import check, declare
from infra.services.launcher import Services
from infra.services.rabbitmq import PrivateRabbitMQ
from infra.services.rabbitmq_files import find_server_files, user_cache
from tests.infra.cable import Cable
from tests.kit.brokers import fresh_virtual_host
from tests.kit.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

CALLERS = 4


@pytest.fixture
def url(breakable_services: Services) -> Iterator[str]:
    """A fresh virtual host of a broker that may be broken."""
    with fresh_virtual_host(breakable_services) as url:
        yield url


class Ledger:
    """What was confirmed to whom, and what came out."""

    def __init__(self) -> None:
        self.confirmed: list[list[int]] = [[] for _ in range(CALLERS)]
        self.seen: list[list[int]] = [[] for _ in range(CALLERS)]

    def handled(self, body: bytes) -> None:
        caller, number = map(int, body.split(b":"))
        if number not in self.seen[caller][-600:]:  # at least once: receivers deduplicate
            self.seen[caller].append(number)


async def publish_on(publisher: Publisher, queue: str, caller: int, ledger: Ledger, stop: asyncio.Event) -> None:
    """One caller with one command at a time, who repeats it under the same id until it is confirmed."""
    number = 0
    while not stop.is_set():
        try:
            await publisher.publish("", queue, b"%d:%d" % (caller, number), message_id=f"{caller}:{number}", deadline=2)
        except BrokerUnavailable:
            await asyncio.sleep(0.02)
            continue
        ledger.confirmed[caller].append(number)
        number += 1


async def consume_on(consuming: ConsumingConnection, queue: str, ledger: Ledger) -> None:
    """An owner's loop: consume, and when that ends consume again."""
    while True:
        try:
            consumer = await consuming.consume(queue)
            while True:
                batch = await consumer.take()
                consumer.ack_through(batch[-1].tag)
                for delivery in batch:
                    ledger.handled(delivery.body)
        except (BrokerUnavailable, ConsumerLost, ConsumerRefused):
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(*work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
async def test_a_broker_that_goes_and_comes_back_costs_nothing_but_time(
    kill: bool, url: str, breakable_services: Services
) -> None:
    await declare(url, partitions=1)
    queue = "commands.p00"
    ledger, stop, gaps = Ledger(), asyncio.Event(), []
    async with (
        Publisher(url, name="test.publisher") as publisher,
        ConsumingConnection(url, name="test.consuming") as consuming,
        ReplyBox(url, instance=f"test-{secrets.token_hex(4)}") as box,
        Inbox(
            url, instance=f"test-{secrets.token_hex(4)}", on_delivery=lambda _: None, on_gap=lambda: gaps.append(1)
        ) as inbox,
    ):
        parts = (publisher, consuming, box, inbox)
        await asyncio.gather(*(part.until_up() for part in parts))
        await inbox.bind("north")
        callers = [asyncio.create_task(publish_on(publisher, queue, caller, ledger, stop)) for caller in range(CALLERS)]
        owner = asyncio.create_task(consume_on(consuming, queue, ledger))
        async with running(owner, *callers):
            await eventually(lambda: all(len(seen) > 100 for seen in ledger.seen))
            await asyncio.to_thread(breakable_services.restart_rabbitmq, kill=kill)
            before = [len(confirmed) for confirmed in ledger.confirmed]
            await eventually(
                lambda: all(len(now) > old + 100 for now, old in zip(ledger.confirmed, before, strict=True)), within=60
            )
            stop.set()
            await asyncio.gather(*callers)
            await eventually(
                lambda: all(
                    len(seen) >= len(confirmed) for seen, confirmed in zip(ledger.seen, ledger.confirmed, strict=True)
                ),
                within=30,
            )
        for seen, confirmed in zip(ledger.seen, ledger.confirmed, strict=True):
            assert seen == sorted(seen), "in order"
            assert set(confirmed) <= set(seen), "nothing confirmed is lost"
        assert (consuming.expected, consuming.actual) == (1, 1)
        await eventually(lambda: all(part.ready() is None for part in parts))
        assert gaps
        assert inbox.units == {"north"}


async def test_a_broker_short_of_memory_takes_no_publishes_and_says_so_at_once(
    url: str, breakable_services: Services
) -> None:
    server = breakable_services.rabbitmq
    if not isinstance(server, PrivateRabbitMQ):
        pytest.skip("the broker is not one whose tools can be called")
    async with aiormq.connect(url) as looking, Publisher(url, name="test.publisher") as publisher:
        rpc = await looking.channel()
        queue = f"test.{secrets.token_hex(4)}"
        await rpc.queue_declare(queue, exclusive=True)
        await publisher.until_up()
        await publisher.publish("", queue, b"", message_id="1")
        await asyncio.to_thread(rabbitmqctl, server, "set_vm_memory_high_watermark", "0.0000001")
        try:
            # The broker tells a connection that it is blocked when that publishes next.
            refused = await eventually(lambda: _refusal(publisher, queue))
            assert refused == "blocked"
            assert "blocks publishers" in (publisher.ready() or "")
            with pytest.raises(BrokerUnavailable):
                publisher.publish_nowait("", queue, b"")
            alarm = next(found for found in await check(url, partitions=1) if found.id == "rabbitmq.alarms")
            assert (alarm.state, alarm.seen) == ("failed", "publishers are blocked")
        finally:
            await asyncio.to_thread(rabbitmqctl, server, "set_vm_memory_high_watermark", "0.4")
        await eventually(lambda: publisher.ready() is None)
        await publisher.publish("", queue, b"", message_id="2")


async def test_a_connection_too_busy_for_heartbeats_is_not_taken_for_a_dead_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT_SECONDS", 1)  # the library gives up after (1 + 1) * 3 silent seconds
    clock = asyncio.get_running_loop().time
    async with Publisher(url, name="test.busy") as publisher:
        await publisher.until_up()
        end = clock() + 7
        while clock() < end:  # a lost connection would raise here
            await publisher.publish("amq.topic", "nobody", b"", message_id="m", mandatory=False)


async def test_a_connection_gone_silent_is_given_up_and_replaced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT_SECONDS", 1)
    async with Cable(url) as cable, Publisher(cable.url, name="test.silent") as publisher:
        await publisher.until_up()
        cable.hold_answers()
        await eventually(lambda: publisher.ready() is not None, within=15)
        cable.let_answers_through()
        await publisher.until_up()
        assert cable.connections >= 2


async def _refusal(publisher: Publisher, queue: str) -> str | None:
    try:
        await publisher.publish("", queue, b"", message_id="x", deadline=0.2)
    except BrokerUnavailable as refused:
        return refused.reason if refused.reason != "no_confirm" else None
    return None


def rabbitmqctl(server: PrivateRabbitMQ, *arguments: str) -> None:
    """The broker's own tool, with the broker's own Erlang."""
    files = find_server_files(user_cache(), lambda _: None)
    keeping = json.loads((server.home / "keeping.json").read_text())
    subprocess.run(
        [files.scripts / "rabbitmqctl", "-n", "carespine@localhost", *arguments],
        env={
            "PATH": os.pathsep.join([str(files.erlang), os.environ.get("PATH", ""), "/usr/bin", "/bin"]),
            "HOME": str(Path(server.home) / "home"),
            "ERL_EPMD_PORT": str(keeping["epmd_port"]),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "LANG": "C.UTF-8",
        },
        check=True,
        capture_output=True,
        timeout=60,
    )
