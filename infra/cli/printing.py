"""How commands speak: results on standard output, the way there on standard error, colour on terminals only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from infra.cli.exit_codes import ExitCode


def result(text: str) -> None:
    """A line of the answer itself."""
    sys.stdout.write(text + "\n")


def result_json(content: Any) -> None:  # Any: whatever JSON can say
    """The answer as JSON, indented for readers and stable for programs."""
    result(json.dumps(content, indent=2))


def progress(text: str) -> None:
    """A line about what is being done."""
    typer.echo(text, err=True)


def terminal() -> Console:
    """A console on standard output that leaves out colour and width where nobody looks."""
    from rich.console import Console

    return Console(highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; anywhere else the same columns with a tab between them, for `cut` and `awk`."""
    if not sys.stdout.isatty():
        for row in rows:
            result("\t".join(row))
        return
    from rich.table import Table

    found = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        found.add_row(*row)
    terminal().print(found)


def fail(text: str, code: ExitCode) -> NoReturn:
    """Say what went wrong and end with the code for it."""
    typer.echo(text, err=True)
    raise typer.Exit(code)
