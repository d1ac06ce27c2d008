"""The demo's network: services, a fresh database and virtual host, the processes of one installation in `var/demo`.

Starts and stops them, kills one, rolls out a repaired release. Agents at units are `infra.demo.agents`'. Blocking
throughout: the clinic day calls it from a thread.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from contracts.identity import Role
from infra import running
from infra.cli.schema import bring_to_release
from infra.cli.tokens import minted
from infra.demo.view import Say
from infra.installation import Counts, Places, Plan, make_plan
from infra.services import virtual_hosts
from infra.services.detached import ServiceTrouble
from infra.services.launcher import Services, ensure_services

DEFECT = "CARESPINE_REHEARSE_DEFECT"
"""Environment variable that makes a handler in development mode fail at one type of command."""
READY_DEADLINE = 90.0
PREFIX = "demo_"
TOKEN_SECONDS = 24 * 3600


class Network:
    """Everything of the demo but the units; a context manager that leaves nothing of it behind."""

    def __init__(self, places: Places, *, defect: str, say: Say) -> None:
        self.places = places
        self.plan: Plan
        """The processes and their URLs; there once the network has been entered."""
        self.postgres_url: str
        self._services: Services | None = None
        self._defect = defect
        self._say = say
        self._name = f"{PREFIX}{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def token(self, role: Role, *, unit: str | None = None, subject: str | None = None) -> str:
        """A token signed with the demo's own key."""
        return minted(self.places, role, unit=unit, subject=subject, ttl=TOKEN_SECONDS)

    def kill(self, name: str) -> int:
        """Kill -9 one process, whose supervisor starts it again; answers the process id that is no more."""
        process = self._process(name)
        process.kill()
        return process.pid

    def roll_out_repair(self) -> None:
        """Replace the handlers, one after the other, by ones that do not have the defect."""
        self.plan = _with_environment(self.plan, DEFECT, None)
        self.plan.write(self.places.plan)
        for program in self.plan.programs:
            if program.package == "command_handlers":
                self._restart(program.name)

    def _restart(self, name: str) -> None:
        before = self._process(name)
        before.terminate()
        deadline = time.monotonic() + READY_DEADLINE
        while True:
            now = next(process for process in running.processes(self.places) if process.name == name)
            if now.pid not in (None, before.pid) and now.state == "ready":
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} did not come back: {now.state} {now.why}")
            time.sleep(0.1)

    def _process(self, name: str) -> psutil.Process:
        found = next(process for process in running.processes(self.places) if process.name == name)
        if found.pid is None:
            raise ServiceTrouble(f"{name} does not run: {found.state} {found.why}")
        return psutil.Process(found.pid)

    def _start(self) -> None:
        running.stop(self.places)  # what a demo that was killed left behind
        self._services = services = ensure_services(self.places.var, say=self._say)
        self._say(f"Postgres ({services.postgres_origin}) and RabbitMQ ({services.rabbitmq_origin}) answer")
        if services.postgres:  # ours: what a demo that was killed left behind is nobody's
            _drop_databases(services.postgres_url)
        self.postgres_url = _fresh_database(services.postgres_url, self._name)
        rabbitmq_url = services.rabbitmq_url
        if services.management_url:
            rabbitmq_url = virtual_hosts.create(services.management_url, self._name, rabbitmq_url=rabbitmq_url)
        bring_to_release(self.postgres_url, rabbitmq_url)
        self._say("a fresh database and broker have this release's schema and topology")
        plan = make_plan(self.places, postgres_url=self.postgres_url, rabbitmq_url=rabbitmq_url, counts=Counts())
        self.plan = _with_environment(plan, DEFECT, self._defect)
        running.start(self.places, self.plan)
        running.wait_until_ready(self.places, timeout=READY_DEADLINE)
        self._say(f"{len(plan.programs)} processes are ready, two each of handlers and bridges")

    def _stop(self) -> None:
        running.stop(self.places)
        if self._services is None:
            return
        if self._services.management_url:
            virtual_hosts.delete(self._services.management_url, self._name)
        with contextlib.suppress(psycopg.OperationalError):
            _drop_databases(self._services.postgres_url, self._name)
        self._services.stop()


def _with_environment(plan: Plan, name: str, value: str | None) -> Plan:
    """The plan with one variable set for the handlers, or taken away from them."""

    def changed(environment: dict[str, str]) -> dict[str, str]:
        kept = {variable: content for variable, content in environment.items() if variable != name}
        return kept if value is None else kept | {name: value}

    programs = [
        replace(program, environment=changed(dict(program.environment)))
        if program.package == "command_handlers"
        else program
        for program in plan.programs
    ]
    return replace(plan, programs=programs)


def _drop_databases(postgres_url: str, name: str | None = None) -> None:
    """Drop the database of that name, or of every demo there ever was, whoever is still connected."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        found = server.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (name or PREFIX,))
        for (database,) in found.fetchall():
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def _fresh_database(postgres_url: str, name: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    parts = urlsplit(postgres_url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))
