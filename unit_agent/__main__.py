"""`unit-agent COMMAND` and `python -m unit_agent`: which command it is; without one it is `run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

COMMANDS: Final = {
    "run": "run the agent until it is told to stop (the default)",
    "status": "how the agent stands, also when it does not run",
    "enrol": "make this agent known to the network, with a code of the centre's operators",
    "rotate-key": "give this agent another key; the old one ends soon after",
    "doctor": "check store, disk, clock, way to the centre, credential and connectors, with what to do",
    "config": "what the agent is told, and by which source",
    "hl7": "messages that a receiver would not have: list them, send them again",
}
_CODES: Final = "exit codes: 0 done, 1 failed, 2 usage, 3 cannot reach, 4 not allowed, 5 not found, 7 a check failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked; answers the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"], ["help"]):
        sys.stdout.write("usage: unit-agent [COMMAND] [--help]\n\nThe agent of one healthcare unit.\n\n")
        sys.stdout.write("".join(f"  {name:<11} {what}\n" for name, what in COMMANDS.items()) + f"\n{_CODES}\n")
        return 0
    name = given.pop(0) if given and not given[0].startswith("-") else "run"
    if name not in COMMANDS:
        sys.stderr.write(f"unit-agent: there is no command {name}; there are: {', '.join(COMMANDS)}\n")
        return 2
    # Only the command's own module: a running agent has no use for what the others load, and its logger none for rich.
    if "structlog" not in sys.modules:
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # how Python says: not to be imported
    try:
        return int(import_module(f"unit_agent.cli.{name.replace('-', '_')}").main(given))
    except BrokenPipeError:  # whoever read what we say has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
