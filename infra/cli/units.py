"""`carespine units`: which units there are and whether they are linked; letting an agent in, and shutting it out."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.identity import Role
from infra.cli import calling
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result, result_json, table

if TYPE_CHECKING:
    from infra.api import Api

Json = dict[str, Any]  # Any: a JSON object as the API gives it

JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
UnitArgument = Annotated[str, typer.Argument(metavar="UNIT", help="The unit's id.")]

app = typer.Typer(no_args_is_help=True, help="Units, their links and their agents' credentials.")


@app.command("list")
def list_units(
    connected: Annotated[
        bool | None, typer.Option("--connected/--away", help="Only those with a link, or without.")
    ] = None,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Units by id, and how each is linked."""
    units = calling.run(_list(url, token, connected))
    if json:
        result_json({"items": units})
        return
    table(
        ("unit", "name", "status", "link", "agent", "behind", "seen"),
        [
            [
                unit["unitId"],
                unit["name"],
                unit["status"],
                _link_of(unit),
                unit["agentVersion"] or "-",
                "-" if unit["lagEvents"] is None else str(unit["lagEvents"]),
                unit["seenAt"] or "never",
            ]
            for unit in units
        ],
    )
    progress(f"{len(units)} units" if units else "no units")


@app.command("enrol-code")
def enrol_code(
    unit: UnitArgument,
    hours: Annotated[int, typer.Option(min=1, max=168, help="How long it may be used.")] = 24,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Print a code with which one agent of the unit may register its key, once; it is shown here and nowhere else."""
    gateway = calling.where(url)
    key = secrets.token_hex(16)  # the request may be repeated on a bad line: the same code is shown then
    code = calling.run(
        _call(url, token, "POST", f"/api/units/{unit}/enrolment-codes", {"ttlSeconds": hours * 3600}, key=key)
    )
    if "code" not in code:
        fail("taken, but not handled yet; run it again in a moment", ExitCode.TIMED_OUT)
    if json:
        result_json(code)
        return
    result(code["code"])
    progress(f"good until {code['expiresAt']}, for one agent; at the unit:")
    progress(f"  unit-agent enrol --gateway {gateway} --unit {unit}")


@app.command()
def keys(
    unit: UnitArgument,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """The unit's keys and enrolment codes, the newest first; neither private keys nor codes are known here."""
    found = calling.run(_call(url, token, "GET", f"/api/units/{unit}/credentials"))
    if json:
        result_json(found)
        return
    table(
        ("key", "since", "state", "why"),
        [
            [one["keyId"], one["registeredAt"], _state_of_key(one), one["revokedBecause"] or "-"]
            for one in found["keys"]
        ],
    )
    unused = [one for one in found["enrolmentCodes"] if one["keyId"] is None and one["voidAt"] is None]
    progress(f"{len(found['keys'])} keys; enrolment codes that nobody has used: {len(unused)}")


@app.command()
def revoke(
    unit: UnitArgument,
    reason: Annotated[str, typer.Option(help="Why; the unit's history keeps it.")],
    key: Annotated[str | None, typer.Option(help="Only this key, as `keys` shows it; everything if left out.")] = None,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Shut the unit's agent out, within a second: its keys, unused enrolment codes and every token issued so far.

    Nothing is lost: what is meant for the unit waits until an agent has enrolled again.
    """
    body = {"reason": reason} | ({"keyId": key} if key else {})
    path = f"/api/units/{unit}/credentials/revoke"
    done = calling.run(_call(url, token, "POST", path, body, key=secrets.token_hex(16)))
    if json:
        result_json(done)
        return
    result(f"{unit}: {key or 'all credentials'} revoked")
    progress(f"to let an agent in again: carespine units enrol-code {unit}")


def _api(url: str | None, token: str | None) -> Api:
    from infra.api import Api

    return Api(calling.where(url), calling.who(token, Role.OPS), connections=1, deadline=20)


async def _list(url: str | None, token: str | None, connected: bool | None) -> list[Json]:
    query = {} if connected is None else {"connected": str(connected).lower()}
    async with _api(url, token) as api:
        return await api.every("/ops/units", query=query)


def _call(
    url: str | None, token: str | None, method: str, path: str, body: Json | None = None, *, key: str | None = None
) -> Coroutine[Any, Any, Json]:  # Any: asyncio's
    async def called() -> Json:
        async with _api(url, token) as api:
            headers = {"Idempotency-Key": key, "Prefer": "wait=10"} if key else None
            return await api.call(method, path, body=body, headers=headers)

    return called()


def _link_of(unit: Json) -> str:
    if unit["contested"]:
        return "contested by two agents"
    if unit["connected"]:
        return str(unit["bridge"])
    return f"unreachable since {unit['unreachableSince']}" if unit["unreachableSince"] else "-"


def _state_of_key(key: Json) -> str:
    if key["revokedAt"]:
        return f"revoked {key['revokedAt']}"
    return f"replaced, good until {key['validUntil']}" if key["validUntil"] else "in use"
