"""`unit-agent rotate-key`: another key for this agent, registered with the old one's proof."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from infra.cli.exit_codes import ExitCode
from unit_agent.cli import arguments
from unit_agent.cli.arguments import Usage, fail, result, result_json
from unit_agent.cli.enrol import exit_code
from unit_agent.credential import CredentialUnusable
from unit_agent.enrolment import EnrolmentRefused, rotate
from unit_agent.tls import client_context


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 done, 2 usage or not enrolled, 3 the centre cannot be reached, 4 it does not take the new key."""
    parser = arguments.parser("rotate-key", "Give this agent another key. A running agent takes it up by itself.")
    parser.add_argument("--gateway", help="where the centre's gateway listens, if not where it enrolled")
    parser.add_argument("--grace-seconds", type=int, help="how long the old key stays good (default: a day, the most)")
    parser.add_argument("--json", action="store_true", help="for programs")
    told, settings = arguments.parsed(parser, given)
    arguments.keep_quiet()
    try:
        folder = arguments.folder_of(settings, arguments.unit_of(settings))
    except Usage as why:
        fail(str(why), ExitCode.USAGE)
    try:
        tls = client_context(settings.tls)
        enrolled = asyncio.run(rotate(folder, gateway_url=settings.gateway, grace_seconds=told.grace_seconds, tls=tls))
    except CredentialUnusable as why:
        fail(str(why), ExitCode.USAGE)
    except EnrolmentRefused as no:
        fail(f"the key stays, {no.code}: {no.remedy}", exit_code(no))
    if told.json:
        result_json({"unit": enrolled.unit_id, "keyId": enrolled.key_id})
    else:
        result(f"{enrolled.unit_id} has the key {enrolled.key_id} from now on; the old one ends soon")
    return ExitCode.DONE
