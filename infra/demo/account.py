"""The closing account: the demo's own ledger against Postgres, against every unit's own store and against the sites.

Reads tables and files directly and asks no process of ours, so a process that miscounts cannot hide it here. A line
balances when what was expected is what is there; `lost` and `doubled` add up what is missing and what is there twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from contracts.envelope import Json
from infra.demo.day import Visits
from infra.demo.ledger import Ledger
from infra.demo.units import UnitStore

FACTS: dict[str, tuple[str, ...]] = {
    "unit.RegisterUnit": ("unit.UnitRegistered",),
    "patient.RegisterPatient": ("patient.PatientRegistered",),
    "patient.UpdateDemographics": ("patient.DemographicsUpdated",),
    "patient.AssignMrn": ("patient.MrnAssigned",),
    "encounter.CheckIn": ("encounter.PatientArrived", "encounter.ClinicianNotified", "queue.PatientEnqueued"),
    "encounter.StartConsultation": ("encounter.ConsultationStarted",),
    "encounter.Discharge": ("encounter.PatientDischarged",),
    "queue.CallNext": ("queue.PatientCalled",),
    "queue.StartService": ("queue.ServiceStarted",),
    "queue.CompleteService": ("queue.ServiceCompleted",),
    "queue.MarkNoShow": ("queue.PatientNoShow",),
    "queue.Requeue": ("queue.PatientRequeued",),
    "queue.TransferEntry": ("queue.EntryTransferred", "queue.PatientEnqueued", "encounter.MovedToDepartment"),
    "unit_command.QueueUnitCommand": ("unit_command.UnitCommandQueued",),
    "unit_command.ReportUnitCommand": ("unit_command.UnitCommandApplied",),
}
"""What each accepted command of the day makes happen, each fact once."""
SOMETIMES = {"patient.RegisterPatient": ("patient.PatientDied",)}
"""What may come with it, by what was in the record."""
OF_THE_AGENTS = "unit_command.ReportUnitCommand"
"""The one command that nobody in the demo gives: agents do, once for each unit command."""


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison."""

    what: str
    expected: int
    seen: int
    missing: int = 0
    """Expected and not there."""
    surplus: int = 0
    """There and not expected, or there more than once."""

    @property
    def balances(self) -> bool:
        return self.missing == 0 and self.surplus == 0


@dataclass
class Account:
    """All comparisons."""

    lines: list[Line] = field(default_factory=list)
    per_unit: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many facts of each unit are in the log, and how many on its disk."""
    remarks: list[str] = field(default_factory=list)
    """Anything else that should not have been; none in a good run."""

    @property
    def lost(self) -> int:
        return sum(line.missing for line in self.lines)

    @property
    def doubled(self) -> int:
        return sum(line.surplus for line in self.lines)

    @property
    def balances(self) -> bool:
        return all(line.balances for line in self.lines) and not self.remarks

    def compare(self, what: str, expected: Iterable[Hashable], seen: Iterable[Hashable]) -> None:
        """Two collections that should hold the same things equally often."""
        wanted, found = Counter(expected), Counter(seen)
        missing, surplus = (wanted - found).total(), (found - wanted).total()
        self.lines.append(Line(what, wanted.total(), found.total(), missing, surplus))

    def to_dict(self) -> Json:
        return {
            "lost": self.lost,
            "doubled": self.doubled,
            "balances": self.balances,
            "lines": [
                {
                    "what": line.what,
                    "expected": line.expected,
                    "seen": line.seen,
                    "missing": line.missing,
                    "surplus": line.surplus,
                }
                for line in self.lines
            ],
            "perUnit": self.per_unit,
            "remarks": self.remarks,
        }


_RECEIPTS = "SELECT command_id, type, status FROM command_receipts"
_FACTS = """
SELECT partition, position, unit_id, stream, stream_version, type, command_id FROM events ORDER BY partition, position
"""


@dataclass(frozen=True, slots=True)
class _Receipt:
    command_id: UUID
    type: str
    status: str


@dataclass(frozen=True, slots=True)
class _Fact:
    partition: int
    position: int
    unit_id: str
    stream: str
    version: int
    type: str
    command_id: UUID


def balance(
    postgres_url: str,
    ledger: Ledger,
    visits: Visits,
    stores: Mapping[str, UnitStore],
    *,
    done_at_sites: Mapping[str, int],
    replayed: Sequence[UUID],
) -> Account:
    """The account of everything that was sent.

    `stores` by unit id; `done_at_sites` tells how often each order was done; `replayed` are dead-lettered commands in
    the order in which they had to be handled.
    """
    account = Account()
    with psycopg.connect(postgres_url, autocommit=True, connect_timeout=10) as connection:
        receipts = {row[0]: _Receipt(*row) for row in connection.execute(_RECEIPTS)}
        facts = [_Fact(*row) for row in connection.execute(_FACTS)]
        _handled(account, ledger, receipts)
        _stored(account, receipts, facts)
        _in_order(account, connection, facts)
        _projected(account, connection, ledger, visits)
    _delivered(account, facts, stores)
    _executed(account, facts, stores, done_at_sites)
    handled = [fact.command_id for fact in facts if fact.command_id in set(replayed)]
    account.compare("replayed dead letters, in their order", enumerate(replayed), enumerate(handled))
    return account


def _handled(account: Account, ledger: Ledger, receipts: Mapping[UUID, _Receipt]) -> None:
    """Everything that was taken has one final receipt, which says what the caller was told."""
    entries = ledger.entries.values()
    taken = [entry.command_id for entry in entries if entry.taken]
    ours = [receipt.command_id for receipt in receipts.values() if receipt.type != OF_THE_AGENTS]
    account.compare("accepted = handled (a receipt each)", taken, ours)
    unsettled = [receipt for receipt in receipts.values() if receipt.status == "failed"]
    account.compare("still dead-lettered", [], unsettled)
    for entry in entries:
        told, receipt = entry.answer, receipts.get(entry.command_id)
        if told is None and entry.via == "http":
            account.remarks.append(f"{entry.type} {entry.command_id} was never answered")
        if told and receipt and not _agree(told.status, receipt.status):
            account.remarks.append(f"{entry.type} {entry.command_id}: told {told.status}, is {receipt.status}")
    account.remarks += [f"the answer to {command_id} named another command" for command_id in ledger.unlike]


def _agree(told: str, receipt: str) -> bool:
    """A command asked for twice, by its caller or by the broker, is told `unchanged` where it was accepted first."""
    return told in ("failed", receipt) or (told, receipt) == ("unchanged", "accepted")


def _stored(account: Account, receipts: Mapping[UUID, _Receipt], facts: Sequence[_Fact]) -> None:
    """Each accepted command made happen what it should, once; what was refused or already so, nothing."""
    seen = [(fact.command_id, fact.type) for fact in facts]
    there = set(seen)
    expected = []
    for receipt in receipts.values():
        if receipt.status == "accepted":
            expected += [(receipt.command_id, name) for name in FACTS[receipt.type]]
            maybe = [(receipt.command_id, name) for name in SOMETIMES.get(receipt.type, ())]
            expected += [fact for fact in maybe if fact in there]
    account.compare("handled = stored (facts in the log)", expected, seen)


def _in_order(account: Account, connection: psycopg.Connection, facts: Sequence[_Fact]) -> None:
    """Positions of a partition and versions of a stream run from 1 without a gap; everything is projected."""
    heads: dict[int, int] = dict(connection.execute("SELECT partition, head FROM log_partitions").fetchall())
    checkpoints: dict[int, int] = dict(
        connection.execute("SELECT partition, position FROM projection_checkpoints").fetchall()
    )
    positions = [(partition, position) for partition, head in heads.items() for position in range(1, head + 1)]
    account.compare("positions without a gap", positions, [(fact.partition, fact.position) for fact in facts])
    lengths = Counter(fact.stream for fact in facts)
    versions = [(stream, version) for stream, length in lengths.items() for version in range(1, length + 1)]
    account.compare("stream versions without a gap", versions, [(fact.stream, fact.version) for fact in facts])
    projected = [(partition, position) for partition, point in checkpoints.items() for position in range(1, point + 1)]
    account.compare("stored = projected (checkpoints)", positions, projected)


def _projected(account: Account, connection: psycopg.Connection, ledger: Ledger, visits: Visits) -> None:
    """The read tables say what the desks know from their answers."""

    def rows(statement: LiteralString) -> list[tuple[Any, ...]]:  # Any: columns differ
        return connection.execute(statement).fetchall()

    day = visits.all().values()
    registered = Counter(entry.unit_id for entry in ledger.accepted("patient.RegisterPatient"))
    units = {entry.unit_id for entry in ledger.accepted("unit.RegisterUnit")}
    account.compare("read: units", units, [unit_id for (unit_id,) in rows("SELECT unit_id FROM read_units")])
    account.compare(
        "read: patients", registered.elements(), [row[0] for row in rows("SELECT unit_id FROM read_patients")]
    )
    account.compare(
        "read: visits and where they stand",
        [(visit.encounter_id, visit.encounter) for visit in day],
        [(str(id_), status) for id_, status in rows("SELECT encounter_id, status FROM read_encounters")],
    )
    account.compare(
        "read: waiting rooms",
        [(visit.entry_id, visit.entry) for visit in day]
        + [(entry_id, "transferred") for entry_id in visits.transferred],
        [(str(id_), status) for id_, status in rows("SELECT entry_id, status FROM read_waiting_room")],
    )


def _delivered(account: Account, facts: Sequence[_Fact], stores: Mapping[str, UnitStore]) -> None:
    """Every unit has every fact of its own on disk once, in order, and nobody else's."""
    by_unit: dict[str, list[_Fact]] = defaultdict(list)
    for fact in facts:
        by_unit[fact.unit_id].append(fact)
    expected, seen = [], []
    for unit_id, own in by_unit.items():
        expected += [(unit_id, fact.position, fact.type, str(fact.command_id)) for fact in own]
        on_disk = len(stores[unit_id].facts) if unit_id in stores else 0
        account.per_unit[unit_id] = {"inTheLog": len(own), "onItsDisk": on_disk}
    for unit_id, store in stores.items():
        seen += [(unit_id, *fact) for fact in store.facts]
        if store.applied != len(store.facts):
            account.remarks.append(f"{unit_id} applied {store.applied} facts and holds {len(store.facts)}")
    account.compare(f"projected = delivered ({len(stores)} units' disks)", expected, seen)


def _executed(
    account: Account, facts: Sequence[_Fact], stores: Mapping[str, UnitStore], done_at_sites: Mapping[str, int]
) -> None:
    """Each command to a unit was done there, once, and the network knows."""
    queued = [fact.stream for fact in facts if fact.type == "unit_command.UnitCommandQueued"]
    applied = [fact.stream for fact in facts if fact.type == "unit_command.UnitCommandApplied"]
    journals = [f"unit_command-{order_id}" for store in stores.values() for order_id in store.orders_applied]
    done = [f"unit_command-{order_id}" for order_id, times in done_at_sites.items() for _ in range(times)]
    account.compare("unit commands = applied in the units' journals", queued, journals)
    account.compare("unit commands = outcomes back in the log", queued, applied)
    account.compare("unit commands = done by the sites' systems", queued, done)
