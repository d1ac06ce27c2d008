"""The `carespine` command put together, and how what went wrong becomes an exit code.

Commands import what they work with when they are called, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import logging
from typing import Any

import typer
from typer.core import TyperGroup

from infra.cli import checks, dead_letters, demo, erasure, import_fhir, keys, local, schema, tokens, units
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail
from infra.services.detached import ServiceTrouble


class Answering(TyperGroup):
    """Turns the known ways to fail into a message and an exit code; anything else is a bug and shows its traceback."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer's context, whose module differs between its releases
        from infra.running import StartFailed
        from infra.settings import SettingsError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except ServiceTrouble as trouble:
            fail(str(trouble), ExitCode.UNREACHABLE)
        except StartFailed as trouble:
            fail(str(trouble), ExitCode.FAILED)
        except SettingsError as trouble:
            fail(str(trouble), ExitCode.USAGE)
        except TimeoutError as trouble:
            fail(str(trouble) or "timed out", ExitCode.TIMED_OUT)


app = typer.Typer(
    cls=Answering,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its panels print local variables, and those may be about a patient
    help="Connects a health network to its healthcare units. Start with `carespine up` or `carespine demo`.",
)
app.command()(local.up)
app.command()(local.down)
app.command()(local.status)
app.command()(local.logs)
app.command()(schema.migrate)
app.command()(checks.doctor)
app.command()(tokens.token)
app.command("demo")(demo.run)
app.command("import")(import_fhir.run)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(units.app, name="units")
app.add_typer(keys.app, name="keys")
app.add_typer(erasure.app, name="erasure")


def main() -> None:
    """The console script."""
    # The broker's client logs each failed login; commands say it in their own words, once.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    app()
