"""`python -m gateway`: the HTTP door. Ready when commands can be taken, whether or not Postgres answers."""

from __future__ import annotations

from gateway.app import Parts, application
from gateway.asking import Questions
from gateway.callers import Callers
from gateway.calls import Calls
from gateway.installation import Partitioning
from gateway.intake import Intake
from gateway.measures import Measures
from gateway.positions import Positions
from gateway.routes import health
from gateway.routes.auth import Auth, StaffDoor
from gateway.routes.dead_letters import Desk
from gateway.routes.unit_credentials import Access
from gateway.streams import Streams
from infra.broker import topology
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox
from infra.database import pool
from infra.http_server import serving
from infra.passwords import Passwords
from infra.portals.hub import Hub
from infra.portals.log import PostgresPortalLog
from infra.process import Process, run
from infra.sealing import KeyRing, Sealer
from infra.settings import Keys, Mode
from infra.staff_accounts import StaffAccounts
from infra.staff_revocations import StaffRevocations
from infra.staff_sessions import StaffSessions
from infra.tokens import Verifier
from infra.unit_credentials import Exchange, Revocations
from infra.unit_keys import EnrolmentCodes


async def main(process: Process) -> None:
    """Build, run until told to stop, close in reverse."""
    settings = process.settings
    measures = Measures(process.metrics)
    broker_url = settings.rabbitmq.url.get_secret_value()
    postgres_url = settings.postgres.url.get_secret_value()
    enter = process.closing.enter_async_context

    reading = pool(postgres_url, role="gateway", smallest=2, largest=12)
    await reading.open(wait=False)
    process.closing.push_async_callback(reading.close)
    desk = pool(postgres_url, role="desk", smallest=0, largest=3)
    await desk.open(wait=False)
    process.closing.push_async_callback(desk.close)
    revocations = Revocations(reading)
    process.tasks.create_task(revocations.watch(), name="revocations")
    people = StaffRevocations(reading)
    process.tasks.create_task(people.watch(), name="staff-revocations")
    callers = Callers(
        Verifier(settings.keys.verifying(), ended=people.ended),
        turned_away=measures.turned_away,
        forbid=revocations.forbid,
        certificate_header=settings.units.certificate_header,
    )
    positions = Positions(reading)
    process.closing.push_async_callback(positions.close)
    publisher = await enter(Publisher(broker_url, name=f"{process.instance}.publish", on_confirmed=measures.confirmed))
    replies = await enter(ReplyBox(broker_url, instance=process.instance))
    process.ready.check("broker", publisher.ready)
    process.ready.check("replies", replies.ready)

    partitions = settings.work.partitions
    partitioning = Partitioning(reading, partitions)
    process.ready.check("partitions", partitioning.trouble)
    process.tasks.create_task(partitioning.look(), name="partitioning")
    intake = Intake(
        publisher, replies, partitions=partitions, accepted=measures.accepted, not_accepted=measures.not_accepted
    )
    signing = settings.keys.token_private_key
    private_key = signing.get_secret_value() if signing is not None else None
    passwords = Passwords()
    process.closing.callback(passwords.close)
    door = None
    if private_key is not None and settings.keys.master_key is not None:
        door = StaffDoor(
            accounts=StaffAccounts(reading, KeyRing.of(settings.keys)),
            sessions=StaffSessions(reading, private_key, settings.staff),
            codes=EnrolmentCodes(private_key),
            passwords=passwords,
            open_to_first=settings.identity.mode is Mode.DEVELOPMENT,
        )
    watching = pool(postgres_url, role="gateway", smallest=0, largest=4)
    await watching.open(wait=False)
    process.closing.push_async_callback(watching.close)
    hub = Hub(PostgresPortalLog(watching), broker_url, instance=process.instance, metrics=process.metrics)
    await enter(hub.inbox)
    streams = Streams(hub, process.metrics)
    people.tell(lambda: streams.end_revoked(people.ended))
    process.tasks.create_task(hub.run(), name="portals")
    app = application(
        Parts(
            callers=callers,
            intake=intake,
            calls=Calls(publisher, replies, called=measures.called),
            questions=Questions(callers, reading, positions, partitions=partitions, signing=private_key),
            desk=Desk(callers, desk, _sealer(settings.keys)),
            access=Access(
                callers=callers,
                intake=intake,
                positions=positions,
                exchange=Exchange(reading, private_key, token_seconds=settings.units.token_seconds),
                codes=EnrolmentCodes(private_key) if private_key is not None else None,
                settings=settings.units,
            ),
            measures=measures,
            body_limit=settings.work.body_limit,
            version=process.health.version,
            health=health.routes(
                process.health, settings.identity.mode, publisher.ready, health.DatabaseHealth(reading)
            ),
            streams=streams,
            auth=Auth(callers, intake, positions, door, turned_away=measures.turned_away),
        )
    )
    process.tasks.create_task(streams.leave_when(process.stopping), name="streams")
    process.tasks.create_task(topology.keep_declaring(broker_url, partitions=partitions), name="topology")
    await enter(serving(app, host=settings.http.host, port=settings.http.port, proxy_headers=False))
    process.started()
    await process.stopping.wait()


def _sealer(keys: Keys) -> Sealer | None:
    return Sealer(KeyRing.of(keys)) if keys.master_key is not None else None


if __name__ == "__main__":
    run("gateway", main)
