"""`carespine dead-letters`: what could not be handled; replaying it in order, giving it up, each with a reason."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from contracts.identity import Role
from infra.cli import calling
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result, result_json, table

if TYPE_CHECKING:
    from infra.api import Api

Json = dict[str, Any]  # Any: a JSON object as the API gives it
LOOK_SECONDS = 0.2
SETTLED = frozenset({"applied", "already-applied", "refused", "failed", "skipped"})

JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why; the ledger keeps it.")]
LetterArgument = Annotated[UUID, typer.Argument(metavar="ID", help="A dead letter's id, as `list` shows it.")]

app = typer.Typer(no_args_is_help=True, help="What could not be handled: list, show, replay, discard.")


@app.command("list")
def list_letters(
    status: Annotated[str, typer.Option(help="open, replaying, replayed, discarded or any.")] = "open",
    reason: Annotated[
        list[str] | None, typer.Option(help="Only these: bug, unit_expired, unit_rejected, … May be given again.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Only letters of this unit.")] = None,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Dead letters, the oldest first. Payloads stay sealed."""
    letters = calling.run(_list(url, token, status, reason or [], unit))
    if json:
        result_json({"items": letters})
        return
    table(
        ("id", "reason", "command", "unit", "stream", "attempts", "behind it", "status"),
        [
            [
                letter["letterId"],
                letter["reason"] + (f" ({letter['errorType']})" if letter["errorType"] else ""),
                letter["type"] or "-",
                letter["unitId"] or "-",
                letter["stream"] or "-",
                str(letter["attempts"]),
                str(letter["followers"]),
                letter["status"],
            ]
            for letter in letters
        ],
    )
    progress(f"{len(letters)} dead letters" if letters else "no dead letters")


@app.command()
def show(
    letter_id: LetterArgument,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Open the payload too; the ledger keeps that you did.")
    ] = False,
    reason: ReasonOption = None,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """One dead letter: why it failed, where in the code, what waits behind it."""
    if reveal and not reason:
        fail("--reveal needs --reason: somebody looks at what may be a patient's data", ExitCode.USAGE)
    letter = calling.run(_show(url, token, letter_id, reason if reveal else None))
    if json:
        result_json(letter)
        return
    for name, value in letter.items():
        if value not in (None, ""):
            result(f"{name:<15} {_indented(value)}")


@app.command()
def replay(
    letter_ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="Dead letters' ids.")],
    reason: ReasonOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run, in its order.")] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Run unit commands again although they may have been done already.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end; 0: not at all.")] = 60.0,
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Have letters handled again, in the order of their streams; what stands in the same streams comes along.

    A letter about a unit command has the unit try it again, until a deadline of its own; `applied` means that it was
    asked, and the command's status tells what the unit made of it. Exit code 6 if a rule refused one (or it is in doubt
    and not confirmed), 7 if one failed again, 8 if it is not over in time.
    """
    if not dry_run and not reason:
        fail("a replay needs --reason; see what it would do with --dry-run", ExitCode.USAGE)
    run = calling.run(_replay(url, token, letter_ids, reason or "dry run", dry_run=dry_run, confirm=confirm, wait=wait))
    if json:
        result_json(run)
    else:
        table(
            ("order", "id", "stream", "outcome"),
            [
                [str(place), item["letterId"], item.get("stream") or "-", item.get("status") or _would(item)]
                for place, item in enumerate(run["items"], start=1)
            ],
        )
    outcomes = {item.get("status") for item in run["items"]}
    if dry_run or wait == 0 or outcomes <= {"applied", "already-applied"}:
        return
    if "failed" in outcomes:
        raise typer.Exit(ExitCode.CHECK_FAILED)
    raise typer.Exit(ExitCode.CONFLICT if outcomes <= SETTLED else ExitCode.TIMED_OUT)


@app.command()
def discard(
    letter_id: LetterArgument,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")],
    url: calling.UrlOption = None,
    token: calling.TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Give a dead letter up for good; its stream goes on when nothing else holds it."""
    letter = calling.run(_post(url, token, f"/ops/dead-letters/{letter_id}/discard", {"reason": reason}))
    if json:
        result_json(letter)
    else:
        result(f"{letter_id} discarded")


def _api(url: str | None, token: str | None) -> Api:
    from infra.api import Api

    return Api(calling.where(url), calling.who(token, Role.OPS), connections=1, deadline=20)


async def _list(url: str | None, token: str | None, status: str, reasons: list[str], unit: str | None) -> list[Json]:
    query: dict[str, str | list[str]] = {"status": status}
    query |= {"reason": reasons} if reasons else {}
    query |= {"unit": unit} if unit else {}
    async with _api(url, token) as api:
        return await api.every("/ops/dead-letters", query=query)


async def _show(url: str | None, token: str | None, letter_id: UUID, reveal_because: str | None) -> Json:
    path = f"/ops/dead-letters/{letter_id}"
    if reveal_because is not None:
        return await _post(url, token, f"{path}/reveal", {"reason": reveal_because})
    async with _api(url, token) as api:
        return await api.get(path)


async def _post(url: str | None, token: str | None, path: str, body: Json) -> Json:
    async with _api(url, token) as api:
        return await api.call("POST", path, body=body)


async def _replay(
    url: str | None,
    token: str | None,
    letter_ids: list[UUID],
    reason: str,
    *,
    dry_run: bool,
    confirm: bool,
    wait: float,
) -> Json:
    """The plan, with what became of each letter once that is known."""
    async with _api(url, token) as api:
        ids = [str(letter_id) for letter_id in letter_ids]
        body = {"letterIds": ids, "reason": reason, "dryRun": dry_run, "confirm": confirm}
        run = await api.call("POST", "/ops/replays", body=body)
        if run["runId"] is None:
            return run
        streams = {item["letterId"]: item["stream"] for item in run["items"]}
        end_by = asyncio.get_running_loop().time() + wait
        while True:
            seen = await api.get(f"/ops/replays/{run['runId']}")
            if seen["status"] != "running" or asyncio.get_running_loop().time() >= end_by:
                items = [item | {"stream": streams.get(item["letterId"])} for item in seen["items"]]
                return seen | {"items": items}
            await asyncio.sleep(LOOK_SECONDS)


def _would(item: Json) -> str:
    """What a dry run says of a letter."""
    return "in doubt: needs --confirm" if item["inDoubt"] else "would run"


def _indented(value: object) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip().replace("\n", "\n" + " " * 16)
