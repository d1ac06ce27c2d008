"""`unit-agent run`: one unit's agent, or with `--fleet` several in one process (demonstrations and trials)."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

import structlog
from pydantic import TypeAdapter, ValidationError

from contracts.model import Model
from infra.cli.exit_codes import ExitCode
from infra.telemetry import logs
from unit_agent.agent import Options, running
from unit_agent.cli import arguments
from unit_agent.cli.arguments import Usage, fail
from unit_agent.configuration import Configuration, DiskSettings
from unit_agent.credential import Credential, CredentialUnusable, credential_of
from unit_agent.service import told_to_systemd
from unit_agent.store import StoreUnusable
from unit_agent.tls import client_context

DISK_THREADS: Final = 4

log = structlog.get_logger()


class Member(Model):
    """One agent of a fleet file, a JSON list of these."""

    credential: str
    unit: str | None = None
    url: str | None = None
    data: str | None = None
    http_port: int | None = None
    webhook: str | None = None


def main(given: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; exit codes 0 (told to stop), 1 (failed), 2 (usage)."""
    told, settings = arguments.parsed(_parser(), given)
    try:
        agents = _fleet(told.fleet, settings) if told.fleet is not None else [_one(settings)]
    except (CredentialUnusable, OSError, Usage, ValidationError) as why:
        fail("the fleet file is not a list of agents" if isinstance(why, ValidationError) else str(why), ExitCode.USAGE)
    try:
        _log(settings, agents[0].unit_id if len(agents) == 1 else f"fleet of {len(agents)}")
        asyncio.run(_serve(agents))
    except Exception as trouble:  # noqa: BLE001 - the last handler there is; a traceback might quote data
        _failed(next(logs.leaves(trouble)))
    return ExitCode.DONE


def _failed(trouble: BaseException) -> NoReturn:
    """Say what ended the agent."""
    if isinstance(trouble, StoreUnusable):
        fail(str(trouble), ExitCode.FAILED)
    if isinstance(trouble, OSError):  # a port that is taken, a folder that cannot be made
        fail(f"{trouble.strerror or type(trouble).__name__}: {trouble.filename or 'a port to serve'}", ExitCode.FAILED)
    log.critical("crashed", **logs.describe(trouble))
    fail(f"it failed ({type(trouble).__name__}); the log says where", ExitCode.FAILED)


async def _serve(agents: Sequence[Options]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(name, stop.set)
    with ThreadPoolExecutor(DISK_THREADS if len(agents) > 1 else 1, "disk") as executor:
        async with AsyncExitStack() as closing:
            for options in agents:
                shared = await closing.enter_async_context(running(options, version=_version(), executor=executor))
            async with told_to_systemd(lambda: f"link {shared.state.state}, disk {shared.room.state}"):
                await stop.wait()


def _one(settings: Configuration) -> Options:
    unit_id = arguments.unit_of(settings)
    folder = arguments.folder_of(settings, unit_id)
    tls = client_context(settings.tls)
    credential = credential_of(settings.credential, folder=folder, gateway_url=settings.gateway, tls=tls)
    if settings.url is None and not credential.links():
        raise Usage("give --url ws://HOST:PORT/unit (`carespine status` names it)")
    return Options(
        url=settings.url,
        credential=credential,
        tls=tls,
        unit_id=unit_id,
        folder=folder,
        http_port=settings.http_port,
        webhook=settings.webhook,
        programs=dict(settings.programs),
        hl7=settings.hl7,
        disk=settings.disk,
        snapshot_beyond=settings.snapshot_beyond or None,
    )


def _fleet(file: Path, settings: Configuration) -> list[Options]:
    # Many small stores on one disk: a reserve for each would fill it.
    disk = DiskSettings(low_bytes=settings.disk.low_bytes, reserve_bytes=0)
    members = TypeAdapter(list[Member]).validate_json(file.read_bytes())
    agents = []
    for member in members:
        unit_id = member.unit or Credential(member.credential).unit()
        own = settings.model_copy(
            update={
                "url": member.url or settings.url,
                "credential": member.credential,
                "unit": unit_id,
                "data": Path(member.data) if member.data else (settings.data or arguments.state_home()) / unit_id,
                "http_port": member.http_port,
            }
        )
        agents.append(replace(_one(own), webhook=member.webhook, disk=disk))
    if not agents:
        raise Usage("the fleet file names no agent")
    return agents


def _log(settings: Configuration, instance: str) -> None:
    to = None
    if settings.log.folder is not None:
        from unit_agent.log_files import LogFolder

        to = LogFolder(settings.log.folder, largest_bytes=settings.log.largest_bytes, keep=settings.log.keep)
    logs.configure(level=settings.log.level, process="unit_agent", instance=instance, to=to)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser("run", "Run the agent of one healthcare unit until it is told to stop.")
    arguments.of_the_centre(parser)
    parser.add_argument("--http-port", type=int, help="serve the local API on this port of loopback; 0: any free one")
    parser.add_argument("--webhook", help="URL of the site's system that executes unit commands")
    parser.add_argument(
        "--snapshot-beyond",
        type=int,
        metavar="EVENTS",
        help="further behind than this, take the unit's state instead of the events; 0: never (default 50000)",
    )
    parser.add_argument("--fleet", type=Path, help="JSON list of agents to run in this one process")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-folder", type=Path, help="write agent.log and errors.log there, put aside when large")
    return parser


def _version() -> str:
    try:
        return version("carespine")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
