"""One batch of messages: look up, load, decide, write, settle. The way of a command between its queue and its receipt.

Which messages form a batch and what happens after trouble is `command_handlers.pump`'s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from command_handlers.book import Book, Draft, Memory, NotLoaded
from command_handlers.deciding import Decision, decide
from command_handlers.domain.catalogue import aggregate_for
from command_handlers.domain.decider import Claim
from command_handlers.domain.processes import prefetch
from command_handlers.letters import notice_letter
from command_handlers.loading import Block, Found, Receipt, enter_streams, find, load
from command_handlers.messages import Item
from command_handlers.setting_aside import SettingAside
from command_handlers.writing import Settled, erased_by, write
from contracts.catalogue import UnknownWord, command_from
from contracts.dead_letter import Reason
from contracts.envelope import CommandEnvelope, Outcome, Status
from contracts.ids import partition_of
from contracts.model import Command
from contracts.patient import RequestErasure
from contracts.refusals import CommandIdReused
from contracts.text import ESCAPED_NUL, holds_nul
from infra.broker.errors import BrokerUnavailable
from infra.broker.publisher import Publisher
from infra.database import Connection, Pool, connected
from infra.sealing import KeyNotKnown, SealBroken, Sealer
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MOST_LOADS = 50
"""A decision that asks for more than this, one after the other, does not end."""
CANNOT_BE_READ = (UnknownWord, SealBroken, NotLoaded, ValueError, LookupError)
"""What the history of a stream can be at fault for."""


@dataclass(slots=True)
class Result:
    """What a batch came to: answers for waiting callers."""

    answers: list[tuple[CommandEnvelope, Outcome]] = field(default_factory=list)


Rehearse = Callable[[Command], None]


class Batches:
    """Handles batches, one after the other, for the partitions it is given epochs of."""

    def __init__(
        self,
        *,
        pool: Pool,
        sealer: Sealer,
        publisher: Publisher,
        metrics: Metrics,
        partitions: int,
        rehearse: Rehearse = lambda command: None,
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._aside = SettingAside(publisher, metrics)
        self._metrics = metrics
        self._partitions = partitions
        self._rehearse = rehearse
        self.memory = Memory()

    def forget(self, partition: int) -> None:
        """Nothing of what happened in the partition is in memory any more; it is read again when it is needed."""
        self.memory.forget(partition)

    def decode(self, item: Item) -> None:
        """Read the message; what cannot be read is marked dead with its reason."""
        try:
            envelope = CommandEnvelope.model_validate_json(item.message.body)
        except ValidationError:
            item.dead = Reason.UNDECODABLE
            return
        if ESCAPED_NUL in item.message.body and holds_nul(envelope.to_dict()):
            item.dead = Reason.UNDECODABLE  # no door lets it in, and no table could keep it
            return
        item.envelope = envelope
        if partition_of(envelope.unit_id, self._partitions) != item.partition:
            item.dead = Reason.WRONG_PARTITION
            return
        try:
            item.command = command_from(envelope.type, envelope.type_version, envelope.payload)
        except UnknownWord:
            item.dead = Reason.UNKNOWN_COMMAND
        except ValidationError:
            item.dead = Reason.UNDECODABLE
        except Exception as bug:  # noqa: BLE001 - a bug in reading one command is its poison, never the process's end
            item.dead, item.bug = Reason.BUG, bug

    async def handle(self, items: Sequence[Item], epochs: dict[int, int]) -> Result:
        """Settle the items in order, in one transaction; afterwards they may be acknowledged.

        Raises `Fenced`, `ReceiptTaken`, `BlockGone`, `DatabaseUnavailable`, `BrokerUnavailable` or whatever a single
        item's data makes the database say; then nothing was settled.
        """
        at = datetime.now(UTC)
        result = Result()
        partitions = {item.partition for item in items}
        books = {partition: Book(partition, self.memory) for partition in partitions}
        async with connected(self._pool) as connection:
            await self._sealer.ready(connection)
            look = await self._look(connection, items, books)
            settled: list[Settled] = []
            started = time.perf_counter()
            for item in items:
                settled += await self._settle(connection, item, books[item.partition], look, at, result)
            decided = time.perf_counter()
            if settled:
                await write(connection, self._sealer, epochs, settled)
            await _clear_attempts(connection, items)
        erased = erased_by(settled)
        self._sealer.forget(erased)
        for book in books.values():
            if book.partition in erased.values():
                self.forget(book.partition)
            else:
                book.remember()
        result.answers.extend((one.envelope, one.outcome) for one in settled)
        self._measure(settled, decided - started, time.perf_counter() - decided)
        return result

    async def _look(self, connection: Connection, items: Sequence[Item], books: dict[int, Book]) -> Found:
        """Have at hand what the commands will look at. Trouble with one stream's events is left to its own command."""
        command_ids = [item.envelope.command_id for item in items if item.envelope is not None]
        try:
            streams, claims, counts = await self._wanted(connection, items, books)
        except KeyNotKnown:
            raise
        except CANNOT_BE_READ as why:
            streams, claims, counts = set(), set(), set()
            log.warning("batch.load_ahead_failed", error_type=type(why).__name__)
        found = await find(
            connection, self._sealer, books, command_ids=command_ids, streams=streams, claims=claims, counts=counts
        )
        try:
            await enter_streams(connection, self._sealer, books, found.wanted, found.events)
        except KeyNotKnown:
            raise
        except CANNOT_BE_READ as why:
            # Decided one by one, each command meets its own trouble, and only its own.
            log.warning("batch.load_ahead_failed", error_type=type(why).__name__)
        return found

    async def _wanted(
        self, connection: Connection, items: Sequence[Item], books: dict[int, Book]
    ) -> tuple[set[tuple[int, str]], set[tuple[int, str, Claim]], set[tuple[int, str, str]]]:
        decidable = [(item.partition, item.envelope, item.command) for item in items if item.envelope and item.command]
        units = {(partition, f"unit-{envelope.unit_id}") for partition, envelope, _ in decidable}
        await load(connection, self._sealer, books, streams=units)
        streams: set[tuple[int, str]] = set()
        claims: set[tuple[int, str, Claim]] = set()
        counts: set[tuple[int, str, str]] = set()
        at = datetime.now(UTC)
        for partition, envelope, command in decidable:
            wanted, consulted, counted = prefetch(command, Draft(books[partition], envelope, at))
            streams.update((partition, stream) for stream in wanted)
            claims.update((partition, envelope.unit_id, claim) for claim in consulted)
            counts.update((partition, envelope.unit_id, kind) for kind in counted)
        return streams, claims, counts

    async def _settle(
        self, connection: Connection, item: Item, book: Book, look: Found, at: datetime, result: Result
    ) -> list[Settled]:
        envelope, command = item.envelope, item.command
        if envelope is None or item.unanswerable or item.dead is Reason.WRONG_PARTITION:
            await self._aside.bury(item, item.dead or Reason.UNDECODABLE, at)
            return []
        receipt = look.receipts.get(envelope.command_id)
        if receipt is not None and not (receipt.status == "failed" and envelope.replay):
            result.answers.append((envelope, _again(receipt, envelope)))
            return []
        if item.dead is not None or command is None:
            stream = _stream_of(book, envelope, command, at) if command else None
            reason = item.dead or Reason.UNDECODABLE
            poison = await self._aside.poison(item, envelope, reason, look, at, stream)
            return [self._remembered(poison, look)]
        try:
            decision = await self._decide(connection, envelope, command, book, at)
        except (BrokerUnavailable, KeyNotKnown):
            raise
        except Exception as bug:  # noqa: BLE001 - a bug in a rule is one command's poison, never the partition's end
            item.bug = bug
            stream = _stream_of(book, envelope, command, at)
            poison = await self._aside.poison(item, envelope, Reason.BUG, look, at, stream)
            return [self._remembered(poison, look)]
        held = self._held_by(decision, look, book.partition, envelope)
        if held is not None:
            return [self._remembered(await self._aside.park(item, envelope, held, look, at), look)]
        settled = [_settled(envelope, decision, book.partition, at)]
        if decision.follow_up is not None:
            settled.append(_settled(*decision.follow_up, book.partition, at))
        return [self._remembered(one, look) for one in settled]

    async def _decide(
        self, connection: Connection, envelope: CommandEnvelope, command: Command, book: Book, at: datetime
    ) -> Decision:
        self._rehearse(command)
        for _ in range(MOST_LOADS):
            try:
                return decide(book, envelope, command, at=at)
            except NotLoaded as missing:
                place = book.partition
                await load(
                    connection,
                    self._sealer,
                    {place: book},
                    streams=[(place, missing.stream)] if missing.stream else [],
                    claims=[(place, envelope.unit_id, missing.claim)] if missing.claim else [],
                    counts=[(place, envelope.unit_id, missing.count)] if missing.count else [],
                )
        raise RecursionError(f"{MOST_LOADS} loads for one command")

    def _held_by(self, decision: Decision, look: Found, partition: int, envelope: CommandEnvelope) -> Block | None:
        """The block this command has to wait behind, if one of the streams it concerns is held."""
        if not look.blocks or envelope.replay or envelope.type == RequestErasure.type_name():
            return None  # an erasure does not wait for what is parked: that is given up with it
        concerned = {decision.stream} if decision.stream else set()
        if decision.draft is not None:
            concerned |= decision.draft.streams()
        for stream in sorted(concerned):
            if (block := look.blocks.get((partition, stream))) is not None:
                return block
        return None

    def _remembered(self, settled: Settled, look: Found) -> Settled:
        """The same id further on in this batch is answered like one seen before."""
        envelope, outcome = settled.envelope, settled.outcome
        look.receipts[envelope.command_id] = Receipt(
            command_id=envelope.command_id,
            unit_id=envelope.unit_id,
            partition=outcome.partition,
            type=envelope.type,
            status=outcome.status.value,
            code=outcome.code,
            detail=outcome.detail,
            about=dict(outcome.about) if outcome.about else None,
            result=outcome.result,
            position=None,
            request_hash=envelope.request_hash,
            dead_letter_id=outcome.dead_letter_id,
        )
        return settled

    def _measure(self, settled: Sequence[Settled], deciding: float, writing: float) -> None:
        for status, count in Counter(one.outcome.status for one in settled).items():
            self._metrics.commands_settled.labels(outcome=status.value).inc(count)
        if settled:
            self._metrics.append_batch_size.observe(len(settled))
            self._metrics.append_duration_seconds.observe(writing)
            self._metrics.decide_duration_seconds.observe(deciding)


async def _clear_attempts(connection: Connection, items: Sequence[Item]) -> None:
    survived = [item.envelope.command_id for item in items if item.attempted and item.envelope]
    if survived:
        await connection.execute("DELETE FROM command_attempts WHERE command_id = ANY(%s)", (survived,))


def _stream_of(book: Book, envelope: CommandEnvelope, command: Command, at: datetime) -> str | None:
    try:
        return aggregate_for(command).stream(command, Draft(book, envelope, at))
    except Exception:  # noqa: BLE001 - the rule that names the stream may be the bug itself
        return None


def _settled(envelope: CommandEnvelope, decision: Decision, partition: int, at: datetime) -> Settled:
    draft = decision.draft
    if draft is not None:
        draft.enter()
    outcome = Outcome(
        command_id=envelope.command_id,
        type=envelope.type,
        unit_id=envelope.unit_id,
        status=decision.status,
        code=decision.code,
        detail=decision.detail,
        about=decision.about,
        result=decision.result,
        partition=partition,
    )
    return Settled(
        envelope,
        outcome,
        events=draft.events if draft else (),
        holds=draft.holds if draft else None,
        added=draft.added if draft else None,
        timers=decision.timers,
        timers_over=decision.timers_over,
        letters=[notice_letter(notice, cause=envelope, partition=partition, at=at) for notice in decision.notices],
    )


def _again(receipt: Receipt, envelope: CommandEnvelope) -> Outcome:
    """The first answer again; or no, when the id was used for something else."""
    if receipt.request_hash != envelope.request_hash or receipt.unit_id != envelope.unit_id:
        return Outcome(
            command_id=envelope.command_id,
            type=envelope.type,
            unit_id=envelope.unit_id,
            status=Status.REFUSED,
            code=CommandIdReused.code(),
            detail=CommandIdReused.message(),
            partition=receipt.partition,
        )
    return Outcome(
        command_id=receipt.command_id,
        type=receipt.type,
        unit_id=receipt.unit_id,
        status=Status(receipt.status),
        code=receipt.code,
        detail=receipt.detail,
        about=receipt.about,
        result=receipt.result,
        partition=receipt.partition,
        position=receipt.position,
        dead_letter_id=receipt.dead_letter_id,
        repeated=True,
    )
