"""`carespine token`: a bearer token for local use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from contracts.identity import Role
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, result

if TYPE_CHECKING:
    from infra.installation import Places


def token(
    role: Annotated[str, typer.Option(help="One of " + ", ".join(role for role in Role if role is not Role.SYSTEM))],
    unit: Annotated[
        str | None, typer.Option(help="The one unit the bearer works for; the whole network if left out.")
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, help="Seconds it is good for.")] = 3600,
    subject: Annotated[str | None, typer.Option(help="The account id it speaks for.")] = None,
) -> None:
    """Print a token, and nothing else."""
    from infra.installation import Places

    allowed = [one.value for one in Role if one is not Role.SYSTEM]
    if role not in allowed:
        fail(f"there is no role {role!r}; there are: {', '.join(allowed)}", ExitCode.USAGE)
    if role == Role.UNIT and unit is None:
        fail("a unit's token needs --unit", ExitCode.USAGE)
    result(minted(Places.of_this_command(), Role(role), unit=unit, subject=subject, ttl=ttl))


def minted(places: Places, role: Role, *, unit: str | None = None, subject: str | None = None, ttl: int = 3600) -> str:
    """A token signed with the installation's own key; SettingsError where it has none."""
    from infra.installation import ensure_keys
    from infra.settings import SettingsError
    from infra.tokens import mint

    key = ensure_keys(places).get("CARESPINE_TOKEN_PRIVATE_KEY")
    if key is None:
        raise SettingsError({"TOKEN_PRIVATE_KEY": "is missing"})
    return mint(_pem(key), role=role, unit=unit, subject=subject, ttl=ttl)


def _pem(key: str) -> str:
    """The key itself, where the variable holds the path to it."""
    from pathlib import Path

    return key if key.startswith("-----BEGIN") else Path(key).read_text()
