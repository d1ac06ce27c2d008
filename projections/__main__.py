"""`python -m projections`: keeps the read tables up with the log; `--rebuild NAME` makes one of them anew instead."""

from __future__ import annotations

import argparse
import asyncio
import sys

from infra.broker import topology
from infra.broker.publisher import Publisher
from infra.database import DatabaseUnavailable, pool
from infra.erasure.caches import Caches
from infra.ownership import Ownership
from infra.process import Process, run
from infra.sealing import KeyRing, Sealer
from infra.settings import Settings, SettingsError
from projections.applying import Applying
from projections.batch import Reactions
from projections.catalogue import READ_MODELS, read_model_named
from projections.feed import Feed
from projections.monitor import Monitor
from projections.rebuild import rebuild
from projections.runner import Runner, listen


async def main(process: Process) -> None:
    """Build, run until told to stop, close in reverse."""
    settings = process.settings
    sealer = Sealer(KeyRing.of(settings.keys))
    postgres_url = settings.postgres.url.get_secret_value()
    broker_url = settings.rabbitmq.url.get_secret_value()
    ours = pool(postgres_url, role="projections", smallest=2, largest=4, probed=False)
    await ours.open(wait=False)
    process.closing.push_async_callback(ours.close)
    publisher = await process.closing.enter_async_context(Publisher(broker_url, name=f"{process.instance}.publish"))
    feed = Feed(publisher, process.metrics)

    async def gained(partition: int, epoch: int) -> None:
        feed.forget(partition)
        runner.wake()

    async def lost(partition: int) -> None:
        feed.forget(partition)

    ownership = Ownership(
        ours,
        role="projections",
        instance=process.instance,
        lease_seconds=settings.work.lease_seconds,
        on_gained=gained,
        on_lost=lost,
    )
    runner = Runner(
        pool=ours,
        applying=Applying(sealer, Reactions(READ_MODELS)),
        feed=feed,
        metrics=process.metrics,
        owned=ownership.owned,
    )
    monitor = Monitor(ours, process.metrics, ownership.owned)
    process.ready.check("projecting", lambda: runner.trouble)
    process.ready.check("partitions", lambda: None if ownership.settled else "no partition decided on yet")
    process.ready.check("broker", publisher.ready)

    owning = process.tasks.create_task(ownership.run(), name="ownership")
    running = process.tasks.create_task(runner.run(process.stopping), name="runner")
    process.tasks.create_task(listen(postgres_url, runner.wake), name="listen")
    process.tasks.create_task(monitor.run(), name="monitor")
    process.tasks.create_task(Caches(ours, sealer, instance=process.instance).watch(), name="erasures")
    process.tasks.create_task(topology.keep_declaring(broker_url, partitions=settings.work.partitions), name="topology")
    process.started()
    await process.stopping.wait()
    runner.wake()
    await running
    owning.cancel()
    await ownership.release_all()


async def rebuild_named(names: list[str], settings: Settings) -> None:
    """Rebuild these read models, one after the other, telling on stderr how far it is."""
    sealer = Sealer(KeyRing.of(settings.keys))
    async with pool(settings.postgres.url.get_secret_value(), role="projections", largest=1) as ours:
        for name in names:
            async for rebuilt in rebuild(ours, sealer, read_model_named(name)):
                sys.stderr.write(
                    f"{name}: partition {rebuilt.partition:02d}, {rebuilt.events} events, {rebuilt.left_out} left out\n"
                )


def arguments() -> argparse.Namespace:
    """The command line; everything else comes from the environment."""
    names = [model.name for model in READ_MODELS]
    parser = argparse.ArgumentParser(prog="python -m projections", description=__doc__)
    parser.add_argument(
        "--rebuild",
        metavar="NAME",
        choices=[*names, "all"],
        help=f"make a read model anew from the log, then exit: {', '.join(names)} or all",
    )
    return parser.parse_args()


def rebuild_and_exit(name: str) -> None:
    """Exit codes: 0 done, 2 settings, 3 no database."""
    names = [model.name for model in READ_MODELS] if name == "all" else [name]
    try:
        asyncio.run(rebuild_named(names, Settings.from_environment(package="projections")))
    except SettingsError as error:
        sys.stderr.write(f"projections: {error}\n")
        sys.exit(2)
    except DatabaseUnavailable:
        sys.stderr.write("projections: Postgres cannot be reached; what was rebuilt so far stays, start again later\n")
        sys.exit(3)


if __name__ == "__main__":
    asked = arguments()
    if asked.rebuild:
        rebuild_and_exit(asked.rebuild)
    else:
        run("projections", main)
