"""An import: every line of the files becomes a command on the ordinary way in, or a line of a report that says why not.

How lines are read and what they mean is the business of `ndjson` and `records`. A record keeps its ids and its
Idempotency-Key, so an import may be broken off and run again at any point: what was done before is answered, not done
twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from contracts.envelope import Json
from contracts.unit import UnitSettings
from infra.api import Api, Ended
from infra.fhir.ndjson import Line, NotUsable, read
from infra.fhir.records import Record, Units, patient_from, unit_from
from infra.fhir.trail import Checkpoint, Report

IN_FLIGHT = 32
CHECKPOINT_EVERY = 100

Moved = Callable[[str], None]
"""Told the resource type of every line that is settled."""


@dataclass(frozen=True)
class Source:
    """What is to be imported and by which settings."""

    organizations: Path | None
    patients: Path | None
    settings: UnitSettings
    """Of the units that are registered; the zone also dates deaths that have no time."""
    unit_id: str | None = None
    """Where patients without a managing organization belong; None: spread over the units of the file."""


@dataclass
class Tally:
    """How the lines of one file ended."""

    registered: int = 0
    unchanged: int = 0
    skipped: int = 0
    """Lines settled by an earlier run that was broken off."""
    refused: Counter[str] = field(default_factory=Counter)
    """By reason code."""
    units: set[str] = field(default_factory=set)
    """Units that something of the file is registered at."""

    def to_dict(self) -> Json:
        return {
            "registered": self.registered,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "refused": self.refused.total(),
            "reasons": dict(sorted(self.refused.items())),
            "units": len(self.units),
        }


@dataclass(frozen=True, slots=True)
class _Settled:
    """A line whose end is known."""

    line: Line
    found: tuple[Record, Ended] | NotUsable
    through: int
    """Every line up to this one is settled."""


class Import:
    """One run over one source."""

    def __init__(self, api: Api, source: Source, *, report: Path, checkpoint: Checkpoint, moved: Moved) -> None:
        self._api = api
        self._source = source
        self._report_path = report
        self._checkpoint = checkpoint
        self._moved = moved
        self.organizations = Tally()
        self.patients = Tally()

    async def run(self) -> None:
        """Units first, then their patients. Raises Unreachable or NotLetIn where it has to be broken off."""
        organizations, patients = self._source.organizations, self._source.patients
        resume_after = await self._checkpoint.line(self._api) if patients else 0
        with Report(self._report_path, keep=(patients.name if patients else "", resume_after)) as report:
            units = await self._register_units(organizations, report) if organizations else {}
            if patients:
                await self._register_patients(patients, Units(units, stray=self._source.unit_id), report, resume_after)
        self._checkpoint.forget()

    async def _register_units(self, path: Path, report: Report) -> dict[str, str]:
        """The units that are registered now, by organization id."""
        units: dict[str, str] = {}
        sending = self._send(path, "Organization", lambda resource: unit_from(resource, self._source.settings))
        async with aclosing(sending):
            async for settled in sending:
                self._count(self.organizations, path, settled, report)
                if not isinstance(settled.found, NotUsable):
                    record, ended = settled.found
                    # Registered before with other data is a refusal, and yet a unit that patients may belong to.
                    if ended.done or ended.code == "unit_already_registered":
                        units[record.source_id] = record.unit_id
        return units

    async def _register_patients(self, path: Path, units: Units, report: Report, resume_after: int) -> None:
        zone = self._source.settings.zone
        sending = self._send(path, "Patient", lambda resource: patient_from(resource, units, zone), resume_after)
        known, kept = None, resume_after  # a command that ended, and the line the checkpoint stands at
        async with aclosing(sending):
            async for settled in sending:
                self._count(self.patients, path, settled, report)
                if not isinstance(settled.found, NotUsable):
                    known = settled.found[1].command_id or known
                if known and settled.through >= kept + CHECKPOINT_EVERY:
                    report.flush()  # what the checkpoint passes over must be in the report already
                    self._checkpoint.keep(settled.through, known)
                    kept = settled.through

    async def _send(
        self, path: Path, kind: str, understand: Callable[[Json], Record], resume_after: int = 0
    ) -> AsyncGenerator[_Settled, None]:
        """Send the lines of a file, a bounded number at a time, and answer each as its end becomes known."""
        under_way: dict[asyncio.Task[tuple[Record, Ended] | NotUsable], Line] = {}
        tally = self.organizations if kind == "Organization" else self.patients
        last = 0

        async def settle(at_most: int) -> list[_Settled]:
            settled = []
            while len(under_way) > at_most:
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    line = under_way.pop(task)
                    through = min((other.number for other in under_way.values()), default=last + 1) - 1
                    settled.append(_Settled(line, task.result(), through))
                    self._moved(kind)
            return settled

        try:
            for line in read(path, kind):
                last = line.number
                if line.number <= resume_after:
                    tally.skipped += 1
                    self._moved(kind)
                    continue
                under_way[asyncio.create_task(self._one(line, understand))] = line
                for settled in await settle(IN_FLIGHT - 1):
                    yield settled
            for settled in await settle(0):
                yield settled
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _one(self, line: Line, understand: Callable[[Json], Record]) -> tuple[Record, Ended] | NotUsable:
        if isinstance(line.found, NotUsable):
            return line.found
        try:
            record = understand(line.found)
        except NotUsable as reason:
            return reason
        command = record.command
        return record, await self._api.command(command.type_name(), record.unit_id, command.to_dict(), key=record.key)

    @staticmethod
    def _count(tally: Tally, path: Path, settled: _Settled, report: Report) -> None:
        if isinstance(settled.found, NotUsable):
            code, where = settled.found.code, settled.found.field
        else:
            record, ended = settled.found
            if ended.done:
                tally.registered += ended.status == "accepted"
                tally.unchanged += ended.status == "unchanged"
                tally.units.add(record.unit_id)
                return
            code, where = ended.code or ended.status, None
        tally.refused[code] += 1
        report.add(path, settled.line.number, code, where)
