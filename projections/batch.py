"""A batch of facts on its way into the read tables: which statements, in which order, and what if one fails.

Facts are grouped by statement. A statement sees each row at most once, and the facts of one row are applied in their
order: a fact goes to the latest group of its statement unless a later group has touched its row. No clock, no log, no
checkpoint here; `projections.runner` and `projections.rebuild` bring those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection

from contracts.catalogue import EVENTS, UPCASTS, UnknownWord
from infra.event_log import StoredEvent
from infra.sealing import Opened
from projections.read_model import Json, Reaction, ReadModel

Connection = AsyncConnection[Any]  # Any: nothing is read here
BAD_FACT = (psycopg.DataError, psycopg.IntegrityError, LookupError, TypeError, ValueError, AttributeError)
"""What a fact or a handler is at fault for. Anything else the database says (away, full, not migrated) is trouble."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A fact as read models see it: its payload as of this release, and its envelope, in one JSON object."""

    type: str
    row: Json


@dataclass(frozen=True, slots=True)
class Step:
    """One statement and the facts it takes."""

    reaction: Reaction
    rows: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A fact that a read model could not apply."""

    read_model: str
    partition: int
    position: int
    event_type: str
    error_type: str


class Reactions:
    """What some read models do, by the event's type name."""

    def __init__(self, models: Sequence[ReadModel]) -> None:
        self.models = [model.name for model in models]
        self.by_type: dict[str, list[Reaction]] = {}
        for model in models:
            for type_name, reaction in model.reactions.items():
                self.by_type.setdefault(type_name, []).append(reaction)

    def of(self, read_model: str) -> dict[str, list[Reaction]]:
        """Those of one read model."""
        own = {
            type_name: [reaction for reaction in reactions if reaction.read_model == read_model]
            for type_name, reactions in self.by_type.items()
        }
        return {type_name: reactions for type_name, reactions in own.items() if reactions}


def seen(opened: Opened) -> Seen:
    """The fact as read models see it. Raises UnknownWord for an event of a newer release."""
    event = opened.event
    payload = opened.payload
    word = EVENTS.get(event.type)
    if word is None or event.type_version > word.version:
        raise UnknownWord(f"unknown event {event.type!r} version {event.type_version}")
    for version in range(event.type_version, word.version):
        payload = UPCASTS[event.type, version](payload)
    row = {
        **payload,
        "unitId": event.unit_id,
        "partition": event.partition,
        "position": event.position,
        "streamVersion": event.stream_version,
        "occurredAt": event.occurred_at,
        "recordedAt": event.recorded_at,
        "erased": opened.erased,
    }
    return Seen(event.type, row)


def plan(facts: Iterable[Seen], reactions: Mapping[str, Sequence[Reaction]]) -> list[Step]:
    """The statements for these facts, in the order in which they are to run."""
    steps: list[Step] = []
    latest: dict[int, int] = {}
    touched: dict[tuple[str, object, object], int] = {}
    for fact in facts:
        for reaction in reactions.get(fact.type, ()):
            row = fact.row if reaction.computed is None else {**fact.row, **reaction.computed.of(fact.row)}
            place = (reaction.read_model, row["partition"], row[reaction.key])
            at = latest.get(id(reaction), -1)
            if at <= touched.get(place, -1) or reaction.across:
                at = latest[id(reaction)] = len(steps)
                steps.append(Step(reaction))
            steps[at].rows.append(row)
            touched[place] = at
    return steps


async def run_steps(connection: Connection, steps: Iterable[Step]) -> None:
    """Send the statements; in pipeline mode an error shows only when the caller synchronises."""
    for step in steps:
        statement = step.reaction.statement
        await connection.execute(statement.text, statement.with_values(facts=_json(step.rows)))


async def run_isolated(connection: Connection, facts: Sequence[Seen], reactions: Reactions) -> list[LeftOut]:
    """Apply to each read model on its own; where that fails, fact by fact, leaving out those that cannot be applied.

    Slow, and only for a batch that has failed. In the caller's transaction, outside pipeline mode.
    """
    left_out: list[LeftOut] = []
    for model in reactions.models:
        own = reactions.of(model)
        mine = [fact for fact in facts if fact.type in own]
        try:
            async with connection.transaction():
                await run_steps(connection, plan(mine, own))
        except BAD_FACT:
            for fact in mine:
                try:
                    async with connection.transaction():
                        await run_steps(connection, plan([fact], own))
                except BAD_FACT as why:
                    place = fact.row["partition"], fact.row["position"]
                    left_out.append(LeftOut(model, *place, fact.type, type(why).__name__))
    return left_out


def left_out_by(read_model: str, event: StoredEvent, why: BaseException) -> LeftOut:
    """The record of an event left out: its place and type, nothing of what was in it."""
    return LeftOut(read_model, event.partition, event.position, event.type, type(why).__name__)


def _json(rows: list[Json]) -> str:
    text = orjson.dumps(rows).decode()
    if "\\u0000" in text:  # Postgres' text cannot hold it; nobody means it
        text = orjson.dumps([_without_nul(row) for row in rows]).decode()
    return text


def _without_nul(value: Any) -> Any:  # Any: JSON
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nul(part) for part in value]
    return value
