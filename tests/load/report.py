"""What a run comes to: the ratios with their verdicts, as a table for people and as JSON for programs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import psutil

from tests.load.figures import ACCEPTED, END_TO_END, OUTCOME_P99, VISIBLE_P99, Flow, Spread, Target, best, holds
from tests.load.plan import LATENCY_RATE, UNITS, Plan
from tests.load.run import Results
from tests.load.saturation import CONNECTIONS, Measured

Json = dict[str, Any]  # Any: JSON
DISTURBED = 0.15
"""CPUs used by others from which on a measurement is called disturbed."""


def verdicts(results: Results) -> list[tuple[Target, float]]:
    """Each target that this run can speak to, with the value it found."""
    found: list[tuple[Target, float]] = []
    pipeline = results.pipeline
    if pipeline is None:
        return found
    if results.peer:
        peer, own = _best(results.peer.rounds).end_to_end_rate, _best(pipeline.rounds)
        found += [(END_TO_END, own.end_to_end_rate / peer), (ACCEPTED, own.accepted_rate / peer)]
    if pipeline.visible and pipeline.outcome:
        found += [(VISIBLE_P99, pipeline.visible.p99), (OUTCOME_P99, pipeline.outcome.p99)]
    return found


def as_json(results: Results, plan: Plan) -> Json:
    """The whole run."""
    pipeline, peer = results.pipeline, results.peer
    return {
        "machine": {"cpus": psutil.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "plan": {**asdict(plan), "units": UNITS, "connections": CONNECTIONS, "latencyRate": LATENCY_RATE},
        "limits": {name: {**asdict(limit), "rate": limit.rate} for name, limit in results.limits.items()},
        "crudStack": None
        if peer is None
        else {
            "saturated": _flow(_best(peer.rounds)),
            "rounds": [_measured(one) for one in peer.rounds],
            "outcomeMs": _spread(peer.outcome),
        },
        "crudStackMissing": results.peer_missing,
        "carespine": None
        if pipeline is None
        else {
            "saturated": _flow(_best(pipeline.rounds)),
            "rounds": [_measured(one) for one in pipeline.rounds],
            "awaited": _measured(pipeline.awaited) if pipeline.awaited else None,
            "paced": [{**_measured(one), "holds": holds(one.flow)} for one in pipeline.paced],
            "sustainedRate": pipeline.sustained.flow.accepted_rate if pipeline.sustained else None,
            "outcomeMs": _spread(pipeline.outcome),
            "visibleMs": _spread(pipeline.visible),
        },
        "targets": [
            {**asdict(target), "value": value, "verdict": target.verdict(value)} for target, value in verdicts(results)
        ],
    }


def as_text(results: Results, plan: Plan) -> Iterator[str]:
    """The whole run, line by line."""
    yield (
        f"{psutil.cpu_count()} CPUs, Python {platform.python_version()}, {UNITS} units, {CONNECTIONS} connections,"
        f" {plan.seconds:g} s a load"
    )
    yield ""
    yield "Raw limits"
    for name, limit in results.limits.items():
        cpu = f"{limit.cpu_seconds * 1e6 / limit.count:8.0f} us CPU of the client" if limit.cpu_seconds else ""
        yield f"  {name:<62}{limit.rate:>9,.0f}/s{cpu}"
    yield from _saturated(results)
    yield from _cpu(results)
    yield from _latency(results)
    yield ""
    yield "Targets (floor, goal)"
    for target, value in verdicts(results):
        numbers = f"{value:>9.2f} {target.unit:<4}{target.floor:>7g}{target.goal:>7g}"
        yield f"  {target.name:<44}{numbers}   {target.verdict(value)}"
    if plan.quick:
        yield "  ! a quick run only shows that everything works: its figures mean nothing"
    for line in _doubts(results):
        yield f"  ! {line}"


def _saturated(results: Results) -> Iterator[str]:
    pipeline, peer = results.pipeline, results.peer
    yield ""
    yield f"Check-ins, saturated{'carespine':>28}{'CRUD stack':>14}{'ratio':>9}"
    theirs = _best(peer.rounds) if peer else None
    if pipeline:
        ours = _best(pipeline.rounds)
        rate = theirs.end_to_end_rate if theirs else None
        yield _row("accepted and confirmed /s", ours.accepted_rate, rate)
        yield _row("end to end /s", ours.end_to_end_rate, rate)
        if pipeline.awaited:
            yield _row("answered with the outcome /s", pipeline.awaited.flow.end_to_end_rate, rate)
        yield _row("end to end per CPU second", ours.per_cpu_second(), theirs.per_cpu_second() if theirs else None)
        yield f"  {'backlog when the load stopped':<34}{ours.backlog:>12,}"
        for one in pipeline.paced:
            grew = "no queue grew" if holds(one.flow) else "a queue grew"
            yield _row(f"paced, {grew} /s", one.flow.accepted_rate, rate)
    if results.peer_missing:
        yield f"  CRUD stack skipped: {results.peer_missing}"


def _row(name: str, ours: float, theirs: float | None) -> str:
    if theirs is None:
        return f"  {name:<34}{ours:>12,.0f}"
    return f"  {name:<34}{ours:>12,.0f}{theirs:>14,.0f}{ours / theirs:>8.2f}x"


def _cpu(results: Results) -> Iterator[str]:
    yield ""
    yield "CPU per check-in, microseconds"
    if results.pipeline:
        yield _spent("carespine", _best(results.pipeline.rounds))
        if results.pipeline.awaited:
            yield _spent("  outcome awaited", results.pipeline.awaited.flow)
    if results.peer:
        yield _spent("CRUD stack", _best(results.peer.rounds))


def _spent(name: str, flow: Flow) -> str:
    parts = flow.cpu_microseconds()
    return (
        f"  {name:<18}"
        + "  ".join(f"{part} {value:.0f}" for part, value in parts.items())
        + f"  total {sum(parts.values()):.0f}"
    )


def _latency(results: Results) -> Iterator[str]:
    pipeline, peer = results.pipeline, results.peer
    yield ""
    yield f"At {LATENCY_RATE} check-ins/s, milliseconds{'p50':>22}{'p99':>9}{'worst':>9}"
    for name, found in (
        ("carespine, HTTP to outcome", pipeline and pipeline.outcome),
        ("carespine, until visible and published", pipeline and pipeline.visible),
        ("CRUD stack, HTTP", peer and peer.outcome),
    ):
        if found:
            yield f"  {name:<48}{found.p50:>7.1f}{found.p99:>9.1f}{found.worst:>9.1f}"


def _doubts(results: Results) -> Iterator[str]:
    everyone = [
        *(("CRUD stack", one) for one in (results.peer.rounds if results.peer else [])),
        *(("carespine", one) for one in (results.pipeline.rounds if results.pipeline else [])),
    ]
    for name, one in everyone:
        if one.elsewhere > DISTURBED:
            yield f"disturbed: other programs used {one.elsewhere:.2f} CPUs while {name} was measured"
        if one.flow.refused:
            yield f"{name}: {one.flow.refused} requests were not accepted; the first: {one.driven.first_refusal}"
        if one.driven.exhausted:
            yield f"{name}: ran out of rendered requests after {one.flow.accept_seconds:.1f} s"


def _best(rounds: Sequence[Measured]) -> Flow:
    return best([one.flow for one in rounds])


def _flow(flow: Flow) -> Json:
    return {
        **asdict(flow),
        "acceptedRate": flow.accepted_rate,
        "endToEndRate": flow.end_to_end_rate,
        "perCpuSecond": flow.per_cpu_second(),
        "cpuMicroseconds": flow.cpu_microseconds(),
    }


def _measured(one: Measured) -> Json:
    return {**_flow(one.flow), "elsewhereCpus": one.elsewhere, "exhausted": one.driven.exhausted}


def _spread(found: Spread | None) -> Json | None:
    return asdict(found) if found else None
