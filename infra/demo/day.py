"""The traffic of a clinic day: patients arrive, are called, served and discharged, at every unit, over HTTP.

One desk per unit does one step at a time, as one receptionist would; all desks together keep a steady pace. Each desk
remembers where its visits should stand now, by the answers it got: the account compares that with the read tables.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from infra.demo.ledger import WritingApi

DEPARTMENTS = ("general-medicine", "radiology")
PRIORITIES = ("routine", "routine", "routine", "routine", "urgent", "asap", "stat")
REASONS = ("cough", "check-up", "sprained ankle", "blood test", "headache", None)
MOST_OPEN = 6
"""Visits open at one unit at a time; who comes later stays at home."""


@dataclass(slots=True)
class Visit:
    """One visit and where it should stand."""

    unit_id: str
    patient_id: str
    encounter_id: str
    entry_id: str
    department: str
    encounter: str = "arrived"
    entry: str = "waiting"


@dataclass
class Visits:
    """All visits of the day, and the queue entries that were given up for another department's."""

    by_entry: dict[str, Visit] = field(default_factory=dict)
    transferred: list[str] = field(default_factory=list)
    made_at_units: list[Visit] = field(default_factory=list)
    """Begun through a unit's own agent; it may be a while before the network hears of them."""

    def all(self) -> dict[str, Visit]:
        """Every visit by its queue entry, those among them that nobody but a unit has seen yet."""
        made = {visit.entry_id: visit for visit in self.made_at_units if visit.entry_id not in self.transferred}
        return made | self.by_entry

    def counts(self) -> Counter[str]:
        """How many stand where."""
        return Counter(
            visit.encounter if visit.encounter == "finished" else visit.entry for visit in self.by_entry.values()
        )


class Pace:
    """So many turns a second, whoever takes them."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next turn. Turns that nobody was there for are not made up for."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next + self._gap, now)
        await asyncio.sleep(self._next - now)


class Desk:
    """The desk of one unit."""

    def __init__(self, api: WritingApi, unit_id: str, patients: Sequence[str], visits: Visits, *, seed: int) -> None:
        self.unit_id = unit_id
        self.patients = list(patients)
        """Who is registered here and alive, and has not come yet."""
        self.surprises: list[str] = []
        """Answers that a clinic day should not get; the account shows them."""
        self._api = api
        self._visits = visits
        self._dice = random.Random(f"{seed}/{unit_id}")  # noqa: S311 - a day that can be had again; protects nothing

    async def step(self) -> None:
        """Do the most pressing thing: discharge, complete, serve, call, let somebody in, or write to the unit."""
        here = [visit for visit in self._visits.by_entry.values() if visit.unit_id == self.unit_id]
        open_here = [visit for visit in here if visit.encounter != "finished"]
        for state, act in (
            ("done", self._discharge),
            ("in-service", self._complete),
            ("called", self._serve),
            ("no-show", self._requeue),
        ):
            for visit in open_here:
                if visit.entry == state and self._dice.random() < 0.7:
                    return await act(visit)
        waiting = [visit for visit in open_here if visit.entry == "waiting"]
        if waiting and (len(open_here) >= MOST_OPEN or not self.patients or self._dice.random() < 0.5):
            return await self._call(self._dice.choice(waiting).department)
        if self.patients and len(open_here) < MOST_OPEN:
            return await self._check_in(self.patients.pop())
        return None

    async def _check_in(self, patient_id: str) -> None:
        department = DEPARTMENTS[0] if self._dice.random() < 0.8 else DEPARTMENTS[1]
        body = {
            "patientId": patient_id,
            "department": department,
            "priority": self._dice.choice(PRIORITIES),
            "reason": self._dice.choice(REASONS),
        }
        answer = await self._ask("encounter.CheckIn", "/api/check-in", body)
        if answer:
            entry_id = answer["queueEntryId"]
            self._visits.by_entry[entry_id] = Visit(
                self.unit_id, patient_id, answer["encounterId"], entry_id, department
            )

    async def _call(self, department: str) -> None:
        answer = await self._ask(
            "queue.CallNext", f"/api/queues/{department}/call-next", {"counter": f"Room {self._dice.randint(1, 5)}"}
        )
        if answer:
            entry_id = answer["entryId"]
            # Whose turn it is may be somebody who was checked in at the unit itself.
            visit = Visit(self.unit_id, answer["patientId"], answer["encounterId"], entry_id, department)
            self._visits.by_entry.setdefault(entry_id, visit).entry = "called"

    async def _serve(self, visit: Visit) -> None:
        if self._dice.random() < 0.08:
            return await self._entry(visit, "queue.MarkNoShow", "no-show", "no-show")
        await self._entry(visit, "queue.StartService", "start", "in-service")
        if visit.encounter == "in-progress":  # it was transferred, and its consultation goes on
            return None
        if await self._ask("encounter.StartConsultation", f"/api/encounters/{visit.encounter_id}/start", {}):
            visit.encounter = "in-progress"
        return None

    async def _complete(self, visit: Visit) -> None:
        if visit.department == DEPARTMENTS[0] and self._dice.random() < 0.1:
            return await self._transfer(visit)
        return await self._entry(visit, "queue.CompleteService", "complete", "done")

    async def _requeue(self, visit: Visit) -> None:
        await self._entry(visit, "queue.Requeue", "requeue", "waiting")

    async def _transfer(self, visit: Visit) -> None:
        path = f"/api/queues/{visit.department}/entries/{visit.entry_id}/transfer"
        answer = await self._ask("queue.TransferEntry", path, {"toDepartment": DEPARTMENTS[1]})
        if answer:
            self._visits.transferred.append(visit.entry_id)
            del self._visits.by_entry[visit.entry_id]
            visit.entry_id, visit.department, visit.entry = answer["entryId"], DEPARTMENTS[1], "waiting"
            self._visits.by_entry[visit.entry_id] = visit

    async def _discharge(self, visit: Visit) -> None:
        path = f"/api/encounters/{visit.encounter_id}/discharge"
        if await self._ask("encounter.Discharge", path, {}):
            visit.encounter = "finished"

    async def _entry(self, visit: Visit, type_name: str, action: str, status: str) -> None:
        if await self._ask(type_name, f"/api/queues/{visit.department}/entries/{visit.entry_id}/{action}", {}):
            visit.entry = status

    async def _ask(self, type_name: str, path: str, body: Mapping[str, object]) -> dict[str, str]:
        """The result of a command; empty where it was not taken, which is written down."""
        ended = await self._api.ask(type_name, self.unit_id, path, dict(body))
        if ended.done:
            return ended.result or {"status": ended.status}
        self.surprises.append(f"{type_name}: {ended.status} {ended.code}")
        return {}


async def keep_open(desks: Sequence[Desk], pace: Pace, closing: asyncio.Event) -> None:
    """All desks at work until `closing` is set; what is being done then is finished."""

    async def work(desk: Desk) -> None:
        while not closing.is_set():
            await pace.turn()
            await desk.step()

    async with asyncio.TaskGroup() as group:
        for desk in desks:
            group.create_task(work(desk))


def order_for(number: int, patient_id: str | None) -> dict[str, object]:
    """A durable command to a unit."""
    body: dict[str, object] = {
        "type": "orders.place",
        "payload": {"code": "24323-8", "number": number},
        "deadline": (datetime.now(UTC) + timedelta(minutes=10)).isoformat(),
        "onReconnect": "run",
    }
    return body if patient_id is None else body | {"patientId": patient_id}
