"""`unit-agent status`: how the agent stands, asked of itself when it runs, read from its store when it does not."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from contracts.envelope import Json
from infra.cli.exit_codes import ExitCode
from unit_agent.cli import arguments
from unit_agent.cli.arguments import Usage, fail, result, result_json
from unit_agent.cli.looking import NoStore, counts, is_running, reading, told_by_the_agent


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 it runs and nothing is wrong, 3 it does not run, 5 there is no store, 7 it runs and is not well."""
    parser = arguments.parser("status", "How the agent stands, also when it does not run.")
    parser.add_argument("--json", action="store_true", help="for programs")
    told, settings = arguments.parsed(parser, given)
    try:
        unit_id = arguments.unit_of(settings)
    except Usage as why:
        fail(str(why), ExitCode.USAGE)
    folder = arguments.folder_of(settings, unit_id)
    running = is_running(folder)
    said = told_by_the_agent(folder) if running else None
    try:
        with reading(folder) as database:
            found = counts(database)
    except NoStore:
        fail(f"there is no agent's store in {folder}", ExitCode.NOT_FOUND)
    except (sqlite3.Error, PermissionError) as why:
        fail(f"the store in {folder} cannot be read ({type(why).__name__}): unit-agent doctor", ExitCode.FAILED)
    status: Json = {"unit": found.pop("unit", unit_id), "running": running, "folder": str(folder), "counts": found}
    if said is not None:
        status |= {name: value for name, value in said.items() if name not in status}
    troubles = _troubles(status)
    status["troubles"] = troubles
    if told.json:
        result_json(status)
    else:
        _say(status)
    return ExitCode.UNREACHABLE if not running else ExitCode.CHECK_FAILED if troubles else ExitCode.DONE


def _troubles(status: Json) -> list[str]:
    """What somebody should look at."""
    troubles = []
    link, disk = status.get("link", {}), status.get("disk", {})
    if link and not link.get("connected"):
        troubles.append(f"link {link.get('state')}: {link.get('remedy') or link.get('why') or 'no reason known yet'}")
    if disk and not disk.get("takesNew"):
        troubles.append(f"disk {disk.get('state')}: nothing new is taken until there is room")
    sending = status.get("hl7", {}).get("send", {})
    if sending.get("trouble"):
        troubles.append(f"HL7 receiver: {sending['trouble']}")
    waiting = {"hl7SetAside": "HL7 messages set aside: unit-agent hl7", "outboxRefused": "commands refused as they are"}
    for name, what in waiting.items():
        if status["counts"].get(name):
            troubles.append(f"{status['counts'][name]} {what}")
    return troubles


def _say(status: Json) -> None:
    link, disk, found = status.get("link", {}), status.get("disk", {}), status["counts"]
    state = "running" if status["running"] else "not running"
    lines = {"unit": f"{status['unit']}, {state}", "folder": status["folder"]}
    if link:
        since = link.get("connectedAt") if link.get("connected") else link.get("lastContact")
        when = f"since {since}" if link.get("connected") else f"last {since or 'never'}"
        lines["link"] = f"{link['state']}, epoch {link['epoch']}, {when}"
        lines["clock"] = f"{link['clockSkewSeconds']:+.1f} s against the centre"
    elif status["running"]:
        lines["link"] = "unknown: it serves no local API (--http-port)"
    # The head is as it was when the link came up; the position goes on from there.
    position, head = found.get("position", 0), link.get("head")
    lines["feed"] = f"position {position}" + (f" of {max(head, position)}" if head else "")
    lines["to the centre"] = f"{found.get('outboxWaiting', 0)} waiting, {found.get('outboxUnanswered', 0)} unanswered"
    lines["unit commands"] = (
        f"{found.get('unitCommandsOpen', 0)} open, {found.get('unitCommandsInDoubt', 0)} being executed"
    )
    if "conflictsOpen" in found:
        lines["conflicts"] = str(found["conflictsOpen"])
    if "hl7Waiting" in found:
        lines["HL7 out"] = f"{found['hl7Waiting']} waiting, {found['hl7SetAside']} set aside"
    if disk:
        lines["disk"] = f"{disk['state']}, {(disk.get('freeBytes') or 0) / 1e6:.0f} MB free"
    for name, value in lines.items():
        result(f"{name:<14} {value}")
    for trouble in status["troubles"]:
        result(f"{'!':<14} {trouble}")
