"""`python -m tests.load.link`: the benchmark of the unit link, with services of its own under var/bench."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from pathlib import Path

import uvloop

from infra.services.detached import ServiceTrouble
from infra.services.launcher import ensure_services
from tests.load.link.plan import Plan
from tests.load.link.report import as_json, as_text, verdicts
from tests.load.link.run import STAGES, measured
from tests.load.processes import REPOSITORY, Trouble

FAILED, FLOOR_MISSED = 1, 7
FILES_BESIDE = 500
"""Open files a process needs besides its connections."""


def main() -> int:
    """Measure, print, write; answers the exit code."""
    options = _options()
    plan = Plan.of(quick=options.quick, units=options.units)
    folder = REPOSITORY / "var" / "bench-link"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.1f} s] {line}\n")

    _allow_files(plan.units + FILES_BESIDE)
    only = frozenset(options.only.split(",")) if options.only else frozenset(STAGES)
    if unknown := only - set(STAGES):
        sys.stderr.write(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}\n")
        return FAILED
    try:
        services = ensure_services(folder, say=say)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                results = runner.run(measured(plan, services, folder, say, only=only))
        finally:
            services.stop()
    except (Trouble, ServiceTrouble) as trouble:
        sys.stderr.write(f"{trouble}\n")
        return FAILED
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(results, plan), indent=2) + "\n")
    sys.stdout.write("\n".join(as_text(results, plan)) + f"\n\nwritten to {options.json}\n")
    missed = [target.name for target, value in verdicts(results) if target.verdict(value) == "not met"]
    return FLOOR_MISSED if missed and options.check and not options.quick else 0


def _allow_files(wanted: int) -> None:
    """Each connection is an open file; processes started from here inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} open files are needed and {hard} allowed: `ulimit -Hn`, or --units fewer")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.link", description="Measures the unit link.")
    parser.add_argument("--units", type=int, help="how many units are connected to the one bridge (default 10,000)")
    parser.add_argument("--only", help=f"stages, separated by commas: {','.join(STAGES)}")
    parser.add_argument(
        "--quick", action="store_true", help="only show that everything works; says nothing about speed"
    )
    parser.add_argument(
        "--check", action="store_true", help=f"leave with exit code {FLOOR_MISSED} if a floor is not met"
    )
    parser.add_argument("--json", type=Path, default=REPOSITORY / "var" / "bench-link.json", help="where figures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
