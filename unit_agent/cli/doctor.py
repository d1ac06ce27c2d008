"""`unit-agent doctor`: everything that can be checked from here, each with what to do about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from infra.cli.exit_codes import ExitCode
from infra.findings import Finding
from unit_agent.cli import arguments
from unit_agent.cli.admission import of_admission
from unit_agent.cli.arguments import Usage, fail, result, result_json
from unit_agent.cli.examining import of_the_agent, of_the_store
from unit_agent.cli.reaching import of_the_centre, of_the_connectors, of_the_credential

MARKS: Final = {"ok": "✓ ok", "warning": "! warning", "failed": "✗ failed"}


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 nothing failed (there may be warnings), 2 the configuration cannot be used, 7 a check failed."""
    parser = arguments.parser("doctor", "Check everything that can be checked from here, with what to do about it.")
    arguments.of_the_centre(parser)
    parser.add_argument(
        "--json", action="store_true", help="for programs: a list of {id, state, seen, expected, remedy}"
    )
    told, settings = arguments.parsed(parser, given)
    try:
        unit_id = arguments.unit_of(settings)
    except Usage as why:
        fail(str(why), ExitCode.USAGE)
    folder = arguments.folder_of(settings, unit_id)
    admitted, link = of_admission(folder, settings)
    findings = [
        *of_the_store(folder, unit_id, settings),
        *of_the_agent(folder, settings),
        *of_the_credential(folder, unit_id, settings),
        *admitted,
        *of_the_centre(folder, settings, link),
        *of_the_connectors(folder, settings),
    ]
    failed = sum(finding.state == "failed" for finding in findings)
    if told.json:
        result_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _say(finding)
        result(f"{failed} of {len(findings)} checks failed" if failed else f"none of {len(findings)} checks failed")
    return ExitCode.CHECK_FAILED if failed else ExitCode.DONE


def _say(finding: Finding) -> None:
    result(f"{MARKS[finding.state]:<10} {finding.id:<24} {finding.seen}")
    if finding.state != "ok":
        result(f"{'':<11}expected: {finding.expected}")
        result(f"{'':<11}do this:  {finding.remedy}")
