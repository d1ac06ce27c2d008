"""`unit-agent hl7`: messages that a receiver would not have; lists them and puts them back in line."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from infra.cli.exit_codes import ExitCode
from unit_agent.cli import arguments
from unit_agent.cli.arguments import Usage, fail, result, result_json
from unit_agent.cli.looking import NoStore, reading, suppress_missing

_LIST = "SELECT seq, position, fact, set_aside FROM hl7_to_send WHERE set_aside IS NOT NULL ORDER BY seq"


def main(given: Sequence[str]) -> int:
    """Exit codes: 0 done, 5 no store."""
    parser = arguments.parser("hl7", "Messages that the receiver would not have.")
    parser.add_argument("--send-again", action="store_true", help="put all of them back in line, in their old order")
    parser.add_argument("--json", action="store_true", help="for programs")
    told, settings = arguments.parsed(parser, given)
    try:
        folder = arguments.folder_of(settings, arguments.unit_of(settings))
        with reading(folder) as database:
            rows = []
            with suppress_missing():
                rows = database.execute(_LIST).fetchall()
        if told.send_again:
            # Beside the running agent: SQLite lets one write after the other.
            with closing(sqlite3.connect(folder / "agent.db", timeout=10)) as store, store:
                store.execute("UPDATE hl7_to_send SET set_aside = NULL, attempts = 0 WHERE content <> ''")
    except Usage as why:
        fail(str(why), ExitCode.USAGE)
    except NoStore:
        fail(f"there is no agent's store in {folder}", ExitCode.NOT_FOUND)
    except sqlite3.Error as why:
        fail(f"the store in {folder} cannot be used: {type(why).__name__}", ExitCode.FAILED)
    listed = [
        {"seq": seq, "position": position, "fact": fact, "answer": answer} for seq, position, fact, answer in rows
    ]
    if told.json:
        result_json(listed)
    else:
        for row in listed:
            result(f"{row['seq']:>8}  position {row['position']:<10} {row['fact']:<32} {row['answer']}")
        result(f"{len(listed)} set aside" + (", back in line" if told.send_again and listed else ""))
    return ExitCode.DONE
