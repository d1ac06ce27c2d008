"""A unit's day as facts, made by the rules themselves: what portals are shown is held against what really happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from contracts.envelope import Fact
from contracts.model import Event, sealed_fields
from contracts.unit import RegisterUnit
from infra.portals.log import Page, Reached, Standing
from tests.kit.care import check_in, registration
from tests.kit.commands import new_id
from tests.kit.deciding import UNIT_ID, History, stream_of

PARTITION = 3


class Day:
    """What happens at one unit, and the log it makes. Positions leave gaps: others' events lie between."""

    def __init__(self, step: int = 3) -> None:
        self.at = datetime.now(UTC)  # ids carry their instant, and the instant decides the service day
        self.history = History(at=self.at, issued_at=self.at, unit_id=UNIT_ID)
        self.facts: list[Fact] = []
        self._step = step
        self._versions: dict[str, int] = {}
        self.does(RegisterUnit(name="A clinic"))

    @property
    def head(self) -> int:
        """Position of the last fact."""
        return self.facts[-1].position

    def does(self, command: Any) -> list[Fact]:  # Any: a command of any aggregate
        """A command is carried out; the facts it brought."""
        return [self._noted(event) for event in self.history.carry_out(command)]

    def arrives(self, department: str = "general") -> Any:  # Any: the command, with its ids
        """A patient is registered and checks in."""
        patient = registration(new_id())
        self.does(patient)
        arrival = check_in(patient.patient_id, department)
        self.does(arrival)
        return arrival

    def happens(self, event: Event) -> Fact:
        """Something happened, whatever the rules would say."""
        return self._noted(event)

    def _noted(self, event: Event) -> Fact:
        stream = stream_of(event, UNIT_ID)
        self._versions[stream] = self._versions.get(stream, 0) + 1
        clear = {name: value for name, value in event.to_dict().items() if name not in sealed_fields(type(event))}
        fact = Fact(
            position=(self.facts[-1].position if self.facts else 0) + self._step,
            type=event.type_name(),
            version=event.version,
            stream=stream,
            stream_version=self._versions[stream],
            command_id=new_id(),
            occurred_at=self.at,
            recorded_at=self.at + timedelta(seconds=len(self.facts)),
            payload=orjson.loads(orjson.dumps(clear)),
        )
        self.facts.append(fact)
        return fact


class DayLog:
    """The log of a day, as `infra.portals.log.PortalLog`; `visible_until` moves as a test says."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.visible_until = 0
        self.reads = 0

    async def standing(self, unit_id: str) -> Standing | None:
        if unit_id != UNIT_ID:
            return None
        own = [fact for fact in self.day.facts if fact.stream == f"unit-{UNIT_ID}"]
        return Standing("active", PARTITION, self.visible_until, [one for one in own if self._seen(one)])

    async def page(self, unit_id: str, partition: int, after: int, limit: int) -> Page:
        self.reads += 1
        facts = [fact for fact in self.day.facts if fact.position > after and self._seen(fact)][:limit]
        return Page(facts, facts[-1].position if len(facts) == limit else max(self.visible_until, after))

    async def streams(self, unit_id: str, partition: int, before: Mapping[str, int]) -> list[Fact]:
        return [fact for fact in self.day.facts if fact.stream_version < before.get(fact.stream, 0)]

    async def visible(self) -> dict[int, int]:
        return {PARTITION: self.visible_until}

    async def reached(self, spans: Sequence[tuple[str, int, int, int]]) -> list[Reached]:
        return [Reached(unit_id, through, self._last(after, through)) for unit_id, _, after, through in spans]

    def _last(self, after: int, through: int) -> int | None:
        return max((fact.position for fact in self.day.facts if after < fact.position <= through), default=None)

    def _seen(self, fact: Fact) -> bool:
        return fact.position <= self.visible_until


def between(facts: Iterable[Fact], after: int, through: int) -> list[Fact]:
    """Those in (after, through]."""
    return [fact for fact in facts if after < fact.position <= through]
