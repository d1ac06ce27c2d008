"""How every process lives: settings once, one loop, one task group, health, signals, an orderly end.

`run("gateway", main)` is all a package's `__main__` does. `main(process)` opens what it needs, calls
`process.started()`, waits for `process.stopping` and returns; what it opened closes in reverse. A task of
`process.tasks` that fails ends the process with exit code 1 and a log line, never silently and never half.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import structlog
from starlette.applications import Starlette

from infra.http_server import serving
from infra.settings import Settings, SettingsError
from infra.telemetry import logs
from infra.telemetry.health import Health, Readiness
from infra.telemetry.metrics import Metrics

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Python's own give pauses of 50 to 750 ms with thousands of connections; these, after a freeze, about 1 ms."""
SHUTDOWN_SECONDS: Final = 25.0
"""Within Kubernetes' 30 second grace."""
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()

Main = Callable[["Process"], Awaitable[None]]


class Process:
    """What `main` gets: settings, metrics, tasks, and the word to stop."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name: Final = name
        self.settings: Final = settings
        self.instance: Final = settings.identity.instance
        self.metrics: Final = Metrics()
        self.ready: Final = Readiness()
        self.health: Final = Health(name, self.instance, _version(), self.ready, self.metrics)
        self.stopping: Final = asyncio.Event()
        """Set by SIGTERM or SIGINT: finish what is under way, take nothing new, return."""
        self.tasks: asyncio.TaskGroup
        """The one task group. Whatever is left in it is cancelled when `main` returns."""
        self.closing: AsyncExitStack
        """Entered here, closed in reverse after the tasks have ended."""
        self.health_url: str

    def started(self) -> None:
        """Say that start-up is over: what exists now is kept out of garbage collection's way."""
        gc.collect()
        gc.freeze()
        self.ready.started = True
        log.info("started", url=self.health_url, version=self.health.version)

    def stop(self) -> None:
        """Ask this process to end."""
        self.ready.stopping = True
        self.stopping.set()


def run(name: str, main: Main) -> None:
    """Run a process to its end; leaves with exit code 0 (told to stop), 1 (failed) or 2 (settings)."""
    try:
        settings = Settings.from_environment(package=name)
    except SettingsError as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(2)
    logs.configure(level=settings.log_level, process=name, instance=settings.identity.instance)
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(_live(name, settings, main))
    sys.exit(code)


async def _live(name: str, settings: Settings, main: Main) -> int:
    process = Process(name, settings)
    process.metrics.build.info({"version": process.health.version})
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    whole = asyncio.current_task()
    deadline: asyncio.TimerHandle | None = None

    def signalled(number: signal.Signals) -> None:
        nonlocal deadline
        if process.stopping.is_set() and whole is not None:
            log.warning("stopping_at_once", signal=number.name)
            whole.cancel()
            return
        log.info("stopping", signal=number.name)
        process.stop()
        if whole is not None:
            deadline = loop.call_later(SHUTDOWN_SECONDS, whole.cancel)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, signalled, number)
    try:
        await _phases(process, main)
    except asyncio.CancelledError:
        log.critical("shutdown_overdue" if process.stopping.is_set() else "cancelled", seconds=SHUTDOWN_SECONDS)
        return 1
    except Exception as error:  # noqa: BLE001 - the last handler there is: whatever failed, say so and exit with 1
        return _failed(name, error)
    finally:
        if deadline is not None:
            deadline.cancel()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    log.info("stopped")
    return 0


async def _phases(process: Process, main: Main) -> None:
    listening = process.settings.health
    async with AsyncExitStack() as closing:
        process.closing = closing
        app = Starlette(routes=process.health.routes())
        process.health_url = await closing.enter_async_context(serving(app, host=listening.host, port=listening.port))
        try:
            async with asyncio.TaskGroup() as tasks:
                process.tasks = tasks
                await main(process)
                raise _Finished
        except* _Finished:
            pass


def _failed(name: str, error: Exception) -> int:
    """Say what ended the process; answers its exit code."""
    code = 1
    for one in logs.leaves(error):
        if isinstance(one, SettingsError):
            sys.stderr.write(f"{name}: {one}\n")
            log.critical("settings_incomplete", variables=sorted(one.problems))
            code = 2
        else:
            log.critical("crashed", **logs.describe(one))
    return code


class _Finished(Exception):
    """`main` has returned: ends the task group and whatever still runs in it."""


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # Any: asyncio's own definition
    # asyncio's message and future hold reprs of exceptions, which may quote data: only the type and the places are
    # kept.
    log.error("unhandled", **logs.describe(context.get("exception")))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _version() -> str:
    try:
        return version("carespine")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
