"""`unit-agent enrol`: the agent makes its key and registers it with a code that the centre's operators gave out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from getpass import getpass

from infra.cli.exit_codes import ExitCode
from unit_agent.cli import arguments
from unit_agent.cli.arguments import Usage, fail, result, result_json
from unit_agent.credential import CredentialUnusable
from unit_agent.enrolment import EnrolmentRefused, enrol
from unit_agent.tls import client_context


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 enrolled, 2 usage, 3 the centre cannot be reached, 4 the centre does not take the code."""
    parser = arguments.parser(
        "enrol", "Make this agent known to the network. The key it makes never leaves the machine."
    )
    parser.add_argument("code", nargs="?", help="the enrolment code; without it, it is asked for or read from a pipe")
    parser.add_argument("--gateway", help="where the centre's gateway listens: https://HOST")
    parser.add_argument("--json", action="store_true", help="for programs")
    told, settings = arguments.parsed(parser, given)
    arguments.keep_quiet()
    try:
        unit_id = arguments.unit_of(settings)
    except Usage as why:
        fail(str(why), ExitCode.USAGE)
    if settings.gateway is None:
        fail("give --gateway https://HOST, where the centre's gateway listens", ExitCode.USAGE)
    code = (told.code or _asked()).strip()
    if not code:
        fail("no code was given: the centre's operators make one with `carespine units enrol-code`", ExitCode.USAGE)
    folder = arguments.folder_of(settings, unit_id)
    try:
        tls = client_context(settings.tls)
        enrolled = asyncio.run(enrol(gateway_url=settings.gateway, unit_id=unit_id, code=code, folder=folder, tls=tls))
    except CredentialUnusable as why:
        fail(str(why), ExitCode.USAGE)
    except EnrolmentRefused as no:
        fail(f"not enrolled, {no.code}: {no.remedy}", exit_code(no))
    except OSError as why:
        fail(f"the key cannot be kept in {folder}: {why.strerror or type(why).__name__}", ExitCode.FAILED)
    if told.json:
        result_json(
            {
                "unit": enrolled.unit_id,
                "keyId": enrolled.key_id,
                "gateway": enrolled.gateway_url,
                "keyFile": str(enrolled.key_file),
            }
        )
    else:
        result(f"enrolled as {enrolled.unit_id} with key {enrolled.key_id}, kept in {enrolled.key_file}")
        result("next: unit-agent doctor, then start the agent: unit-agent run (without --credential)")
    return ExitCode.DONE


def _asked() -> str:
    """Asked for without showing it, so that the code is in no history and no process list."""
    return getpass("enrolment code: ") if sys.stdin.isatty() else sys.stdin.readline()


def exit_code(no: EnrolmentRefused) -> ExitCode:
    """What a refusal is to scripts."""
    if no.status is not None:
        return ExitCode.UNREACHABLE if no.status >= 500 else ExitCode.NOT_ALLOWED
    return {"network_away": ExitCode.UNREACHABLE, "not_enrolled": ExitCode.USAGE}.get(no.code, ExitCode.FAILED)
