"""`carespine import`: units and patients from FHIR R4 NDJSON, by the way every command goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.identity import Role
from infra.cli import calling
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result, result_json

if TYPE_CHECKING:
    from infra.fhir.importer import Import, Source

MRN_PATTERN = "[A-Za-z0-9][A-Za-z0-9-]{0,63}"
"""Admits the numbers of most systems; an installation that is strict about them says so."""

File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="NDJSON, one resource a line.")]


def run(
    organizations: File = None,
    patients: File = None,
    unit: Annotated[
        str | None, typer.Option(help="Where patients without a managing organization belong, instead of spreading.")
    ] = None,
    zone: Annotated[str, typer.Option(help="IANA time zone of the units that are registered.")] = "UTC",
    mrn_pattern: Annotated[
        str, typer.Option(help="Medical record numbers of the units that are registered.")
    ] = MRN_PATTERN,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="JSON lines of what was refused; var/import-report.jsonl.")
    ] = None,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: the summary as JSON.")] = False,
) -> None:
    """Register units and patients from FHIR R4 NDJSON. Broken off or repeated, it goes on and does nothing twice.

    Units come from organizations. Patients belong to their managing organization; those without one are spread over
    the imported units by SHA-256 of the patient's id. Exit code 6 if a line was refused; the report says which and why.
    """
    from infra.installation import Places

    source = _source(organizations, patients, unit, zone, mrn_pattern)
    var = Places.of_this_command().var
    report = report or var / "import-report.jsonl"
    done = calling.run(_import(source, calling.where(url), calling.who(token, Role.STAFF), var / "import", report))
    summary = {
        "organizations": done.organizations.to_dict(),
        "patients": done.patients.to_dict(),
        "report": str(report),
    }
    if json:
        result_json(summary)
    else:
        _print(summary)
    if done.organizations.refused or done.patients.refused:
        progress(f"refused lines are in {report}")
        raise typer.Exit(ExitCode.CONFLICT)


def _source(organizations: Path | None, patients: Path | None, unit: str | None, zone: str, mrn_pattern: str) -> Source:
    from pydantic import ValidationError

    from contracts.ids import UNIT_ID
    from contracts.unit import UnitSettings
    from infra.fhir.importer import Source

    if organizations is None and patients is None:
        fail("name at least one file: --organizations, --patients", ExitCode.USAGE)
    if organizations is None and unit is None:
        fail("patients need units: add --organizations (repeating it changes nothing) or --unit", ExitCode.USAGE)
    if unit is not None and not UNIT_ID.fullmatch(unit):
        fail("--unit must be 1 to 40 characters: a to z, 0 to 9 and dashes", ExitCode.USAGE)
    try:
        settings = UnitSettings(zone=zone, mrn_pattern=mrn_pattern)
    except ValidationError as trouble:
        fail("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in trouble.errors()), ExitCode.USAGE)
    return Source(organizations=organizations, patients=patients, settings=settings, unit_id=unit)


async def _import(source: Source, url: str, token: str, folder: Path, report: Path) -> Import:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from infra.api import Api
    from infra.fhir.importer import IN_FLIGHT, Import
    from infra.fhir.trail import Checkpoint

    files = tuple(path for path in (source.organizations, source.patients) if path)
    settings = source.settings.to_dict() | ({"unit": source.unit_id} if source.unit_id else {})
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        steps = {
            kind: bar.add_task(kind, total=_line_count(path))
            for kind, path in (("Organization", source.organizations), ("Patient", source.patients))
            if path
        }
        async with Api(url, token, connections=IN_FLIGHT) as api:
            work = Import(
                api,
                source,
                report=report,
                checkpoint=Checkpoint(folder, url=url, files=files, settings=settings),
                moved=lambda kind: bar.advance(steps[kind]),
            )
            await work.run()
    return work


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _print(summary: dict[str, Any]) -> None:  # Any: JSON
    for kind in ("organizations", "patients"):
        tally = summary[kind]
        skipped = f", {tally['skipped']} done by an earlier run" if tally["skipped"] else ""
        result(
            f"{kind:<14} {tally['registered']} registered, {tally['unchanged']} unchanged, {tally['refused']} refused"
            f"{skipped}; at {tally['units']} units"
        )
        for code, count in tally["reasons"].items():
            result(f"{'':<14} {count} x {code}")
