"""One run of the link's benchmark: the system's own stages, then the raw limit and another broker on the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.services.launcher import Services
from tests.load.link import network, stages
from tests.load.link.plan import Plan

Json = dict[str, Any]  # Any: JSON
OWN_STAGES = ("connecting", "whole", "calls", "storm", "bridge", "noise")
STAGES = (*OWN_STAGES, "portals", "catch-up", "websockets", "mosquitto")


async def measured(
    plan: Plan, services: Services, folder: Path, say: Callable[[str], None], *, only: frozenset[str]
) -> Json:
    """Measure the stages named in `only`; `say` hears what is being done."""
    results: Json = {}
    if only & set(OWN_STAGES):
        async with network.running(services, folder, plan.units) as system:
            await _own(results, plan, system, say, only)
    if "portals" in only:
        say(f"{plan.portals} portals at {plan.portal_units} units")
        results["portals"] = await stages.portals(plan, services, folder, say)
    if "catch-up" in only:
        say(f"one unit was away for {plan.catch_up_events} events")
        results["catchUp"] = await stages.catching_up(plan, services, folder, say)
    if "websockets" in only:
        say("the raw limit of websockets")
        results["websockets"] = await stages.raw_limit(plan, folder)
    if "mosquitto" in only:
        say("mosquitto on the same work")
        results["mosquitto"] = await stages.mqtt(plan, folder)
    return results


async def _own(
    results: Json, plan: Plan, system: network.Network, say: Callable[[str], None], only: frozenset[str]
) -> None:
    say(f"registering {plan.units} units")
    await system.register()
    fleet = await system.fleet()
    try:
        say(f"connecting {plan.units} units")
        results["connecting"] = await stages.connecting(system, fleet, plan)
        if "whole" in only:
            say(f"commands to units, the whole way, at {plan.rate:g}/s")
            results["whole"] = await stages.delivering(
                "commands", stages.job_of(system, plan), fleet, system.meter(), system.folder
            )
        if "calls" in only:
            say(f"live calls at {plan.calls_rate:g}/s")
            results["calls"] = await stages.calling(system, plan)
        if "storm" in only:
            say("the bridge is killed; everybody comes back")
            results["storm"] = await stages.storm(system, fleet)
        for name in ("handlers", "projections"):  # from here on the source plays their part
            system.processes[name].stop()
        if "bridge" in only:
            say(f"deliveries through the bridge alone at {plan.rate:g}/s")
            results["bridge"] = await stages.delivering(
                "pushes", stages.job_of(system, plan), fleet, system.meter(), system.folder
            )
            results["connecting"]["kibPerUnitAfterwards"] = (
                system.bridge_kib() - results["connecting"]["emptyKib"]
            ) / plan.units
        if "noise" in only:
            say("noisy units")
            results["noise"] = await stages.noisy(system, fleet, plan)
    finally:
        await fleet.stop()
