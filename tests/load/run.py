"""One run: raw limits, peer, pipeline, peer again - so that a machine that grows slower or faster harms neither."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.services.launcher import Services
from tests.kit.brokers import fresh_virtual_host
from tests.kit.databases import bare_database, fresh_database
from tests.load import crud_stack, limits, workload
from tests.load.figures import Spread, best, holds, spread
from tests.load.generator import write_requests
from tests.load.pipeline import PATH, Pipeline
from tests.load.plan import LATENCY_RATE, PACES, UNITS, Plan
from tests.load.processes import Trouble, listener_of
from tests.load.raw_limits import Limit
from tests.load.saturation import Contestant, Load, Measured, measure


@dataclass
class PeerResult:
    """The CRUD stack: every answer is a check-in done, so accepted and end to end are the same."""

    rounds: list[Measured] = field(default_factory=list)
    outcome: Spread | None = None


@dataclass
class PipelineResult:
    """Carespine."""

    rounds: list[Measured] = field(default_factory=list)
    """Callers do not wait (202 after the broker's confirm)."""
    awaited: Measured | None = None
    """Callers wait for the outcome (201), as those of the peer do."""
    paced: list[Measured] = field(default_factory=list)
    """At shares of the end-to-end rate, until one is held."""
    outcome: Spread | None = None
    visible: Spread | None = None

    @property
    def sustained(self) -> Measured | None:
        """The pace at which no queue grew, if one was found."""
        return next((one for one in self.paced if holds(one.flow)), None)


@dataclass
class Results:
    """Everything one run measured."""

    limits: dict[str, Limit] = field(default_factory=dict)
    peer: PeerResult | None = None
    peer_missing: str | None = None
    """Why there is no peer; None if there is one."""
    pipeline: PipelineResult | None = None


async def measured(plan: Plan, services: Services, folder: Path, say: Callable[[str], None]) -> Results:
    """Measure everything; `say` hears what is being done."""
    results = Results(peer_missing=crud_stack.why_not())
    servers = {
        "postgres": services.postgres.pid if services.postgres else listener_of(services.postgres_url),
        "rabbitmq": services.rabbitmq.pid if services.rabbitmq else listener_of(services.rabbitmq_url),
    }
    if results.peer_missing is None:
        say("installing the peer")
        await crud_stack.install(folder / "crud_stack")
    say("raw limits")
    results.limits = await _limits(plan, services, folder)
    peer_rounds = (plan.rounds + 1) // 2
    async with _peer(results, plan, services, servers, folder) as peer:
        if peer:
            say("CRUD stack")
            results.peer = await _measure_peer(*peer, plan, folder, rounds=peer_rounds)
    say("carespine: start, units, patients")
    results.pipeline = await _measure_pipeline(plan, services, servers, folder, say)
    if results.peer and plan.rounds > peer_rounds:
        async with _peer(results, plan, services, servers, folder) as peer:
            if peer:
                say("CRUD stack again")
                again = await _measure_peer(*peer, plan, folder, rounds=plan.rounds - peer_rounds, latency=False)
                results.peer.rounds += again.rounds
    return results


async def _limits(plan: Plan, services: Services, folder: Path) -> dict[str, Limit]:
    found = {}
    seconds = plan.limit_seconds
    with fresh_virtual_host(services) as url:
        found["confirmed publishes (aiormq, one quorum queue)"] = await limits.publishes(url, seconds, folder)
    with fresh_database(services.postgres_url) as url:
        for batch in limits.BATCHES:
            found[f"rows appended (executemany of {batch}, table like events)"] = await limits.appended_rows(
                url, seconds, folder, batch=batch
            )
    found["POSTs answered (Starlette, body validated)"] = await limits.posts(
        "tests.load.raw_limits:app", seconds, folder
    )
    found["POSTs answered (bare ASGI)"] = await limits.posts("tests.load.raw_limits:bare", seconds, folder)
    return found


@contextlib.asynccontextmanager
async def _peer(
    results: Results, plan: Plan, services: Services, servers: dict[str, int | None], folder: Path
) -> AsyncIterator[tuple[Contestant, Path] | None]:
    if results.peer_missing is not None:
        yield None
        return
    with bare_database(services.postgres_url) as url:
        crud_stack.prepare(url)
        stack = await crud_stack.CrudStack.start(folder / "crud_stack", url)
        try:
            requests = folder / "peer.requests"
            patients = [
                (unit, workload.stand_in(unit, number))
                for number in range(_patients(plan))
                for unit in workload.units(UNITS)
            ]
            write_requests(
                requests, workload.rendered(workload.check_ins(patients), path=stack.path, token=stack.token)
            )
            pids = {"node": stack.child.pid, "postgres": servers["postgres"]}
            yield Contestant("CRUD stack", stack.port, pids, stack.stored, url), requests
            requests.unlink()
        finally:
            await stack.stop()


def _patients(plan: Plan) -> int:
    """Patients per unit, so that the requests last: each is checked in once per class."""
    return plan.check_ins // (UNITS * len(workload.CLASSES)) + 1


async def _measure_peer(
    contestant: Contestant, requests: Path, plan: Plan, folder: Path, *, rounds: int, latency: bool = True
) -> PeerResult:
    result = PeerResult()
    await measure(contestant, Load(requests, plan.warm_up_seconds), folder)
    for _ in range(rounds):
        result.rounds.append(await measure(contestant, Load(requests, plan.seconds), folder))
    if latency:
        paced = await measure(contestant, Load(requests, plan.latency_seconds, LATENCY_RATE, keep=True), folder)
        result.outcome = _outcomes(paced)
    return result


async def _measure_pipeline(
    plan: Plan, services: Services, servers: dict[str, int | None], folder: Path, say: Callable[[str], None]
) -> PipelineResult:
    result = PipelineResult()
    with fresh_database(services.postgres_url) as postgres_url, fresh_virtual_host(services) as rabbitmq_url:
        async with Pipeline.running(folder, postgres_url, rabbitmq_url) as pipeline:
            patients = await pipeline.register(units=workload.units(UNITS), patients_per_unit=_patients(plan))
            say(f"carespine: {len(patients)} patients registered")
            arrivals = workload.check_ins(patients)
            hasty, patient = folder / "async.requests", folder / "wait.requests"
            for file, preference in ((hasty, "Prefer: respond-async"), (patient, "Prefer: wait=5")):
                write_requests(file, workload.rendered(arrivals, path=PATH, token=pipeline.token, headers=[preference]))
            watcher = pipeline.watcher
            contestant = Contestant(
                "carespine", pipeline.port, pipeline.pids | servers, lambda: watcher.count, postgres_url
            )
            await measure(contestant, Load(hasty, plan.warm_up_seconds), folder)
            for _ in range(plan.rounds):
                result.rounds.append(await measure(contestant, Load(hasty, plan.seconds), folder))
            result.awaited = await measure(contestant, Load(patient, plan.seconds), folder)
            rate = best([one.flow for one in result.rounds]).end_to_end_rate
            for share in PACES:
                result.paced.append(await measure(contestant, Load(hasty, plan.seconds, share * rate), folder))
                if result.sustained:
                    break
            say(f"carespine: latency at {LATENCY_RATE}/s")
            watcher.seen = {}
            paced = await measure(contestant, Load(patient, plan.latency_seconds, LATENCY_RATE, keep=True), folder)
            result.outcome = _outcomes(paced)
            result.visible = _visible(paced, watcher.seen)
            _check_account(pipeline, watcher.count)
            hasty.unlink()
            patient.unlink()
    return result


def _outcomes(paced: Measured) -> Spread:
    return spread(answered - due for answered, due in zip(paced.driven.answered, paced.driven.due, strict=True))


def _visible(paced: Measured, seen: dict[str, float]) -> Spread:
    driven = paced.driven
    encounters = [json.loads(body)["encounterId"] for body in driven.bodies]
    return spread(seen[encounter] - due for encounter, due in zip(encounters, driven.due, strict=True))


def _check_account(pipeline: Pipeline, published: int) -> None:
    """A benchmark that lost or doubled something has measured nothing."""
    receipts, encounters, behind = pipeline.stored()
    if not receipts == encounters == published or behind:
        raise Trouble(
            f"the account does not balance: {receipts} receipts, {encounters} encounters, {published} published,"
            f" {behind} partitions behind"
        )
