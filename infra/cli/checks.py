"""`carespine doctor`: everything that can be checked from here, each with what to do about it. Read-only."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.exit_codes import ExitCode
from infra.cli.printing import progress, result, result_json

if TYPE_CHECKING:
    from infra.findings import Finding
    from infra.installation import Places

DISK_WANTED = 2_000_000_000
MARKS = {"ok": "✓ ok", "warning": "! warning", "failed": "✗ failed"}


def doctor(
    json: Annotated[
        bool, typer.Option("--json", help="For programs: a list of {id, state, seen, expected, remedy}.")
    ] = False,
) -> None:
    """Check machine, Postgres, RabbitMQ, topology and processes; exit code 7 if anything failed."""
    from infra.installation import Places

    findings = _findings(Places.of_this_command())
    failed = [finding for finding in findings if finding.state == "failed"]
    if json:
        result_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            result(f"{MARKS[finding.state]:<10} {finding.id:<34} {finding.seen}")
            if finding.state != "ok":
                result(f"{'':<11}expected: {finding.expected}")
                result(f"{'':<11}do this:  {finding.remedy}")
        progress(f"{len(failed)} of {len(findings)} checks failed" if failed else f"all {len(findings)} checks passed")
    if failed:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _findings(places: Places) -> list[Finding]:
    from infra import database
    from infra.broker import topology
    from infra.cli.schema import partitions
    from infra.services.launcher import running_urls

    services = running_urls(places.var)
    return [
        *_of_the_machine(places),
        *(database.check(services.postgres) if services.postgres else [_missing("postgres", "CARESPINE_POSTGRES_URL")]),
        *(
            asyncio.run(topology.check(services.rabbitmq, partitions=partitions()))
            if services.rabbitmq
            else [_missing("rabbitmq", "CARESPINE_RABBITMQ_URL")]
        ),
        *_of_the_processes(places),
    ]


def _of_the_machine(places: Places) -> list[Finding]:
    import shutil
    import sys

    from infra.findings import Finding

    version = ".".join(str(part) for part in sys.version_info[:3])
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    folder = next(path for path in (places.var, *places.var.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    return [
        Finding(
            id="machine.python",
            state="ok" if supported else "failed",
            seen=version,
            expected="3.11, 3.12 or 3.13",
            remedy="make the environment anew with a supported Python: make clean test PYTHON=python3.12",
        ),
        Finding(
            id="machine.disk",
            state="ok" if free > DISK_WANTED else "failed",
            seen=f"{free / 1e9:.1f} GB free under {folder.name}/",
            expected=f"at least {DISK_WANTED / 1e9:.0f} GB",
            remedy="free some space, or put the data elsewhere with CARESPINE_VAR",
        ),
    ]


def _of_the_processes(places: Places) -> list[Finding]:
    from infra.findings import Finding
    from infra.running import processes

    seen = processes(places)
    if not seen:
        idle = "only services run here"
        return [
            Finding("processes.running", "warning", idle, "gateway, handlers, projections and bridges", "carespine up")
        ]
    return [
        Finding(
            id=f"processes.{process.name}",
            state="ok" if process.state == "ready" else "failed",
            seen=process.state + (f": {process.why}" if process.why else ""),
            expected="ready",
            remedy=f"see `carespine logs {process.name}`",
        )
        for process in seen
    ]


def _missing(service: str, variable: str) -> Finding:
    from infra.findings import Finding

    return Finding(
        id=f"{service}.reachable",
        state="failed",
        seen=f"{variable} is not set, and none of ours runs",
        expected="a server that answers",
        remedy=f"start one with `carespine up`, or set {variable}",
    )
