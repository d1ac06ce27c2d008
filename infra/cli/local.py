"""The installation on this machine: `up`, `down`, `status`, `logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result, result_json

if TYPE_CHECKING:
    from pathlib import Path

    from infra.installation import Plan
    from infra.running import ProcessStatus
    from infra.services.launcher import RunningUrls

READY_DEADLINE = 90.0


def up(
    services_only: Annotated[bool, typer.Option(help="Only Postgres and RabbitMQ.")] = False,
    handlers: Annotated[int, typer.Option(min=1, max=16, help="Command handler processes.")] = 2,
    projections: Annotated[int, typer.Option(min=1, max=16, help="Projection processes.")] = 1,
    bridges: Annotated[int, typer.Option(min=1, max=16, help="WebSocket bridge processes.")] = 2,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 for a free one.")] = 0,
    bridge_port: Annotated[
        int, typer.Option(min=0, max=65500, help="The first bridge's port, the others' follow; 0 for free ones.")
    ] = 0,
) -> None:
    """Start everything here: services, schema, processes. What runs already is left running."""
    from infra.cli.schema import bring_to_release
    from infra.installation import Counts, Places, make_plan
    from infra.running import processes, start, wait_until_ready
    from infra.services.launcher import ensure_services

    places, began = Places.of_this_command(), time.monotonic()

    def step(text: str) -> None:
        progress(f"{time.monotonic() - began:5.1f} s  {text}")

    services = ensure_services(places.var, say=step)
    step(f"Postgres answers ({services.postgres_origin})")
    step(f"RabbitMQ answers ({services.rabbitmq_origin})")
    if services_only:
        result(f"export CARESPINE_POSTGRES_URL={services.postgres_url}")
        result(f"export CARESPINE_RABBITMQ_URL={services.rabbitmq_url}")
        return
    bring_to_release(services.postgres_url, services.rabbitmq_url)
    step("schema and topology are those of this release")
    if not processes(places):
        plan = make_plan(
            places,
            postgres_url=services.postgres_url,
            rabbitmq_url=services.rabbitmq_url,
            counts=Counts(handlers=handlers, projections=projections, bridges=bridges),
            fixed_ports=_fixed_ports(http_port, bridge_port, bridges),
        )
        start(places, plan)
    wait_until_ready(places, timeout=READY_DEADLINE, hear=lambda process: step(f"{process.name} is ready"))
    for line in _addresses(places.plan):
        result(line)


def _fixed_ports(http_port: int, bridge_port: int, bridges: int) -> dict[str, int]:
    """The ports the caller chose, by the plan's names for them."""
    gateway = {"gateway-1/http": http_port} if http_port else {}
    sockets = (
        {f"bridge-{number}/socket": bridge_port + number - 1 for number in range(1, bridges + 1)} if bridge_port else {}
    )
    return gateway | sockets


def down(
    keep_services: Annotated[bool, typer.Option(help="Leave Postgres and RabbitMQ running.")] = False,
) -> None:
    """Stop everything that `up` started here, cleanly. Data stays; services given by URL are left alone."""
    from infra.installation import Places
    from infra.running import stop
    from infra.services.launcher import stop_services

    places = Places.of_this_command()
    if stop(places):
        progress("stopped the processes")
    for name in [] if keep_services else stop_services(places.var):
        progress(f"stopped {name}")


def status(
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What runs here and where it can be reached; exit code 3 if nothing does."""
    from infra.installation import Places, Plan
    from infra.running import processes
    from infra.services.launcher import running_urls

    places = Places.of_this_command()
    services, seen = running_urls(places.var), processes(places)
    if not seen and services.postgres is None and services.rabbitmq is None:
        fail("nothing runs here: start it with `carespine up`", ExitCode.UNREACHABLE)
    report = _report(Plan.read(places.plan) if seen else None, services, seen)
    if json:
        result_json(report)
    else:
        _print_table(report)


def logs(
    process: Annotated[
        str | None, typer.Argument(help="One process, as `status` names it; all of them if left out.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
) -> None:
    """The last lines of the processes' logs."""
    from infra.installation import Places

    folder = Places.of_this_command().logs
    chosen = sorted(folder.glob(f"{process or '*'}.log"))
    if not chosen:
        there = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none yet"
        fail(f"no log of {process or 'any process'} here; there are: {there}", ExitCode.NOT_FOUND)
    offsets = {path: path.stat().st_size for path in chosen}
    for path in chosen:
        for line in path.read_text(errors="replace").splitlines()[-lines:] if lines else []:
            result(_labelled(path, line, alone=len(chosen) == 1))
    while follow:
        for path, offset in offsets.items():
            offsets[path] = _print_from(path, offset, alone=len(chosen) == 1)
        time.sleep(0.3)


def _report(plan: Plan | None, services: RunningUrls, seen: list[ProcessStatus]) -> dict[str, Any]:  # Any: JSON
    """What `status --json` says; others are written against these names."""
    nowhere: dict[str, str | None] = {"unit_url": None, "portal_url": None}
    return {
        "gateway": {"url": plan.gateway_url if plan else None},
        "bridge": plan.bridges[0] if plan else nowhere,
        "bridges": plan.bridges if plan else [],
        "postgres": {"url": services.postgres},
        "rabbitmq": {"url": services.rabbitmq},
        "processes": [
            {
                "name": process.name,
                "pid": process.pid,
                "state": process.state,
                "health_url": process.health_url,
                "restarts": process.restarts,
            }
            for process in seen
        ],
    }


def _print_table(report: dict[str, Any]) -> None:  # Any: JSON
    from rich.table import Table

    from infra.cli.printing import terminal

    table = Table("what", "state", "where", box=None, pad_edge=False)
    for name in ("postgres", "rabbitmq"):
        url = report[name]["url"]
        table.add_row(name, "answers" if url else "silent", _without_password(url or ""))
    for process in report["processes"]:
        restarts = f" (started again {process['restarts']} times)" if process["restarts"] else ""
        table.add_row(process["name"], process["state"] + restarts, f"pid {process['pid']}  {process['health_url']}")
    if report["gateway"]["url"]:
        table.add_row("API", "", report["gateway"]["url"])
        for bridge in report["bridges"]:
            table.add_row("units", "", bridge["unit_url"])
            table.add_row("portals", "", bridge["portal_url"])
    terminal().print(table)


def _addresses(plan_path: Path) -> list[str]:
    from infra.installation import Plan

    plan = Plan.read(plan_path)
    if plan is None:
        return []
    return [
        "",
        f"API       {plan.gateway_url}/api",
        f"OpenAPI   {plan.gateway_url}/openapi.json",
        *(f"units     {bridge['unit_url']}" for bridge in plan.bridges),
        *(f"portals   {bridge['portal_url']}" for bridge in plan.bridges),
        "token     carespine token --role staff",
        "stop      carespine down",
    ]


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}" if parts.hostname else ""


def _labelled(path: Path, line: str, *, alone: bool) -> str:
    return line if alone else f"{path.stem}: {line}"


def _print_from(path: Path, offset: int, *, alone: bool) -> int:
    """Print what was appended since; a file that shrank was emptied, so it is read from its start."""
    size = path.stat().st_size
    if size == offset:
        return offset
    with path.open(errors="replace") as file:
        file.seek(offset if size > offset else 0)
        for line in file.read().splitlines():
            result(_labelled(path, line, alone=alone))
    return size
