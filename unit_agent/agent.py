"""One unit's agent, put together: store, link, execution of unit commands, local API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from unit_agent.connectors import BuiltIn, Connector
from unit_agent.credential import Credential
from unit_agent.execution import Execution
from unit_agent.link_state import LinkState, Shared
from unit_agent.store import Store
from unit_agent.uplink import Uplink

log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """What one agent is told."""

    url: str
    credential: Credential
    unit_id: str
    folder: Path
    http_port: int | None = None
    """Port of the local API, 0 for any free one; None: no local API."""
    webhook: str | None = None
    """The site's system; None: the built-in connector."""


@asynccontextmanager
async def running(options: Options, *, version: str, executor: Executor | None = None) -> AsyncIterator[Shared]:
    """An agent that runs while the block does. Raises StoreUnusable."""
    async with AsyncExitStack() as closing:
        store = closing.enter_context(Store(options.folder, options.unit_id, executor))
        state = LinkState(clock_skew=store.clock_skew)
        shared = Shared(options.unit_id, version, store, state, runnable=lambda: execution.wake())
        execution = Execution(
            store, _connector(options, closing), now=shared.state.now, reported=shared.outbox_changed.set
        )
        uplink = Uplink(options.url, options.credential, shared)
        if options.http_port is not None:
            await _serve_locally(options.folder, options.http_port, shared, closing)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(uplink.serve()), group.create_task(execution.serve())]
            try:
                yield shared
            finally:
                for task in tasks:
                    task.cancel()


# Sites are small machines: an agent loads an HTTP client or server only where it is told to use one.


def _connector(options: Options, closing: AsyncExitStack) -> Connector:
    if options.webhook is None:
        return BuiltIn()
    from unit_agent.webhook import Webhook

    webhook = Webhook(options.webhook)
    closing.push_async_callback(webhook.close)
    return webhook


async def _serve_locally(folder: Path, port: int, shared: Shared, closing: AsyncExitStack) -> None:
    from infra.http_server import serving
    from infra.telemetry.metrics import Metrics
    from unit_agent.local_api import LocalApi, local_token, write_address

    api = LocalApi(shared, local_token(folder), Metrics())
    url = await closing.enter_async_context(serving(api.app(), host="127.0.0.1", port=port, grace=2))
    write_address(folder, url, os.getpid())
    log.info("local_api", unit_id=shared.unit_id, url=url)
