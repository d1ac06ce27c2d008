"""The test's own account of one stretch of trouble: what was acknowledged, and the audit of what is there against it.

Three ways are followed to their ends: commands to units (asked over HTTP, executed by the site's system, reported
back), commands made at units (kept by the agent, decided at the centre), and the feed (every event of the unit, once
and in order, on the agent's disk).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.ledger import delivered
from tests.faults.link.site import Site

GRACE = timedelta(seconds=5)
"""By which a command may be final after its deadline: the timer's own pace, and a slow machine."""

Database = psycopg.Connection[tuple[Any, ...]]  # Any: columns as asked for


@dataclass(frozen=True)
class Asked:
    """A command to a unit that the centre has acknowledged."""

    unit_id: str
    number: int
    command_id: str


@dataclass(frozen=True)
class Made:
    """A command made at a unit that its agent has acknowledged."""

    unit_id: str
    number: int
    command_id: str


@dataclass
class Account:
    """What was acknowledged, in the order of asking at each unit."""

    asked: list[Asked] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.asked) + len(self.made)


def wrong_with_asked(database: Database, account: Account, site: Site, *, repeats: bool = False) -> list[str]:
    """What is wrong with the commands to units. `repeats`: the site may be asked again with the same key."""
    wrong = []
    times = site.times()
    rows = {
        str(command_id): (status, deadline, settled_at, late)
        for command_id, status, deadline, settled_at, late in database.execute(
            "SELECT unit_command_id, status, deadline, settled_at, late_report FROM read_unit_commands"
        )
    }
    for one in account.asked:
        if one.command_id not in rows:
            wrong.append(f"command {one.number} to {one.unit_id} is lost")
            continue
        status, deadline, settled_at, late = rows[one.command_id]
        executed = times[one.command_id]
        if executed > 1 and not repeats:
            wrong.append(f"command {one.number} to {one.unit_id} was executed {executed} times")
        if status == "applied" and not executed:
            wrong.append(f"command {one.number} to {one.unit_id} is applied and was never executed")
        if status == "expired" and executed and late is None:
            wrong.append(f"command {one.number} to {one.unit_id} was executed, and nobody was told")
        wrong += _in_time(one, status, deadline, settled_at)
    return wrong + _executed_in_order(account, site)


def _in_time(one: Asked, status: str, deadline: datetime, settled_at: datetime | None) -> list[str]:
    if settled_at is None:
        return [f"command {one.number} to {one.unit_id} is {status}"]
    if settled_at > deadline + GRACE:
        return [f"command {one.number} to {one.unit_id} was final {settled_at - deadline} after its deadline"]
    return []


def _executed_in_order(account: Account, site: Site) -> list[str]:
    place = {one.command_id: number for number, one in enumerate(account.asked)}
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for run in site.runs:
        if run.command_id in place and run.command_id not in seen:
            seen.add(run.command_id)
            first[run.unit_id].append(place[run.command_id])
    return [f"{unit_id}: executed out of order" for unit_id, places in first.items() if places != sorted(places)]


def wrong_with_made(database: Database, account: Account) -> list[str]:
    """What is wrong with the commands made at units."""
    wrong = []
    receipts = {
        str(command_id): (status, position)
        for command_id, status, position in database.execute(
            "SELECT command_id, status, position FROM command_receipts WHERE command_id = ANY(%s::uuid[])",
            ([one.command_id for one in account.made],),
        )
    }
    facts = {
        str(command_id): count
        for command_id, count in database.execute(
            "SELECT command_id, count(*) FROM events WHERE command_id = ANY(%s::uuid[]) "
            "AND type = 'patient.PatientRegistered' GROUP BY 1",
            ([one.command_id for one in account.made],),
        )
    }
    by_unit: dict[str, list[int]] = defaultdict(list)
    for one in account.made:
        status, position = receipts.get(one.command_id, ("lost", None))
        if status != "accepted" or facts.get(one.command_id) != 1:
            wrong.append(
                f"command {one.number} made at {one.unit_id}: {status}, registered {facts.get(one.command_id)} times"
            )
        else:
            by_unit[one.unit_id].append(position)
    wrong += [
        f"{unit_id}: applied out of order" for unit_id, positions in by_unit.items() if positions != sorted(positions)
    ]
    return wrong


def wrong_with_feed(database: Database, stores: dict[str, Path]) -> list[str]:
    """What is wrong with what the agents hold."""
    return delivered(database, stores)
