"""`python -m tests.load`: the benchmark, with a Postgres and a RabbitMQ of its own under var/bench."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from infra.services.detached import ServiceTrouble
from infra.services.launcher import ensure_services
from tests.load.plan import Plan
from tests.load.processes import REPOSITORY, Trouble
from tests.load.report import as_json, as_text, verdicts
from tests.load.run import measured

FAILED, FLOOR_MISSED = 1, 7


def main() -> int:
    """Measure, print, write; answers the exit code."""
    options = _options()
    plan = Plan.of(seconds=options.seconds, quick=options.quick)
    folder = REPOSITORY / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:5.1f} s] {line}\n")

    try:
        services = ensure_services(folder, say=say)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                results = runner.run(measured(plan, services, folder, say))
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load", description="Measures the main path beside the CRUD stack and the raw limits."
    )
    parser.add_argument("--seconds", type=float, default=5, help="length of each saturating load (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="only show that everything works; says nothing about speed"
    )
    parser.add_argument(
        "--check", action="store_true", help=f"leave with exit code {FLOOR_MISSED} if a floor is not met"
    )
    parser.add_argument("--json", type=Path, default=REPOSITORY / "var" / "bench.json", help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
