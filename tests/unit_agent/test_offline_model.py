"""Whatever a cut-off desk does, and whatever happens at the centre meanwhile: told again to each other, they agree.

The centre here is its real rules in memory. With nobody else at work, all that the desk took the centre takes, and it
comes out as the desk had shown it; with somebody else, what the centre refuses is a conflict and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from command_handlers.domain.queue import ServiceQueue
from contracts.catalogue import command_from
from contracts.encounter import CheckIn
from contracts.envelope import Fact, Outcome, Status
from contracts.ids import EncounterId, PatientId, QueueEntryId, derived
from contracts.model import Command, Event, Refusal
from contracts.patient import RegisterPatient
from contracts.queue import ACTIVE, CallNext, Leave, PriorityCode
from tests.domain.examples import clinic
from tests.kit.commands import new_id
from tests.kit.deciding import MORNING, History
from tests.unit_agent.told import UNIT, frame, told
from unit_agent import conflicts, local_views, outbox, provisional, site_queues
from unit_agent.local_commands import NotNow, keep
from unit_agent.store import Store

DEPARTMENTS = ("intake", "lab")
Act = tuple[str, int, int]

acts = st.tuples(
    st.sampled_from(
        [
            *("register", "check-in", "check-in", "check-in", "CallNext", "CallNext", "CallNext"),
            *("StartService", "StartService", "CompleteService", "MarkNoShow", "Requeue", "Recall", "Leave"),
            *("ChangePriority", "Discharge", "CancelVisit"),
        ]
    ),
    st.integers(0, 7),
    st.integers(0, 3),
)
meanwhile = st.lists(st.tuples(st.sampled_from(["call", "leave", "arrive"]), st.integers(0, 7)), max_size=6)


class Both:
    """A desk that is cut off, and its centre."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.centre = History()
        self.position = 0
        self.now = MORNING
        self.patients: list[str] = []
        self.entries: list[tuple[str, str, str]] = []
        """Department, entry, visit."""

    def centre_does(
        self, command: Command, command_id: UUID | None = None, issued_at: datetime | None = None
    ) -> list[Fact]:
        """The centre carries it out; what it will tell. Raises the refusal."""
        self.centre.command_id = command_id or new_id()
        self.centre.at = MORNING + timedelta(hours=10)
        self.centre.issued_at = issued_at or self.centre.at
        return self.told(self.centre.carry_out(command), self.centre.command_id)

    def told(self, events: list[Event], command_id: UUID) -> list[Fact]:
        facts = []
        for event in events:
            self.position += 1
            facts.append(told(self.position, event, command_id=command_id))
        return facts

    def hears(self, facts: list[Fact]) -> None:
        for fact in facts:
            self.store.take([frame(fact, after=fact.position - 1)], head=0, now=self.now)

    def begin(self) -> None:
        """Both know the unit, some patients, and who waits."""
        self.centre.note(clinic)
        self.hears(self.told([clinic], new_id()))
        for number in range(4):
            patient_id = PatientId(new_id())
            self.patients.append(str(patient_id))
            self.hears(
                self.centre_does(
                    RegisterPatient.model_validate(
                        {
                            "patientId": patient_id,
                            "medicalRecordNumber": f"MRN-{number}",
                            "firstName": "Anaba",
                            "lastName": "Testa",
                            "dateOfBirth": "1980-02-29",
                        }
                    )
                )
            )
        for patient_id_ in self.patients[:2]:
            self.hears(self.arrives(patient_id_))

    def arrives(self, patient_id: str) -> list[Fact]:
        at = self.now
        visit, entry = (derived(new_id(), purpose, at) for purpose in ("encounter", "entry"))
        arrival = CheckIn(
            encounter_id=EncounterId(visit), patient_id=PatientId(UUID(patient_id)), queue_entry_id=QueueEntryId(entry),
            department=DEPARTMENTS[0],
        )  # fmt: skip
        facts = self.centre_does(arrival, issued_at=at)
        self.entries.append((DEPARTMENTS[0], str(entry), str(visit)))
        return facts

    def desk_does(self, act: Act) -> None:
        """The desk makes a command, or is told no."""
        what, which, other = act
        self.now += timedelta(minutes=2)
        department = DEPARTMENTS[other % 2]
        entry = self.entries[which % len(self.entries)]
        payload: dict[str, Any] = {"department": entry[0], "entryId": entry[1]}  # Any: JSON values
        match what:
            case "register":
                name, payload = "patient.RegisterPatient", {
                    "medicalRecordNumber": f"MRN-{which}", "firstName": "Borek", "lastName": "Probar",
                    "dateOfBirth": "2001-07-01",
                }  # fmt: skip
            case "check-in":
                name, payload = "encounter.CheckIn", {
                    "patientId": self.patients[which % len(self.patients)], "department": department,
                    "encounterClass": ("AMB", "EMER")[other // 2],
                }  # fmt: skip
            case "CallNext":
                name, payload = "queue.CallNext", {"department": department}
            case "ChangePriority":
                name, payload["priority"] = "queue.ChangePriority", list(PriorityCode)[other].value
            case "Discharge" | "CancelVisit":
                name, payload = f"encounter.{what}", {"encounterId": entry[2]}
            case _:
                name = f"queue.{what}"
        try:
            kept = keep(self.store, UNIT, name, payload, subject="desk", key=None, now=self.now, linked=False)
        except NotNow:
            return
        if what == "register":
            self.patients.append(kept.ids["patientId"])
        if what == "check-in":
            self.entries.append((department, kept.ids["queueEntryId"], kept.ids["encounterId"]))

    def somebody_does(self, what: str, which: int) -> list[Fact]:
        """Somebody else at the centre, while the desk is cut off."""
        department, entry_id, _ = self.entries[which % len(self.entries)]
        try:
            match what:
                case "call":
                    return self.centre_does(CallNext(department=department))
                case "leave":
                    entry = QueueEntryId(UUID(entry_id))
                    return self.centre_does(Leave(department=department, entry_id=entry))
                case _:
                    return self.arrives(self.patients[which % 4])
        except Refusal:
            return []

    def goes_up(self) -> Iterator[tuple[Outcome, list[Fact]]]:
        """What waits at the desk, in order, and what the centre makes of it."""
        for one in outbox.waiting(self.store.db, after=0, limit=1_000):
            command = command_from(one.type, 1, one.payload)
            outcome = {"command_id": one.command_id, "type": one.type, "unit_id": UNIT, "partition": 1}
            try:
                facts = self.centre_does(command, one.command_id, one.issued_at)
            except Refusal as no:
                yield Outcome(**outcome, status=Status.REFUSED, code=no.code()), []
            else:
                status = Status.ACCEPTED if facts else Status.UNCHANGED
                yield Outcome(**outcome, status=status, position=facts[-1].position if facts else None), facts

    def settle(self, outcome: Outcome) -> None:
        with self.store.transaction() as db:
            outbox.settle(db, [outcome])

    def seen_at_the_desk(self) -> set[tuple[str, str, str]]:
        rooms = [site_queues.waiting_room(self.store.db, one, self.now) for one in DEPARTMENTS]
        return {(entry["id"], entry["status"], entry["priority"]) for room in rooms for entry in room["entries"]}

    def is_at_the_centre(self) -> set[tuple[str, str, str]]:
        queues = [state for state in self.centre.states.values() if isinstance(state, ServiceQueue)]
        return {
            (str(entry.entry_id), entry.status.value, entry.priority.value)
            for queue in queues
            for entry in queue.entries.values()
            if entry.status in ACTIVE
        }

    def visits_at_the_desk(self) -> set[str]:
        summaries = [local_views.patient_summary(self.store.db, one) or {} for one in self.patients]
        return {visit["id"] for summary in summaries for visit in summary.get("encounters", [])}


@contextmanager
def cut_off() -> Iterator[Both]:
    with TemporaryDirectory() as folder, Store(Path(folder), UNIT) as store:
        store.db.execute("PRAGMA synchronous = OFF")  # what a power cut does is tried elsewhere
        both = Both(store)
        both.begin()
        yield both


@settings(max_examples=60, deadline=None)
@given(done=st.lists(acts, min_size=5, max_size=40), outcomes_first=st.booleans())
def test_with_nobody_else_at_work_the_desk_was_right(done: list[Act], outcomes_first: bool) -> None:
    with cut_off() as both:
        for act in done:
            both.desk_does(act)
        shown, visits = both.seen_at_the_desk(), both.visits_at_the_desk()
        for outcome, facts in both.goes_up():
            assert outcome.status is not Status.REFUSED, (outcome.type, outcome.code)
            if outcomes_first:
                both.settle(outcome)
            both.hears(facts)
            assert both.seen_at_the_desk() == shown, "what is confirmed looks no different"
            both.settle(outcome)
        assert both.visits_at_the_desk() == visits
        assert both.seen_at_the_desk() == both.is_at_the_centre()
        assert not provisional.any_shown(both.store.db)
        assert conflicts.counts(both.store.db)["total"] == 0


@settings(max_examples=60, deadline=None)
@given(done=st.lists(acts, min_size=5, max_size=30), others=meanwhile, facts_last=st.booleans())
def test_whatever_others_did_meanwhile_both_agree_in_the_end(
    done: list[Act], others: list[tuple[str, int]], facts_last: bool
) -> None:
    with cut_off() as both:
        missed = [fact for what, which in others for fact in both.somebody_does(what, which)]
        del both.entries[2:]  # the desk has not heard of those who came meanwhile
        for act in done:
            both.desk_does(act)
        both.hears(missed)
        settled = list(both.goes_up())
        refused = [outcome.command_id for outcome, _ in settled if outcome.status is Status.REFUSED]
        if facts_last:
            for outcome, _ in settled:
                both.settle(outcome)
        for outcome, facts in settled:
            both.hears(facts)
            both.settle(outcome)
        assert both.seen_at_the_desk() == both.is_at_the_centre()
        assert not provisional.any_shown(both.store.db)
        listed = conflicts.listing(both.store.db, before=None, only_open=True, limit=100)
        assert sorted(one["commandId"] for one in listed) == sorted(map(str, refused))
