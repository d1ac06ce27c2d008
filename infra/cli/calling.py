"""Commands that speak to the API: where it is, with which token, and what exit code its answers mean."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from contracts.identity import Role
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail

if TYPE_CHECKING:
    from infra.api import Declined

T = TypeVar("T")

UrlOption = Annotated[
    str | None, typer.Option("--url", envvar="CARESPINE_URL", help="The gateway; the one running here if left out.")
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="CARESPINE_TOKEN", help="A bearer token; one of this installation if left out."),
]


def where(url: str | None) -> str:
    """The gateway's URL: the given one, else that of the installation running here."""
    from infra.installation import Places, Plan
    from infra.running import supervisor

    if url:
        return url.rstrip("/")
    places = Places.of_this_command()
    plan = Plan.read(places.plan) if supervisor(places) else None
    if plan is None:
        fail("nothing runs here: start it with `carespine up`, or name a gateway with --url", ExitCode.UNREACHABLE)
    return plan.gateway_url


def who(token: str | None, role: Role) -> str:
    """The bearer token: the given one, else a fresh one of `role`, signed with this installation's own key."""
    from infra.cli.tokens import minted
    from infra.installation import Places

    return token or minted(Places.of_this_command(), role, subject=os.environ.get("USER") or role.value)


def run(work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields is asyncio's
    """Do what speaks to the API; its known ways to fail become a message and an exit code."""
    from infra.api import Declined, NotLetIn, Unreachable

    try:
        return asyncio.run(work)
    except Unreachable as trouble:
        fail(f"the gateway did not answer in time ({trouble}); running the same again is safe", ExitCode.UNREACHABLE)
    except NotLetIn as trouble:
        fail(f"the token does not allow this ({trouble})", ExitCode.NOT_ALLOWED)
    except Declined as trouble:
        fail(f"{trouble} ({trouble.code})", _code_of(trouble))


def _code_of(trouble: Declined) -> ExitCode:
    if trouble.status == 404:
        return ExitCode.NOT_FOUND
    if trouble.status in (409, 412, 422):
        return ExitCode.CONFLICT
    return ExitCode.USAGE if trouble.status == 400 else ExitCode.FAILED
