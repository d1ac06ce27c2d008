"""One unit's agent, put together: store, link, execution of unit commands, connectors, local API."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from unit_agent.configuration import DiskSettings, Hl7Settings, ProgramSettings, WebhookSettings
from unit_agent.connectors import BuiltIn, ByType, Connector
from unit_agent.credential import Credential
from unit_agent.execution import Execution
from unit_agent.link_state import SNAPSHOT_BEYOND, LinkState, Shared
from unit_agent.pruning import keep_small
from unit_agent.room import Room
from unit_agent.store import Store
from unit_agent.uplink import Uplink

log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """What one agent is told."""

    url: str | None
    """Of the unit link; None: where the network tells an enrolled agent that it is."""
    credential: Credential
    unit_id: str
    folder: Path
    http_port: int | None = None
    """Port of the local API, 0 for any free one; None: no local API."""
    webhook: WebhookSettings | str | None = None
    """The site's system, or just its URL; None: the built-in connector."""
    programs: dict[str, ProgramSettings] = field(default_factory=dict)
    """By type of unit command, before the webhook."""
    hl7: Hl7Settings = field(default_factory=Hl7Settings)
    disk: DiskSettings = field(default_factory=DiskSettings)
    tls: ssl.SSLContext | None = None
    """With which the centre is reached; None: as the machine trusts."""
    snapshot_beyond: int | None = SNAPSHOT_BEYOND
    """Further behind than this many events, the unit's state is taken instead of them; None: never."""


@asynccontextmanager
async def running(options: Options, *, version: str, executor: Executor | None = None) -> AsyncIterator[Shared]:
    """An agent that runs while the block does. Raises StoreUnusable, and OSError when a port cannot be had."""
    async with AsyncExitStack() as closing:
        disk = options.disk
        room = Room(options.folder, low_bytes=disk.low_bytes, reserve_bytes=disk.reserve_bytes, unit_id=options.unit_id)
        store = closing.enter_context(Store(options.folder, options.unit_id, executor))
        state = LinkState(clock_skew=store.clock_skew)
        shared = Shared(options.unit_id, version, store, state, runnable=lambda: execution.wake(), room=room)
        shared.snapshot_beyond = options.snapshot_beyond
        sending = await _hl7(options.hl7, shared, closing)
        connector = _connector(options, sending, closing)
        execution = Execution(store, connector, now=state.now, reported=shared.outbox_changed.set, room=room)
        uplink = Uplink(options.url, options.credential, shared, tls=options.tls)
        if options.http_port is not None:
            await _serve_locally(options.folder, options.http_port, shared, closing)
        async with asyncio.TaskGroup() as group:
            work = (uplink.serve(), execution.serve(), keep_small(store, state.now))
            tasks = [group.create_task(one) for one in work]
            try:
                yield shared
            finally:
                for task in tasks:
                    task.cancel()


# Sites are small machines: an agent loads an HTTP client, a server or HL7 only where it is told to use one.


def _connector(options: Options, sending: dict[str, Connector], closing: AsyncExitStack) -> Connector:
    otherwise: Connector = BuiltIn()
    if options.webhook is not None:
        from unit_agent.webhook import Webhook

        told = options.webhook
        settings = WebhookSettings(url=told) if isinstance(told, str) else told
        webhook = Webhook(settings.url, timeout=settings.timeout_seconds, secret_file=settings.secret_file)
        closing.push_async_callback(webhook.close)
        otherwise = webhook
    by_type = dict(sending)
    if options.programs:
        from unit_agent.program import Commands, Program

        for type_name, one in options.programs.items():
            by_type[type_name] = Program(Commands(one.run, one.ask, one.still_wanted, one.timeout_seconds))
    return ByType(by_type, otherwise) if by_type else otherwise


async def _hl7(settings: Hl7Settings, shared: Shared, closing: AsyncExitStack) -> dict[str, Connector]:
    """Listen and send as configured; answers the connectors that sending offers, by type."""
    if settings.listen is None and settings.send is None:
        return {}
    from unit_agent.hl7v2.interfaces import interfaces

    return await closing.enter_async_context(interfaces(settings.listen, settings.send, shared))


async def _serve_locally(folder: Path, port: int, shared: Shared, closing: AsyncExitStack) -> None:
    from infra.http_server import serving
    from infra.telemetry.metrics import Metrics
    from unit_agent.local_api import LocalApi, local_token, write_address

    api = LocalApi(shared, local_token(folder), Metrics())
    url = await closing.enter_async_context(serving(api.app(), host="127.0.0.1", port=port, grace=2))
    write_address(folder, url, os.getpid())
    log.info("local_api", unit_id=shared.unit_id, url=url)
