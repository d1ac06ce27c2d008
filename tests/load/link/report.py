"""What a run of the link's benchmark comes to: figures, ratios and targets, for people and for programs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import psutil

from tests.load.link.plan import (
    BRIDGE_P99,
    CALL_P99,
    CATCH_UP,
    MEMORY,
    NOISE,
    NOTIFICATION,
    STORM,
    STORM_CONNECTIONS,
    WHOLE_P99,
    Plan,
    Target,
)

Json = dict[str, Any]  # Any: JSON
DISTURBED = 0.15
"""CPUs used by others from which on a measurement is called disturbed."""


def verdicts(results: Json) -> list[tuple[Target, float]]:
    """Each target that this run can speak to, with the value it found."""
    found: list[tuple[Target, float]] = []

    def say(target: Target, *path: str) -> None:
        value: Any = results  # Any: JSON
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found.append((target, float(value)))

    say(MEMORY, "connecting", "kibPerUnit")
    say(BRIDGE_P99, "bridge", "ms", "p99")
    say(WHOLE_P99, "whole", "ms", "p99")
    say(CALL_P99, "calls", "ms", "p99")
    say(STORM, "storm", "seconds")
    if storm := results.get("storm"):
        counts = storm["databaseConnections"]
        found.append((STORM_CONNECTIONS, counts["most"] - counts["before"]))
    say(NOISE, "noise", "ratio")
    say(CATCH_UP, "catchUp", "rate")
    say(NOTIFICATION, "portals", "whole_way", "p99")
    return found


def as_json(results: Json, plan: Plan) -> Json:
    """The whole run."""
    return {
        "machine": {"cpus": psutil.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "plan": asdict(plan),
        **results,
        "targets": [
            {**asdict(target), "value": value, "verdict": target.verdict(value)} for target, value in verdicts(results)
        ],
    }


def as_text(results: Json, plan: Plan) -> Iterator[str]:
    """The whole run, line by line."""
    yield f"{psutil.cpu_count()} CPUs, Python {platform.python_version()}, {plan.units:,} units at one bridge"
    yield from _connections(results)
    yield from _deliveries(results, plan)
    yield from _others(results)
    yield ""
    yield "Targets (floor, goal)"
    for target, value in verdicts(results):
        numbers = f"{value:>10,.2f} {target.unit:<9}{target.floor:>8,g}{target.goal:>8,g}"
        yield f"  {target.name:<46}{numbers}   {target.verdict(value)}"
    if plan.quick:
        yield "  ! a quick run only shows that everything works: its figures mean nothing"
    yield from _doubts(results)


def _connections(results: Json) -> Iterator[str]:
    yield ""
    yield f"Connecting{'connects/s':>44}{'CPU us each':>14}"
    if found := results.get("connecting"):
        rate, cpu = found["connectsPerSecond"], found["cpuMicroseconds"]
        yield f"  {'carespine bridge':<34}{rate:>18,.0f}{cpu['bridge']:>14,.0f}"
        later = found.get("kibPerUnitAfterwards")
        afterwards = "" if later is None else f", {later:.1f} KiB after the deliveries"
        yield f"    {found['kibPerUnit']:.1f} KiB each{afterwards}; {found['emptyKib'] / 1024:.0f} MiB without any"
        yield f"    CPU us each besides: postgres {cpu['postgres']:.0f}  rabbitmq {cpu['rabbitmq']:.0f}"
    for name in ("websockets", "mosquitto"):
        if (found := results.get(name)) and "connectsPerSecond" in found:
            yield (
                f"  {_title(name):<34}{found['connectsPerSecond']:>18,.0f}{found['cpuMicrosecondsPerConnect']:>14,.0f}"
            )


def _deliveries(results: Json, plan: Plan) -> Iterator[str]:
    yield ""
    yield f"Deliveries at {plan.rate:,g}/s{'arrived':>26}{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}   CPU us per message"
    for name in ("whole", "bridge", "websockets", "mosquitto"):
        found = results.get(name)
        if not found:
            continue
        if "skipped" in found:
            yield f"  {_title(name):<34}skipped: {found['skipped']}"
            continue
        delays = found["ms"] or {"p50": 0, "p99": 0, "worst": 0}
        cpu = "  ".join(f"{part} {value:.0f}" for part, value in found["cpuMicroseconds"].items())
        yield (
            f"  {_title(name):<34}{found['delivered']:>9,}{delays['p50']:>9.1f}{delays['p99']:>9.1f}"
            f"{delays['worst']:>9.1f}   {cpu}"
        )
    ours, raw, theirs = (results.get(name, {}).get("cpuMicroseconds") for name in ("bridge", "websockets", "mosquitto"))
    if ours and raw:
        yield f"  the bridge's own CPU to the raw limit: {ours['bridge'] / raw['server']:.1f}x"
    if ours and theirs:
        both = ours["bridge"] + ours["rabbitmq"]
        yield f"  CPU of broker and bridge to mosquitto: {both / theirs['mosquitto']:.1f}x"


def _others(results: Json) -> Iterator[str]:
    yield ""
    if (found := results.get("calls")) and found["ms"]:
        delays = found["ms"]
        yield (
            f"Live calls at {found['rate']:g}/s over HTTP: p50 {delays['p50']:.1f} ms, p99 {delays['p99']:.1f} ms, "
            f"{found['answered']:,} answered, {found['notAnswered']} not"
        )
    if found := results.get("storm"):
        counts = found["databaseConnections"]
        yield (
            f"Bridge killed: all back {found['seconds']:.1f} s later ({found['secondsAfterReady']:.1f} s after it was "
            f"ready), {found['attempts']:,} attempts; database connections {counts['before']}, at most {counts['most']}"
        )
    if found := results.get("portals"):
        whole = found["whole_way"]
        yield (
            f"{found['portals']:,} portals at {found['units']} units: notification p50 {whole['p50']:.1f} ms, p99 "
            f"{whole['p99']:.1f} ms after the check-in was sent; {found['missing']} missing, {found['doubled']} doubled"
            f"; {found['kib_per_portal']:.1f} KiB each"
        )
    if found := results.get("catchUp"):
        order = "each once, in order" if found["in_order"] else "NOT complete"
        cpu = "  ".join(f"{part} {value:.0f}" for part, value in found["cpuMicroseconds"].items())
        yield f"Catch-up of {found['events']:,} events: {found['rate']:,.0f}/s ({order}); CPU us per event: {cpu}"
    if found := results.get("noise"):
        yield (
            f"Others beside units that flood, do not read, send huge frames: p99 {found['p99WithoutMs']:.1f} -> "
            f"{found['p99WithMs']:.1f} ms ({found['ratio']:.2f}x)"
        )


def _doubts(results: Json) -> Iterator[str]:
    for name in ("whole", "bridge", "mosquitto"):
        found = results.get(name)
        if not found or "skipped" in found:
            continue
        if found["elsewhereCpus"] > DISTURBED:
            yield f"  ! disturbed: others used {found['elsewhereCpus']:.2f} CPUs while {_title(name)} was measured"
        if found["lost"] or found["duplicates"]:
            yield f"  ! {_title(name)}: {found['lost']} did not arrive in time, {found['duplicates']} came twice"
        if found["sentPerSecond"] < 0.95 * found["rate"]:
            yield f"  ! {_title(name)}: the source came to {found['sentPerSecond']:,.0f}/s only"


def _title(name: str) -> str:
    return {
        "whole": "carespine, the whole way",
        "bridge": "carespine, broker and bridge",
        "websockets": "raw limit of websockets",
        "mosquitto": "mosquitto, QoS 1",
    }[name]
