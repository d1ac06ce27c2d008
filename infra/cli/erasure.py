"""`carespine erasure`: the database's files scrubbed after erasures, and a report's signature checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result

app = typer.Typer(no_args_is_help=True, help="After erasures: scrub, verify.")


@app.command("scrub")
def scrub() -> None:
    """Rewrite the tables, statistics and write-ahead log in which bytes of erased people may still stand.

    Locks one table after the other, and needs a superuser of Postgres. Whatever was archived or backed up elsewhere is
    yours to end.
    """
    import psycopg

    from infra.erasure import scrubbing
    from infra.installation import Places
    from infra.services.launcher import running_urls

    url = running_urls(Places.of_this_command().var).postgres
    if url is None:
        fail("Postgres is missing: set CARESPINE_POSTGRES_URL to a superuser's", ExitCode.UNREACHABLE)
    try:
        for step in scrubbing.scrub(url):
            progress(step)
    except psycopg.errors.LockNotAvailable:
        fail("a table was in use for too long; start again when it is quieter", ExitCode.TIMED_OUT)
    except psycopg.errors.InsufficientPrivilege:
        fail("this takes a superuser of Postgres", ExitCode.NOT_ALLOWED)
    except psycopg.OperationalError:
        fail("Postgres cannot be reached", ExitCode.UNREACHABLE)
    result("nothing of erased people is left in this server's files; backups and archives are yours to end")


@app.command("verify")
def verify(
    report: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="As GET …/erasure answered it.")],
    public_key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The key it was signed with, PEM.")],
) -> None:
    """Whether a report is as it was signed; exit code 7 when it is not."""
    from pydantic import ValidationError

    from infra.erasure.report import ErasureReport

    try:
        told = ErasureReport.model_validate_json(report.read_bytes())
        genuine = told.is_genuine(public_key.read_text(encoding="ascii"))
    except ValidationError:
        fail("that is no report of an erasure", ExitCode.USAGE)
    except (ValueError, OSError):
        fail("that is no public key, PEM", ExitCode.USAGE)
    if not genuine:
        fail("the report is not as it was signed, or another key signed it", ExitCode.CHECK_FAILED)
    result(f"genuine: erased at {told.erased_at.isoformat()}, {len(told.places)} places")
