"""`python -m ws_bridge`: holds the links of units. Ready when it can take new ones: inbox consumed, database there."""

from __future__ import annotations

import asyncio

import structlog

from contracts.frames import PORTAL_SUBPROTOCOL, SUBPROTOCOL
from infra.broker import topology
from infra.broker.inbox import Inbox
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox
from infra.database import DatabaseUnavailable, pool
from infra.erasure.caches import Caches
from infra.portals.hub import Hub
from infra.portals.log import PostgresPortalLog
from infra.process import Process, run
from infra.sealing import KeyRing, Sealer
from infra.staff_revocations import StaffRevocations
from infra.tokens import Verifier
from infra.unit_credentials import Exchange, Revocations
from ws_bridge.admission import PORTAL_PATH, UNIT_PATH, Door
from ws_bridge.catch_up import READERS, CatchUp
from ws_bridge.credentials import Renewals
from ws_bridge.deliveries import Deliveries
from ws_bridge.entrance import Entrance
from ws_bridge.hosting import Bridge, UnitHost
from ws_bridge.links import Links
from ws_bridge.live_calls import LiveCalls
from ws_bridge.portals.commands import PortalCommands
from ws_bridge.portals.door import PortalDoor
from ws_bridge.portals.host import PortalHost
from ws_bridge.position_check import PositionCheck
from ws_bridge.presence import Presence
from ws_bridge.receipts import Receipts
from ws_bridge.server import Place, serving
from ws_bridge.snapshot import SNAPSHOTS_AT_ONCE, Snapshots
from ws_bridge.submissions import Submissions
from ws_bridge.unit_sessions import UnitSessions
from ws_bridge.upkeep import leave, look_after

log = structlog.get_logger()


async def main(process: Process) -> None:
    """Build, run until told to stop, let the units go, close in reverse."""
    settings, metrics = process.settings, process.metrics
    enter = process.closing.enter_async_context
    broker_url = settings.rabbitmq.url.get_secret_value()
    sealer = Sealer(KeyRing.of(settings.keys))
    database = pool(
        settings.postgres.url.get_secret_value(), role="bridge", smallest=1, largest=READERS + SNAPSHOTS_AT_ONCE + 6
    )
    await database.open(wait=False)
    process.closing.push_async_callback(database.close)
    people = StaffRevocations(database)
    verifier = Verifier(settings.keys.verifying(), ended=people.ended)

    links = Links()
    sessions = UnitSessions(database, bridge=process.instance, superseded=links.superseded)
    receipts = Receipts()
    sessions.accompany(receipts.write)
    publisher = await enter(Publisher(broker_url, name=f"{process.instance}.publish", metrics=metrics))
    snapshots = Snapshots(database, sealer)
    catch_up = CatchUp(database, sealer, links, snapshots)
    calls = LiveCalls(publisher, metrics)
    deliveries = Deliveries(links, catch_up, calls)
    inbox = await enter(
        Inbox(broker_url, instance=process.instance, on_delivery=deliveries.arrived, on_gap=catch_up.look_now)
    )
    revocations = Revocations(database, revoked=links.revoked)
    signing = settings.keys.token_private_key  # not needed to take what a unit's key has signed, only to answer a token
    exchange = Exchange(
        database,
        signing.get_secret_value() if signing is not None else None,
        token_seconds=settings.units.token_seconds,
    )
    bridge = Bridge(
        instance=process.instance,
        links=links,
        sessions=sessions,
        inbox=inbox,
        publisher=publisher,
        catch_up=catch_up,
        submissions=Submissions(publisher, database, metrics, partitions=settings.work.partitions),
        calls=calls,
        credentials=Renewals(exchange, verifier, revocations, metrics),
        receipts=receipts,
        metrics=metrics,
    )
    presence = Presence(
        database,
        publisher,
        metrics,
        partitions=settings.work.partitions,
        unreachable_seconds=settings.links.unreachable_seconds,
        well_for=sessions.well_for,
    )
    metrics.consumers_expected.labels("bridge").set(1)
    metrics.consumers_actual.labels("bridge").set_function(lambda: inbox.ready() is None)
    process.ready.check("inbox", inbox.ready)
    process.ready.check("broker", publisher.ready)
    process.ready.check("sessions", sessions.ready)
    process.ready.check("log", catch_up.ready)
    process.ready.check("revocations", revocations.ready)
    process.ready.check("staff_revocations", people.ready)

    door = Door(verifier, metrics, forbid=revocations.forbid, certificate_header=settings.units.certificate_header)
    entrance = Entrance(
        metrics,
        asyncio.get_running_loop().time,
        a_second=settings.links.connects_per_second,
        of_a_unit_a_minute=settings.links.unit_connects_per_minute,
    )
    units = UnitHost(
        bridge,
        frames_a_second=settings.links.unit_frames_per_second,
        bytes_a_second=settings.links.unit_bytes_per_second,
    )
    hub = Hub(PostgresPortalLog(database), broker_url, instance=process.instance, metrics=metrics)
    await enter(hub.inbox)
    replies = await enter(ReplyBox(broker_url, instance=process.instance))
    commands = PortalCommands(publisher, replies, metrics, partitions=settings.work.partitions)
    portals, portal_door = PortalHost(hub, commands, verifier, metrics), PortalDoor(verifier, metrics)
    people.tell(portals.end_revoked)
    process.ready.check("portals", hub.inbox.ready)
    places = {
        UNIT_PATH: Place(SUBPROTOCOL, entrance.one_unit(door.look), units.host),
        PORTAL_PATH: Place(PORTAL_SUBPROTOCOL, portal_door.look, portals.host),
    }
    start = process.tasks.create_task
    start(topology.keep_declaring(broker_url, partitions=settings.work.partitions), name="topology")
    start(sessions.keep_opening(), name="hellos")
    start(sessions.keep_writing(), name="sessions")
    start(sessions.keep_renewing(links, deliveries.resumed), name="leases")
    start(revocations.watch(), name="revocations")
    start(people.watch(), name="staff-revocations")
    start(presence.watch(), name="presence")
    start(Caches(database, sealer, instance=process.instance).watch(), name="erasures")
    start(catch_up.sweep(), name="sweep")
    start(PositionCheck(database, links, catch_up.push).watch(), name="positions")
    start(look_after(links, metrics), name="upkeep")
    start(hub.run(), name="portals")
    start(portals.look_after(), name="portals-upkeep")
    for number in range(READERS):
        start(catch_up.read(), name=f"reader-{number}")
    for number in range(SNAPSHOTS_AT_ONCE):
        start(snapshots.serve(catch_up.push), name=f"snapshots-{number}")

    async with serving(places, entrance, settings.bridge) as (server, url):
        log.info("listening", url=f"{url}{UNIT_PATH}")
        process.started()
        await process.stopping.wait()
        entrance.leaving = door.closed = portal_door.closed = True
        await asyncio.gather(leave(links, settings.links.drain_seconds), portals.leave())
        server.close(close_connections=False)
    try:  # now that every connection's handler has said what its session came to
        await sessions.flush()
    except DatabaseUnavailable:
        log.warning("sessions_not_written", reason="database_unavailable")


if __name__ == "__main__":
    run("ws_bridge", main)
