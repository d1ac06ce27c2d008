"""`python -m command_handlers`: owns partitions, handles their commands, fires timers, keeps the dead-letter desk."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from command_handlers.batch import Batches, Rehearse
from command_handlers.desk import Desk
from command_handlers.outgoing import Outgoing
from command_handlers.pump import Pump
from command_handlers.replaying import Replays
from command_handlers.timers import Timers
from contracts.catalogue import COMMANDS
from contracts.model import Command
from infra.broker import topology
from infra.broker.consumer import ConsumingConnection
from infra.broker.publisher import Publisher
from infra.database import pool
from infra.erasure.caches import Caches
from infra.erasure.purging import Purging
from infra.ownership import Ownership
from infra.process import Process, run
from infra.sealing import KeyRing, Sealer
from infra.settings import Mode


class RehearsedDefect(Exception):
    """Planted on purpose, to practise the dead-letter desk (`--rehearse-defect`, development mode only)."""


def rehearsal(asked: str | None, mode: Mode) -> Rehearse:
    """A handler with a defect in one command, as a bad release would have it. Refused outside development mode.

    `patient.UpdateDemographics` raises, `kill:patient.UpdateDemographics` takes the process down.
    """
    if asked is None:
        return lambda command: None
    how, _, type_name = asked.rpartition(":")
    if mode is not Mode.DEVELOPMENT:
        sys.exit("command_handlers: --rehearse-defect is for development mode; unset CARESPINE_REHEARSE_DEFECT")
    if type_name not in COMMANDS or how not in ("", "kill"):
        sys.exit(f"command_handlers: --rehearse-defect is [kill:]TYPE, of: {', '.join(sorted(COMMANDS))}")

    def defect(command: Command) -> None:
        if command.type_name() != type_name:
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RehearsedDefect

    return defect


async def main(process: Process, defect: str | None) -> None:
    """Build, run until told to stop, close in reverse."""
    settings = process.settings
    rehearse = rehearsal(defect, settings.identity.mode)
    sealer = Sealer(KeyRing.of(settings.keys))
    broker_url = settings.rabbitmq.url.get_secret_value()
    postgres_url = settings.postgres.url.get_secret_value()
    handlers = pool(postgres_url, role="handlers", smallest=2, largest=6, probed=False)
    desk_pool = pool(postgres_url, role="desk", smallest=1, largest=3)
    await handlers.open(wait=False)
    process.closing.push_async_callback(handlers.close)
    await desk_pool.open(wait=False)
    process.closing.push_async_callback(desk_pool.close)
    erasing = pool(postgres_url, role="erasure", smallest=0, largest=1)
    await erasing.open(wait=False)
    process.closing.push_async_callback(erasing.close)
    enter = process.closing.enter_async_context
    publisher = await enter(Publisher(broker_url, name=f"{process.instance}.publish", metrics=process.metrics))
    consuming = await enter(
        ConsumingConnection(broker_url, name=f"{process.instance}.consume", metrics=process.metrics)
    )

    batches = Batches(
        pool=handlers,
        sealer=sealer,
        publisher=publisher,
        metrics=process.metrics,
        partitions=settings.work.partitions,
        rehearse=rehearse,
    )
    pump = Pump(
        broker=consuming,
        publisher=publisher,
        pool=handlers,
        batches=batches,
        metrics=process.metrics,
        batch_limit=settings.work.batch_limit,
    )
    ownership = Ownership(
        handlers,
        role="handlers",
        instance=process.instance,
        lease_seconds=settings.work.lease_seconds,
        on_gained=pump.gained,
        on_lost=pump.lost,
    )
    pump.ownership = ownership
    timers = Timers(pool=handlers, publisher=publisher, partitions=settings.work.partitions, owned=ownership.owned)
    outgoing = Outgoing(pool=handlers, publisher=publisher, metrics=process.metrics, owned=ownership.owned)
    desk = Desk(pool=desk_pool, sealer=sealer, broker=consuming, partitions=settings.work.partitions)
    replays = Replays(
        pool=desk_pool,
        sealer=sealer,
        publisher=publisher,
        metrics=process.metrics,
        partitions=settings.work.partitions,
    )
    process.ready.check("broker", publisher.ready)
    process.ready.check("consumers", consuming.ready)
    process.ready.check("handling", lambda: pump.trouble)
    process.ready.check("partitions", lambda: None if ownership.settled else "no partition decided on yet")

    owning = process.tasks.create_task(ownership.run(), name="ownership")
    process.tasks.create_task(pump.run(), name="pump")
    process.tasks.create_task(timers.run(), name="timers")
    process.tasks.create_task(outgoing.run(), name="letters")
    process.tasks.create_task(desk.run(), name="desk")
    process.tasks.create_task(replays.run(), name="replays")
    caches = Caches(handlers, sealer, instance=process.instance, also=batches.forget)
    process.tasks.create_task(caches.watch(), name="erasures")
    process.tasks.create_task(Purging(erasing, sealer).run(), name="purging")
    process.tasks.create_task(topology.keep_declaring(broker_url, partitions=settings.work.partitions), name="topology")
    process.started()
    await process.stopping.wait()
    owning.cancel()
    await ownership.release_all()
    await pump.drained()


def arguments() -> argparse.Namespace:
    """The command line; everything else comes from the environment."""
    parser = argparse.ArgumentParser(prog="python -m command_handlers", description=__doc__)
    parser.add_argument(
        "--rehearse-defect",
        metavar="TYPE",
        default=os.environ.get("CARESPINE_REHEARSE_DEFECT") or None,
        help="fail on every command of this type, to practise the dead-letter desk (development mode only)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    asked = arguments()
    run("command_handlers", lambda process: main(process, asked.rehearse_defect))
