"""Looking at an agent from outside: its store, read without disturbing it, and its local API when it runs.

Every command that only looks goes this way, so none of them can change or block anything.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts.envelope import Json

ASK_SECONDS: Final = 5.0
_COUNTS: Final = {
    "outboxWaiting": "SELECT count(*) FROM outbox WHERE state = 'waiting'",
    "outboxUnanswered": "SELECT count(*) FROM outbox WHERE state = 'accepted'",
    "outboxRefused": "SELECT count(*) FROM outbox WHERE state = 'refused'",
    "unitCommandsOpen": "SELECT count(*) FROM unit_commands WHERE state IN ('received', 'executing')",
    "unitCommandsInDoubt": "SELECT count(*) FROM unit_commands WHERE state = 'executing'",
    "factsStored": "SELECT count(*) FROM facts",
    "hl7Waiting": "SELECT count(*) FROM hl7_to_send WHERE set_aside IS NULL",
    "hl7SetAside": "SELECT count(*) FROM hl7_to_send WHERE set_aside IS NOT NULL",
    "conflictsOpen": "SELECT count(*) FROM conflicts WHERE seen_at IS NULL",
}


@dataclass(frozen=True)
class NoStore(Exception):
    """There is no store in this folder."""

    folder: Path


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The store, to be read only. Raises NoStore, sqlite3.Error."""
    path = folder / "agent.db"
    if not path.exists():
        raise NoStore(folder)
    uri = path.resolve().as_uri()
    try:
        database = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5)
        database.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        # No agent runs and this account may not write beside the file, which WAL wants: as it lies there, then.
        database = sqlite3.connect(f"{uri}?immutable=1", uri=True)
    with closing(database):
        yield database


def counts(database: sqlite3.Connection) -> Json:
    """What waits, what is open, how far the feed is here; a part that this store does not have is left out."""
    found: Json = {}
    with suppress_missing():
        state = dict(database.execute("SELECT key, value FROM state"))
        found["unit"] = state.get("unit_id")
        found["position"] = state.get("position", 0)
    for name, query in _COUNTS.items():
        with suppress_missing():
            found[name] = database.execute(query).fetchone()[0]
    return found


@contextmanager
def suppress_missing() -> Iterator[None]:
    """A table or column that an older or newer agent does not have is no reason to fail."""
    try:
        yield
    except sqlite3.OperationalError as why:
        if "no such" not in str(why):
            raise


def is_running(folder: Path) -> bool:
    """Whether an agent holds this folder."""
    path = folder / "agent.lock"
    if not path.exists():
        return False
    lock = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0)
    with closing(lock):
        try:
            lock.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as why:
            return why.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        return False


def told_by_the_agent(folder: Path) -> Json | None:
    """What the running agent says of itself; None when it has no local API or does not answer."""
    import httpx  # a running agent reads its folder too, and has no use for this

    try:
        address = json.loads((folder / "local-api.json").read_text(encoding="utf-8"))
        token = (folder / "local-token").read_text(encoding="ascii").strip()
        with httpx.Client(trust_env=False, timeout=ASK_SECONDS) as client:
            answer = client.get(f"{address['url']}/status", headers={"Authorization": f"Bearer {token}"})
        told = answer.json() if answer.is_success else None
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None
    return told if isinstance(told, dict) else None
