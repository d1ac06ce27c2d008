"""Runs the processes of one installation and starts again what crashes: `python -m infra.supervisor VAR`.

Knows how to start, watch and stop the programs of the plan, and keeps `var/run/state.json` true. SIGTERM stops them
in the reverse order of their start, each kind given time to finish what it has in hand. What they are is the plan's
business, whether they are ready their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.installation import CHECKOUT, Places, Plan, Program
from infra.services.detached import Identity, write_private

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
STEADY_AFTER = 30.0
"""Seconds a process must have run for its next crash to count as the first one."""
STOP_DEADLINE = 30.0
LOG_LIMIT = 20_000_000
LOG_LOOK = 5.0


@dataclass
class Child:
    """One program and how it fares."""

    program: Program
    state: str = "stopped"
    """starting (once, then whatever the process itself answers), crashed (waiting to be started again), stopped."""
    identity: Identity | None = None
    """None while no process runs."""
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    last_exit: int | None = None
    """The exit code of the last crash; None if there was none."""


class Supervisor:
    """The children of one plan, from the first start to the last exit."""

    def __init__(self, places: Places, plan: Plan) -> None:
        self._places = places
        self._children = [Child(program) for program in plan.programs]
        self._identity = Identity.of(os.getpid())
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep every program running until `stop` is called, then stop them in reverse order."""
        self._places.logs.mkdir(parents=True, exist_ok=True)
        self._record()
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(child)) for child in self._children]
            rotation = group.create_task(self._rotate_logs())
            await self._stopping.wait()
            for child, keeper in zip(reversed(self._children), reversed(keepers), strict=True):
                await self._end(child)
                keeper.cancel()
            rotation.cancel()
        self._places.state.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask for the end; `run` returns when everything has stopped."""
        self._stopping.set()

    async def _keep(self, child: Child) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            child.process = await self._start(child)
            code = await child.process.wait()
            child.process, child.identity = None, None
            if self._stopping.is_set():
                return
            pause = FIRST_PAUSE if time.monotonic() - began > STEADY_AFTER else pause
            child.state, child.last_exit = "crashed", code
            self._note(child, f"ended with exit code {code}; starting again in {pause:.1f} s")
            self._record()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            child.restarts += 1

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        child.program = self._as_planned_now(child.program)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CARESPINE_")}
        with self._log(child).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                child.program.package,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=inherited | dict(child.program.environment),
                cwd=CHECKOUT,
            )
        child.state = "running"
        child.identity = _identity_of(process.pid)
        self._record()
        return process

    def _as_planned_now(self, program: Program) -> Program:
        """A plan that was changed takes effect, process by process, as each is started again."""
        plan = Plan.read(self._places.plan)
        named = [planned for planned in plan.programs if planned.name == program.name] if plan else []
        return named[0] if named else program

    async def _end(self, child: Child) -> None:
        process = child.process
        if process:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_DEADLINE)
            except TimeoutError:
                self._note(child, f"did not stop within {STOP_DEADLINE:.0f} s and was killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        child.state, child.identity = "stopped", None
        self._record()

    async def _rotate_logs(self) -> None:
        """Copy a large log aside and empty it: the processes append to the open file and need not know."""
        while True:
            await asyncio.sleep(LOG_LOOK)
            for child in self._children:
                log = self._log(child)
                if log.stat().st_size > LOG_LIMIT:
                    await asyncio.to_thread(rotate, log)

    def _log(self, child: Child) -> Path:
        return self._places.logs / f"{child.program.name}.log"

    def _note(self, child: Child, line: str) -> None:
        with self._log(child).open("a") as log:
            log.write(f"supervisor: {line}\n")

    def _record(self) -> None:
        processes = [
            {
                "name": child.program.name,
                "state": child.state,
                "pid": child.identity.pid if child.identity else None,
                "started": child.identity.started if child.identity else None,
                "restarts": child.restarts,
                "last_exit": child.last_exit,
            }
            for child in self._children
        ]
        supervisor = {"pid": self._identity.pid, "started": self._identity.started}
        write_private(self._places.state, json.dumps({"supervisor": supervisor, "processes": processes}))


def _identity_of(pid: int) -> Identity | None:
    try:
        return Identity.of(pid)
    except psutil.NoSuchProcess:
        return None


def rotate(log: Path) -> None:
    """Move what a log holds aside, to `.log.1`, and leave the file its writers have open, empty."""
    shutil.copyfile(log, log.with_suffix(".log.1"))
    os.truncate(log, 0)


async def main(places: Places) -> None:
    """Run the plan kept in `places` until SIGTERM or SIGINT."""
    plan = Plan.read(places.plan)
    if plan is None:
        sys.exit(f"there is no plan at {places.plan}: `carespine up` makes one")
    supervisor = Supervisor(places, plan)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, supervisor.stop)
    await supervisor.run()


if __name__ == "__main__":
    asyncio.run(main(Places(Path(sys.argv[1]))))
