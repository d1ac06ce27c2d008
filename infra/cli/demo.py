"""`carespine demo`: a clinic day on a network of its own, with faults, and an account that has to balance."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.identity import Role
from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, result

if TYPE_CHECKING:
    from rich.console import Console

    from infra.demo.account import Account
    from infra.demo.clinic_day import ClinicDay, Shape
    from infra.demo.network import Network
    from infra.installation import Places


def run(
    units: Annotated[
        int, typer.Option(min=4, max=200, help="Healthcare units; three have an agent of their own.")
    ] = 20,
    patients: Annotated[int, typer.Option(min=60, max=100_000, help="Patients, spread over the units.")] = 600,
    seconds: Annotated[float, typer.Option(min=15, help="Of traffic, at least.")] = 40.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C.")] = False,
) -> None:
    """A clinic day in two minutes: traffic, kill -9, a unit offline, a poison command; exit code 1 if anything is lost.

    Everything is its own: services, database, processes and agents live under var/demo and are gone afterwards. The
    account is in var/demo.json too.
    """
    from infra.api import Unreachable
    from infra.demo.clinic_day import Shape
    from infra.demo.poison import NotAsExpected
    from infra.installation import Places

    base = Places.of_this_command()
    os.environ["CARESPINE_MODE"] = "development"  # it makes its own keys and rehearses a defect
    shape = Shape(units=units, patients=patients, seconds=seconds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely, it takes everything with it
    try:
        balanced = _run(Places(base.var / "demo"), base, shape, keep=keep)
    except (NotAsExpected, Unreachable) as trouble:
        fail(f"the day could not go on: {trouble}; see the processes' logs under var/demo", ExitCode.FAILED)
    if not balanced:
        fail("the account does not balance: see above, and the processes' logs under var/demo", ExitCode.FAILED)


def _run(places: Places, base: Places, shape: Shape, *, keep: bool) -> bool:
    from rich.console import Console

    from infra.demo.clinic_day import ClinicDay
    from infra.demo.network import Network
    from infra.demo.poison import DEFECT
    from infra.demo.view import View

    console = Console(highlight=False)
    began = time.monotonic()
    view = View(console)
    with Network(places, defect=DEFECT, say=view.say) as network:
        day = ClinicDay(network, shape, view)
        try:
            with view.showing(lambda: day.numbers):
                account = asyncio.run(day.run())
            seconds = time.monotonic() - began
            _write(base, shape, day, account, seconds)
            _print(console, day, account, seconds)
            if keep:
                _stay(console, network)
        finally:
            asyncio.run(day.end())
    return account.balances


def _write(base: Places, shape: Shape, day: ClinicDay, account: Account, seconds: float) -> None:
    report: dict[str, Any] = {  # Any: JSON
        **account.to_dict(),
        "seconds": round(seconds, 1),
        "units": shape.units,
        "commands": {"sent": len(day.ledger.entries), **day.ledger.by_status()},
        "visits": {"begun": len(day.visits.all()), **day.visits.counts()},
        "faults": day.story.faults,
        "offlineUnit": {"missed": day.story.missed, "caughtUpSeconds": round(day.story.catch_up_seconds, 2)},
        "poison": {"deadLettered": len(day.story.poison), "replayed": len(day.story.poison)},
        "surprises": day.surprises,
    }
    base.var.mkdir(parents=True, exist_ok=True)
    (base.var / "demo.json").write_text(json.dumps(report, indent=2) + "\n")


def _print(console: Console, day: ClinicDay, account: Account, seconds: float) -> None:
    from rich.table import Table

    table = Table("the account", "expected", "seen", "lost", "doubled", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in account.lines:
        style = "" if line.balances else "bold red"
        table.add_row(line.what, str(line.expected), str(line.seen), str(line.missing), str(line.surplus), style=style)
    console.print()
    console.print(table)
    for remark in [*account.remarks, *(f"a desk did not expect: {surprise}" for surprise in day.surprises)]:
        console.print(f"! {remark}", markup=False, soft_wrap=True)
    console.print()
    verdict = "balances" if account.balances else "DOES NOT BALANCE"
    console.print(
        f"{len(day.ledger.entries)} commands, {len(day.story.faults)} faults, {len(day.story.poison)} dead letters "
        f"replayed: the account {verdict}, lost {account.lost}, doubled {account.doubled} ({seconds:.0f} s)",
        style="bold green" if account.balances else "bold red",
        soft_wrap=True,
    )


def _stay(console: Console, network: Network) -> None:
    plan, token = network.plan, network.token
    lines = [
        "",
        f"API        {plan.gateway_url}/api",
        f"API docs   {plan.gateway_url}/docs",
        *(f"units      {bridge['unit_url']}" for bridge in plan.bridges),
        f"staff      {token(Role.STAFF)}",
        f"operators  {token(Role.OPS)}",
        "",
        "Try next, in another terminal:",
        f"  export CARESPINE_VAR={network.places.var}",
        "  carespine status",
        "  carespine dead-letters list --status any",
        f'  curl -H "Authorization: Bearer $(carespine token --role staff)" "{plan.gateway_url}/api/patients?limit=3"',
        "",
        "Stop with Ctrl-C.",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        result("")
