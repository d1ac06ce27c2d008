"""`python -m unit_agent`: one unit's agent, or with `--fleet` several in one process (demonstrations and trials)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from contracts.model import Model
from infra.telemetry import logs
from unit_agent.agent import Options, running
from unit_agent.credential import Credential, CredentialUnusable
from unit_agent.store import StoreUnusable

DISK_THREADS = 4


class Member(Model):
    """One agent of a fleet file, a JSON list of these."""

    credential: str
    unit: str | None = None
    url: str | None = None
    data: str | None = None
    http_port: int | None = None
    webhook: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; exit codes 0 (told to stop), 1 (failed), 2 (usage)."""
    given = _parser().parse_args(arguments)
    try:
        agents = _options(given)
    except (CredentialUnusable, OSError, ValidationError, ValueError) as why:
        said = "the fleet file is not a list of agents" if isinstance(why, ValidationError) else why
        sys.stderr.write(f"unit_agent: {said}\n")
        return 2
    instance = agents[0].unit_id if len(agents) == 1 else f"fleet of {len(agents)}"
    logs.configure(level=given.log_level, process="unit_agent", instance=instance)
    try:
        asyncio.run(_serve(agents))
    except StoreUnusable as why:
        sys.stderr.write(f"unit_agent: {why}\n")
        return 1
    return 0


async def _serve(agents: Sequence[Options]) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    with ThreadPoolExecutor(DISK_THREADS if len(agents) > 1 else 1, "disk") as executor:
        async with AsyncExitStack() as closing:
            for options in agents:
                await closing.enter_async_context(running(options, version=_version(), executor=executor))
            await stop.wait()


def _options(given: argparse.Namespace) -> list[Options]:
    if given.fleet is not None:
        members = TypeAdapter(list[Member]).validate_json(given.fleet.read_bytes())
    elif given.credential is None:
        raise ValueError("give --credential TOKEN or --credential @FILE, or --fleet FILE")
    else:
        members = [
            Member(
                credential=given.credential,
                unit=given.unit,
                data=None if given.data is None else str(given.data),
                http_port=given.http_port,
                webhook=given.webhook,
            )
        ]
    return [_one(member, given) for member in members]


def _one(member: Member, given: argparse.Namespace) -> Options:
    credential = Credential(member.credential)
    unit_id = member.unit or credential.unit()
    url = member.url or given.url
    if url is None:
        raise ValueError("give --url ws://HOST:PORT/unit (`carespine status` names it)")
    own_folder = None if member.data is None else Path(member.data)
    folder = own_folder or (given.data or _state_home()) / unit_id
    return Options(url, credential, unit_id, folder, member.http_port, member.webhook)


def _state_home() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "carespine-agent"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m unit_agent", description="The agent of one healthcare unit.")
    parser.add_argument("--url", help="where the centre's bridge listens: ws://HOST:PORT/unit")
    parser.add_argument("--credential", help="the unit's token, or @FILE to read it from (again for each connection)")
    parser.add_argument("--unit", help="the unit's id; otherwise the token's")
    parser.add_argument("--data", type=Path, help="folder of the local store (default: the user's state folder)")
    parser.add_argument("--http-port", type=int, help="serve the local API on this port of loopback; 0: any free one")
    parser.add_argument("--webhook", help="URL of the site's system that executes unit commands")
    parser.add_argument("--fleet", type=Path, help="JSON list of agents to run in this one process")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _version() -> str:
    try:
        return version("carespine")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


if __name__ == "__main__":
    sys.exit(main())
