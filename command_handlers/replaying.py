"""Carrying out replays: dead letters sent again one by one, in the order of their streams, each awaited and settled.

A letter about a unit command is sent as the command that tries it again, under an id of this replay: what was refused
today (a full mailbox, a suspended unit) can be asked again tomorrow, so such a letter stays open until it is taken.

Every handler process tries; one at a time does it. What is replayed was frozen when it was asked for
(`infra.dead_letters.replays`); only live commands that were parked meanwhile come along, so that a stream can go on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import orjson
import psycopg
import structlog

from contracts.envelope import CommandEnvelope, Replay
from contracts.ids import keyed_command_id, partition_of
from contracts.routing import COMMANDS, command_key
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.database import Connection, DatabaseUnavailable, Pool, connected
from infra.dead_letters import ledger
from infra.dead_letters.replays import add_items
from infra.dead_letters.store import Letter, get_letter, message_of, release_blocks
from infra.sealing import Sealer
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 60.0
"""A replayed command without a receipt after this long is sent again (its id makes that harmless)."""
RAW_SECONDS = 5.0
"""A message nobody could read counts as taken when it has not come back after this long."""
_REPLAYING = 0x0DEAD


@dataclass(frozen=True, slots=True)
class Step:
    """The next letter of a running replay."""

    run_id: UUID
    letter_id: UUID
    status: str
    sent_at: datetime | None
    confirmed: bool
    """Unit commands may run again although they may have been done."""


class Replays:
    """Carries out what operators asked for."""

    def __init__(self, *, pool: Pool, sealer: Sealer, publisher: Publisher, metrics: Metrics, partitions: int) -> None:
        self._pool = pool
        self._sealer = sealer
        self._publisher = publisher
        self._metrics = metrics
        self._partitions = partitions

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._replay_while_mine()
            except (DatabaseUnavailable, BrokerUnavailable) as why:
                log.warning("desk.replay_waiting", reason=type(why).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _replay_while_mine(self) -> None:
        """Carry out what is asked, as long as this desk holds the lock that makes it the only one."""
        async with connected(self._pool) as connection:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_REPLAYING,))
            row = await cursor.fetchone()
            if row is None or not row[0]:
                return
            try:
                while (step := await self._next_step(connection)) is not None:
                    await self._carry_out(connection, step)
                await release_blocks(connection)
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_REPLAYING,))

    async def _next_step(self, connection: Connection) -> Step | None:
        cursor = await connection.execute(
            "SELECT i.run_id, i.letter_id, i.status, i.sent_at, r.confirmed "
            "FROM replay_items i JOIN replays r USING (run_id) "
            "WHERE r.status = 'running' AND i.settled_at IS NULL ORDER BY r.requested_at, i.run_id, i.ord LIMIT 1"
        )
        row = await cursor.fetchone()
        if row is not None:
            return Step(*row)
        await self._finish(connection)
        return None

    async def _finish(self, connection: Connection) -> None:
        cursor = await connection.execute(
            "UPDATE replays r SET status = 'done', finished_at = clock_timestamp() WHERE status = 'running' AND NOT "
            "EXISTS (SELECT FROM replay_items i WHERE i.run_id = r.run_id AND i.settled_at IS NULL) RETURNING run_id"
        )
        for (run_id,) in await cursor.fetchall():
            async with connection.transaction():
                await ledger.record(connection, actor="carespine", act="replay done", reason="-", run_id=run_id)

    async def _carry_out(self, connection: Connection, step: Step) -> None:
        letter = await get_letter(connection, step.letter_id)
        if letter.is_of_a_unit:
            letter = await self._named_anew(connection, step, letter)
        try:
            verdict = await self._verdict(connection, letter, since=step.sent_at)
            if verdict == "pending":
                verdict = await self._send_and_wait(connection, step, letter)
            elif step.status == "waiting":
                verdict = "already-applied"
        except (DatabaseUnavailable, BrokerUnavailable, psycopg.OperationalError):
            raise
        except Exception as bug:  # noqa: BLE001 - whatever is wrong with one letter, the desk goes on with the others
            log.warning("desk.letter_not_sent", error_type=type(bug).__name__)
            verdict = "failed"
        await self._settle(connection, step, letter, verdict)

    async def _named_anew(self, connection: Connection, step: Step, letter: Letter) -> Letter:
        """Each replay gives its own command; the same replay, carried on after a crash, the same one."""
        again = keyed_command_id("desk", letter.unit_id or "", f"{letter.letter_id}:{step.run_id}")
        await connection.execute(
            "UPDATE dead_letters SET command_id = %s WHERE letter_id = %s", (again, letter.letter_id)
        )
        return replace(letter, command_id=again, envelope={**letter.envelope, "commandId": str(again)})

    async def _send_and_wait(self, connection: Connection, step: Step, letter: Letter) -> str:
        message = await message_of(connection, self._sealer, letter)
        if message is None:
            log.warning("desk.key_gone", reason="erased")
            return "failed"
        loop = asyncio.get_running_loop()
        while True:
            cursor = await connection.execute(
                "UPDATE replay_items SET status = 'sent', sent_at = clock_timestamp() "
                "WHERE run_id = %s AND letter_id = %s RETURNING sent_at",
                (step.run_id, letter.letter_id),
            )
            ((since,),) = await cursor.fetchall()
            await self._send(step, letter, message)
            sent = loop.time()
            while loop.time() - sent < ANSWER_SECONDS:
                verdict = await self._verdict(connection, letter, since=since)
                if verdict != "pending":
                    return verdict
                if letter.is_raw and loop.time() - sent > RAW_SECONDS:
                    return "applied"
                await asyncio.sleep(LOOK_SECONDS / 10)

    async def _send(self, step: Step, letter: Letter, message: bytes) -> None:
        replay = Replay(letter_id=letter.letter_id, run_id=step.run_id)
        if letter.is_raw:
            await self._publisher.publish("", letter.origin, _marked(message, replay), message_id=str(letter.letter_id))
            return
        envelope = CommandEnvelope.model_validate_json(message).model_copy(update={"replay": replay, "reply_to": None})
        if letter.is_of_a_unit and step.confirmed:
            envelope = envelope.model_copy(update={"payload": {**envelope.payload, "confirm": True}})
        key = command_key(envelope.unit_id, partition_of(envelope.unit_id, self._partitions), envelope.type)
        try:
            await self._publisher.publish(COMMANDS, key, envelope.to_json(), message_id=str(envelope.command_id))
        except Unroutable as why:
            raise BrokerUnavailable("unroutable") from why

    async def _verdict(self, connection: Connection, letter: Letter, *, since: datetime | None) -> str:
        """applied, refused, failed (again, after `since`) or pending: by the receipt, or by the letter coming back."""
        cursor = await connection.execute(
            "SELECT r.status, r.recorded_at, l.last_failed_at FROM dead_letters l "
            "LEFT JOIN command_receipts r USING (command_id) WHERE l.letter_id = %s",
            (letter.letter_id,),
        )
        ((status, recorded_at, last_failed_at),) = await cursor.fetchall()
        if status in ("accepted", "unchanged", "refused"):
            return "refused" if status == "refused" else "applied"
        if since is None:
            return "pending"
        came_back = letter.is_raw and last_failed_at > since
        return "failed" if came_back or (status == "failed" and recorded_at > since) else "pending"

    async def _settle(self, connection: Connection, step: Step, letter: Letter, verdict: str) -> None:
        self._metrics.replay_letters.labels(outcome=verdict).inc()
        async with connection.transaction():
            await self._mark(connection, step.run_id, letter.letter_id, verdict)
            if verdict == "failed" or (verdict == "refused" and letter.is_of_a_unit):
                await self._stop_block(connection, step, letter)
            else:
                await connection.execute(
                    "UPDATE dead_letters SET status = 'replayed', resolution = %s WHERE letter_id = %s",
                    (verdict, letter.letter_id),
                )
                await self._bring_followers(connection, step, letter)
            await ledger.record(
                connection, actor="carespine", act=verdict, reason="-", letter_id=letter.letter_id, run_id=step.run_id
            )
            await release_blocks(connection)
        log.info("desk.replayed", reason=verdict, stream=letter.stream)

    async def _mark(self, connection: Connection, run_id: UUID, letter_id: UUID, status: str) -> None:
        await connection.execute(
            "UPDATE replay_items SET status = %s, settled_at = clock_timestamp() WHERE run_id = %s AND letter_id = %s",
            (status, run_id, letter_id),
        )

    async def _stop_block(self, connection: Connection, step: Step, letter: Letter) -> None:
        """It failed again: it and what waits behind it go back to being open, in their places."""
        cursor = await connection.execute(
            "UPDATE replay_items i SET status = 'skipped', settled_at = clock_timestamp() FROM dead_letters l "
            "WHERE i.run_id = %s AND i.letter_id = l.letter_id AND i.settled_at IS NULL AND l.block_id = %s "
            "RETURNING i.letter_id",
            (step.run_id, letter.block_id),
        )
        back = [letter.letter_id, *(row[0] for row in await cursor.fetchall())]
        await connection.execute("UPDATE dead_letters SET status = 'open' WHERE letter_id = ANY(%s)", (back,))

    async def _bring_followers(self, connection: Connection, step: Step, letter: Letter) -> None:
        """Live commands that were parked while the replay ran come along, so that the stream can go on at its end."""
        if letter.block_id is None:
            return
        cursor = await connection.execute(
            "SELECT letter_id FROM dead_letters WHERE block_id = %s AND status = 'open' AND reason = 'parked' "
            "AND letter_id NOT IN (SELECT letter_id FROM replay_items WHERE run_id = %s) ORDER BY seq",
            (letter.block_id, step.run_id),
        )
        parked = [row[0] for row in await cursor.fetchall()]
        if parked:
            cursor = await connection.execute("SELECT max(ord) + 1 FROM replay_items WHERE run_id = %s", (step.run_id,))
            row = await cursor.fetchone()
            await add_items(connection, step.run_id, parked, first=row[0] if row else 0)


def _marked(message: bytes, replay: Replay) -> bytes:
    """The message as it was, with the mark that lets it past its own receipt; unchanged when it is no JSON object."""
    try:
        content = orjson.loads(message)
    except orjson.JSONDecodeError:
        return message
    return orjson.dumps({**content, "replay": replay.to_dict()}) if isinstance(content, dict) else message
