"""`carespine keys`: which master keys have wrapped the data keys of persons, and wrapping them anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.exit_codes import ExitCode
from infra.cli.printing import fail, progress, result, result_json

if TYPE_CHECKING:
    from infra.database import Pool
    from infra.key_rotation import Standing
    from infra.master_keys import KeyRing

app = typer.Typer(no_args_is_help=True, help="Master keys: status, rotate.")

JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("status")
def status(json: JsonOption = False) -> None:
    """How many data keys each master key has wrapped; exit code 7 when one is missing here."""
    now = asyncio.run(_standing())
    if json:
        result_json({"current": now.current, "wrapped": now.by_master, "missing": sorted(now.unknown)})
    else:
        for key, count in now.by_master.items():
            what = "in use" if key == now.current else "MISSING" if key in now.unknown else "retired"
            result(f"{key}  {count} data keys  {what}")
        if not now.by_master:
            result(f"{now.current}  0 data keys  in use")
    if now.unknown:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command("rotate")
def rotate(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Data keys in one transaction.")] = 500,
    json: JsonOption = False,
) -> None:
    """Wrap every data key under the first master key. Nothing stops, no event is touched; broken off, it goes on."""
    wrapped, now = asyncio.run(_rotate(batch))
    if json:
        result_json({"current": now.current, "wrappedAnew": wrapped, "left": now.left})
    else:
        result(f"{wrapped} data keys wrapped anew under {now.current}; {now.left} left")
    if now.left:
        progress("a process that does not know the new key yet has made keys meanwhile: rotate again")
        raise typer.Exit(ExitCode.CHECK_FAILED)


async def _standing() -> Standing:
    from infra import key_rotation

    async with _keys() as (pool, ring):
        return await key_rotation.standing(pool, ring)


async def _rotate(batch: int) -> tuple[int, Standing]:
    from infra import key_rotation
    from infra.sealing import KeyNotKnown

    wrapped = 0
    async with _keys() as (pool, ring):
        before = await key_rotation.standing(pool, ring)
        if before.unknown:
            names = ", ".join(sorted(before.unknown))
            fail(f"CARESPINE_MASTER_KEY lacks the retired key {names}: add it after the first", ExitCode.CHECK_FAILED)
        try:
            async for count in key_rotation.rotate(pool, ring, batch=batch):
                wrapped += count
                progress(f"{wrapped} of {before.left}")
        except KeyNotKnown as why:
            fail(f"CARESPINE_MASTER_KEY lacks the retired key {why}", ExitCode.CHECK_FAILED)
        return wrapped, await key_rotation.standing(pool, ring)


@asynccontextmanager
async def _keys() -> AsyncIterator[tuple[Pool, KeyRing]]:
    """The database in the role that may touch data keys, and this installation's master keys."""
    from infra.database import DatabaseUnavailable, pool
    from infra.installation import Places, ensure_keys
    from infra.master_keys import ring_of
    from infra.services.launcher import running_urls
    from infra.settings import SettingsError

    places = Places.of_this_command()
    given = ensure_keys(places).get("CARESPINE_MASTER_KEY")
    if given is None:
        raise SettingsError({"MASTER_KEY": "is missing"})
    url = running_urls(places.var).postgres
    if url is None:
        remedy = "`carespine up --services-only`, or set CARESPINE_POSTGRES_URL"
        fail(f"Postgres is missing: {remedy}", ExitCode.UNREACHABLE)
    try:
        async with pool(url, role="keys", largest=1) as ours:
            yield ours, ring_of(given)
    except DatabaseUnavailable:
        fail("Postgres cannot be reached", ExitCode.UNREACHABLE)
