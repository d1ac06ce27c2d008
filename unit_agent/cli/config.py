"""`unit-agent config`: every field that was told, what it is and which source won; secrets are not shown."""

from __future__ import annotations

from collections.abc import Sequence

from infra.cli.exit_codes import ExitCode
from unit_agent.cli import arguments
from unit_agent.cli.arguments import fail, result, result_json
from unit_agent.configuration import ConfigurationError, configured


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 the configuration can be used, 2 it cannot."""
    parser = arguments.parser("config", "What the agent is told, and by which source.")
    arguments.of_the_centre(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    told = parser.parse_args(given)
    try:
        found = arguments.sources(told)
        configured(found)
    except ConfigurationError as why:
        fail(str(why), ExitCode.USAGE)
    rows = [
        {"field": ".".join(path), "value": "(not shown)" if path == ("credential",) else value, "source": source}
        for path, (value, source) in sorted(found.items())
    ]
    if told.json:
        result_json(rows)
    else:
        for row in rows:
            result(f"{row['field']:<32} {row['value']!s:<40} {row['source']}")
    return ExitCode.DONE
