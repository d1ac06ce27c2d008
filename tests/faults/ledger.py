"""The test's own account of what it sent and what it was told, and the audit of what is there against it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg

GIVE_UP = 90.0
FINAL = {"accepted", "unchanged", "refused", "failed"}


@dataclass
class Sent:
    """One command as the caller knows it."""

    unit_id: str
    number: int
    kind: str
    command_id: str
    answer: dict[str, Any]  # Any: the JSON told to the caller
    attempts: int


@dataclass
class Ledger:
    """What was acknowledged, by unit, in the order in which it was sent."""

    sent: list[Sent] = field(default_factory=list)

    def of(self, unit_id: str) -> list[Sent]:
        """What one unit's caller sent, in order."""
        return [one for one in self.sent if one.unit_id == unit_id]


class UnitCaller:
    """Registers patients and checks them in at one unit, one command after the other, however often it has to ask.

    Every second command is only acknowledged (202), so that commands are in flight when something is killed.
    """

    def __init__(self, client: httpx.AsyncClient, urls: list[str], unit_id: str, token: str, ledger: Ledger) -> None:
        self._client = client
        self._urls = urls
        self._unit = unit_id
        self._ledger = ledger
        self._headers = {"Authorization": f"Bearer {token}"}
        self._number = 0
        self._name = uuid4().hex[:8]

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; what is under way is finished."""
        while not stop.is_set():
            patient = await self.send(
                "/api/patients",
                "patient",
                {
                    "firstName": "Zoraida",
                    "lastName": "Quillfeather",
                    "medicalRecordNumber": f"MRN-{uuid4().hex}",
                    "dateOfBirth": "1984-02-29",
                },
                wait=True,
            )
            patient_id = (patient.get("result") or patient).get("id")
            for department in ("general", "radiology"):
                await self.send("/api/queues/" + department + "/call-next", "call", {"counter": "1"}, wait=False)
            if patient_id:
                await self.send(
                    "/api/check-in",
                    "check-in",
                    {"patientId": patient_id, "department": "general", "priority": "routine", "reason": "a cough"},
                    wait=False,
                )

    async def send(self, path: str, kind: str, body: dict[str, Any], *, wait: bool) -> dict[str, Any]:  # Any: JSON
        """Send until it is acknowledged; the answer's JSON."""
        self._number += 1
        headers = {
            **self._headers,
            "Idempotency-Key": f"{self._name}-{self._number}",
            "Prefer": "wait=3" if wait else "respond-async",
        }
        deadline = asyncio.get_running_loop().time() + GIVE_UP
        attempts = 0
        while True:
            assert asyncio.get_running_loop().time() < deadline, f"{kind} was never acknowledged"
            url = self._urls[attempts % len(self._urls)]
            attempts += 1
            try:
                response = await self._client.post(url + path, json=body, headers=headers)
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
                continue
            if response.status_code in (429, 502, 503, 504):
                await asyncio.sleep(0.1)
                continue
            if response.status_code == 202 and wait:
                continue
            is_json = "json" in response.headers.get("content-type", "")
            assert is_json, f"{response.status_code} {response.headers} {response.text[:200]!r}"
            answer = response.json()
            command_id = answer.get("commandId") or response.headers.get("Carespine-Command")
            assert command_id, f"{response.status_code} without a command id: {sorted(answer)}"
            self._ledger.sent.append(Sent(self._unit, self._number, kind, command_id, answer, attempts))
            return dict(answer)


def audit(database: psycopg.Connection[tuple[Any, ...]], ledger: Ledger) -> list[str]:  # Any: columns as asked for
    """Everything that is wrong with what is there, given what was acknowledged; empty when nothing is."""
    wrong: list[str] = []
    receipts = {
        str(command_id): (status, position)
        for command_id, status, position in database.execute(
            "SELECT command_id, status, position FROM command_receipts"
        )
    }
    facts: dict[str, Counter[str]] = defaultdict(Counter)
    for command_id, type_name in database.execute("SELECT command_id, type FROM events"):
        facts[str(command_id)][type_name] += 1
    for one in ledger.sent:
        status, _ = receipts.get(one.command_id, (None, None))
        if status not in FINAL or status == "failed":
            wrong.append(f"{one.kind} {one.command_id} of {one.unit_id}: receipt {status}")
            continue
        if status == "accepted" and (not facts[one.command_id] or max(facts[one.command_id].values()) > 1):
            wrong.append(f"{one.kind} {one.command_id}: facts {dict(facts[one.command_id])}")
        if status != "accepted" and facts[one.command_id]:
            wrong.append(f"{one.kind} {one.command_id}: {status}, and yet facts")
    wrong += _order(receipts, ledger)
    wrong += [
        f"partition {partition}: {count} events up to {last}, head {head}"
        for partition, count, last, head in database.execute(
            "SELECT partition, count(*), max(position), (SELECT head FROM log_partitions l WHERE l.partition = "
            "e.partition) FROM events e GROUP BY partition"
        )
        if not count == last == head
    ]
    return wrong


def _order(receipts: dict[str, tuple[Any, Any]], ledger: Ledger) -> list[str]:  # Any: columns
    wrong = []
    for unit_id in {one.unit_id for one in ledger.sent}:
        positions = [
            receipts[one.command_id][1]
            for one in ledger.of(unit_id)
            if receipts.get(one.command_id, (None, None))[0] == "accepted"
        ]
        if positions != sorted(positions) or len(set(positions)) != len(positions):
            wrong.append(f"{unit_id}: its commands were not applied in the order they were acknowledged in")
    return wrong


def projected(database: psycopg.Connection[tuple[Any, ...]]) -> bool:  # Any: columns as asked for
    """Whether the read side has caught up with the log."""
    return database.execute(
        "SELECT count(*) FROM log_partitions JOIN projection_checkpoints USING (partition) WHERE position < head"
    ).fetchone() == (0,)


def read_side(database: psycopg.Connection[tuple[Any, ...]]) -> list[str]:  # Any: columns as asked for
    """What the read tables show otherwise than the log."""
    wrong = []
    for table, type_name in (
        ("read_patients", "patient.PatientRegistered"),
        ("read_encounters", "encounter.PatientArrived"),
        ("read_waiting_room", "queue.PatientEnqueued"),
        ("read_notifications", "encounter.ClinicianNotified"),
    ):
        (rows,) = database.execute(f"SELECT count(*) FROM {table}").fetchone() or (None,)  # noqa: S608 - ours
        (events,) = database.execute("SELECT count(*) FROM events WHERE type = %s", (type_name,)).fetchone() or (None,)
        if rows != events:
            wrong.append(f"{table}: {rows} rows for {events} events")
    return wrong


def delivered(database: psycopg.Connection[tuple[Any, ...]], stores: dict[str, Path]) -> list[str]:  # Any: columns
    """What the agents' own stores hold otherwise than their units' events, once each and in order."""
    wrong = []
    for unit_id, path in stores.items():
        expected = [
            row[0]
            for row in database.execute("SELECT position FROM events WHERE unit_id = %s ORDER BY position", (unit_id,))
        ]
        held = _held(path)
        if held != expected:
            missing, extra = set(expected) - set(held), set(held) - set(expected)
            wrong.append(f"{unit_id}: {len(held)} of {len(expected)} facts, missing {len(missing)}, extra {len(extra)}")
    return wrong


def _held(path: Path) -> list[int]:
    """Positions in an agent's store, in the order of writing; none while the agent has not made it yet."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone() is None:
            return []
        return [row[0] for row in store.execute("SELECT position FROM facts ORDER BY rowid")]
