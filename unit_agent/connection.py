"""One connection in use: moves things between socket, link and store until it ends.

What may be said when is `unit_agent.link`'s. Facts that arrive while the disk is busy are written together; the ack
follows the commit. Commands go up in the order they were made; what became of them is asked for.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from contracts.envelope import Outcome
from contracts.frames import (
    ASK_AT_MOST,
    Accepted,
    Bye,
    Call,
    Facts,
    Outcomes,
    Ping,
    Refused,
    Renewed,
    Retry,
    Snapshot,
    Welcome,
)
from unit_agent import outbox
from unit_agent.answers import CannotAnswer, answer
from unit_agent.credential import Credential
from unit_agent.link import SUBMITS_IN_FLIGHT, Link, LinkBroken
from unit_agent.link_state import Shared
from unit_agent.reconnect import Ended
from unit_agent.renewal import Renewal

WELCOME_TIMEOUT: Final = 15.0
CALLS_AT_ONCE: Final = 16
PARTS_AT_ONCE: Final = 4
"""Parts of a snapshot that may wait for the disk."""
LOOK_AGAIN: Final = 5.0
"""Seconds after which the outbox is looked at although nobody said that there is something new."""
ASK_EVERY: Final = 1.0

log = structlog.get_logger()


class Connection:
    """From hello to the end of one connection."""

    def __init__(self, socket: ClientConnection, shared: Shared, credential: Credential) -> None:
        self._socket = socket
        self._shared = shared
        self._store = shared.store
        self._state = shared.state
        self._link = Link(
            shared.unit_id,
            shared.store.position,
            agent_version=shared.version,
            instance=shared.store.instance,
            snapshot_beyond=shared.snapshot_beyond,
        )
        self._renewal = Renewal(self._link, credential, say=self._say, now=shared.state.now, unit_id=shared.unit_id)
        self._group = asyncio.TaskGroup()
        self._welcome_here = asyncio.Event()
        self._facts_here = asyncio.Event()
        self._accepted_here = asyncio.Event()
        self._facts: list[Facts | Snapshot] = []
        self._kept = asyncio.Event()
        """What had arrived is on disk."""
        self._accepted: list[UUID] = []
        self._resend = False
        """The centre could not take a command: all that have no answer go up again, from the first."""
        self._held_until = 0.0
        self._calls = 0
        self._bye: Bye | None = None
        self._broken: str | None = None
        """Why we leave; None while the other end does."""
        self._since = 0.0
        """Loop time of the welcome; 0 before."""

    async def run(self) -> Ended:
        """Until the connection is over, for whatever reason; trouble with the store ends it too."""
        try:
            async with self._group as group:
                await self._say(self._link.hello())
                work = (self._expect_welcome, self._keep, self._note, self._submit, self._ask, self._renew)
                workers = [group.create_task(one()) for one in work]
                try:
                    await self._listen()
                finally:
                    for worker in workers:
                        worker.cancel()
        except* sqlite3.Error as trouble:
            # Nothing was acknowledged, so nothing is lost: a full or broken disk keeps the link down until it is well.
            log.critical(
                "store_unusable", unit_id=self._shared.unit_id, error_type=type(trouble.exceptions[0]).__name__
            )
            self._broken = "store_unusable"
        return self._ended()

    def _ended(self) -> Ended:
        code = self._bye.code if self._bye is not None else self._socket.close_code
        return Ended(
            self._broken or (f"closed_{code}" if code is not None else "connection_lost"),
            lasted=asyncio.get_running_loop().time() - self._since if self._since else 0.0,
            close_code=code,
            retry_after=self._bye.retry_after_seconds if self._bye is not None else None,
        )

    async def _say(self, frame: bytes) -> None:
        # A connection that is gone is noticed by the one who listens; what was not said is said again in the next.
        with suppress(ConnectionClosed):
            await self._socket.send(frame, text=True)

    async def _expect_welcome(self) -> None:
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT):
                await self._welcome_here.wait()
        except TimeoutError:
            self._broken = "no_welcome"
            await self._socket.close()

    async def _listen(self) -> None:
        try:
            while True:
                data = await self._socket.recv()
                self._state.last_contact = datetime.now(UTC)
                await self._hear(data)
        except ConnectionClosed:
            return
        except LinkBroken as broken:
            log.warning("link_broken", unit_id=self._shared.unit_id, reason=str(broken))
            self._broken = str(broken)

    async def _hear(self, data: str | bytes) -> None:
        match self._link.hear(data, datetime.now(UTC)):
            case Welcome() as welcome:
                await self._welcomed(welcome)
            case Facts() as facts:
                self._facts.append(facts)
                self._facts_here.set()
            case Snapshot() as part:
                self._facts.append(part)
                self._facts_here.set()
                if len(self._facts) >= PARTS_AT_ONCE:  # nothing else limits how many are sent
                    self._kept.clear()
                    await self._kept.wait()
            case Accepted(command_id=command_id):
                self._accepted.append(command_id)
                self._accepted_here.set()
                if self._link.submitted <= SUBMITS_IN_FLIGHT // 2:
                    self._shared.outbox_changed.set()
            case Refused() as refused:
                await self._refused(refused)
            case Retry(after_seconds=seconds):
                self._resend = True
                self._held_until = asyncio.get_running_loop().time() + seconds
                self._shared.outbox_changed.set()
            case Outcomes(outcomes=outcomes):
                await self._store.run(self._settle, outcomes)
            case Call() as call if self._calls < CALLS_AT_ONCE:
                self._group.create_task(self._answer(call))
            case Call() as call:
                await self._say(self._link.answer(call.call_id, ok=False, code="busy"))
            case Renewed() as renewed:
                self._renewal.heard(renewed)
            case Ping():
                await self._say(self._link.pong())
            case Bye() as bye:
                self._bye = bye
            case _:
                pass  # a pong, facts that were here already, a position that is ours

    async def _welcomed(self, welcome: Welcome) -> None:
        self._welcome_here.set()
        self._since = asyncio.get_running_loop().time()
        state = self._state
        state.epoch, state.head, state.clock_skew = welcome.epoch, welcome.head, self._link.clock_skew
        state.heard_time(welcome.server_time)
        with suppress(
            sqlite3.Error
        ):  # a disk without room keeps facts out, and says so; it does not keep the link down
            await self._store.run(self._store.remember_skew, state.clock_skew)
        state.sessions += 1
        state.why = state.remedy = state.retry_at = None
        state.connected_at = datetime.now(UTC)
        self._reached(self._link.received)
        log.info("link_up", unit_id=self._shared.unit_id, epoch=welcome.epoch, position=self._link.received)
        if await self._store.run(self._store.caught_up, welcome.head):
            self._shared.runnable()
        self._shared.outbox_changed.set()
        self._shared.unanswered.set()

    def _reached(self, position: int) -> None:
        self._state.state = "live" if position >= self._link.head else "catching_up"

    async def _keep(self) -> None:
        """Write what has arrived, then say so."""
        while True:
            await self._facts_here.wait()
            await self._shared.room.enough()  # meanwhile nothing is acknowledged, so the bridge soon stops sending
            self._facts_here.clear()
            frames, self._facts = self._facts, []
            try:
                taken = await self._store.run(self._store.take, frames, head=self._link.head, now=self._state.now())
            except sqlite3.Error as trouble:
                if not self._shared.room.noticed(trouble):
                    raise
                self._facts[:0] = frames
                self._facts_here.set()
                continue
            self._kept.set()
            await self._say(self._link.stored(taken.position))
            self._state.last_ack = datetime.now(UTC)
            self._reached(taken.position)
            if taken.runnable:
                self._shared.runnable()
            if taken.answered:
                self._shared.unanswered.set()
            if taken.reports:
                self._shared.outbox_changed.set()
            if self._link.duplicates:
                repeated, self._link.duplicates = self._link.duplicates, 0
                await self._store.run(self._store.saw_duplicates, repeated)

    async def _note(self) -> None:
        """Write which commands the centre has."""
        while True:
            await self._accepted_here.wait()
            self._accepted_here.clear()
            accepted, self._accepted = self._accepted, []
            await self._store.run(self._write_accepted, accepted)
            self._shared.unanswered.set()

    def _write_accepted(self, command_ids: list[UUID]) -> None:
        with self._store.transaction() as db:
            outbox.accepted(db, command_ids, self._state.now())

    async def _refused(self, refused: Refused) -> None:
        command_id = refused.command_id
        log.error("command_refused", unit_id=self._shared.unit_id, command_id=str(command_id), code=refused.code)
        await self._store.run(self._write_refused, refused)
        self._shared.outbox_changed.set()

    def _write_refused(self, refused: Refused) -> None:
        with self._store.transaction() as db:
            outbox.refused(db, refused.command_id, refused.code, refused.detail)

    def _settle(self, outcomes: list[Outcome]) -> None:
        with self._store.transaction() as db:
            outbox.settle(db, outcomes)

    async def _submit(self) -> None:
        """Send up what was made here, in its order, no more at once than the link has room for."""
        loop = asyncio.get_running_loop()
        sent = 0
        while True:
            self._shared.outbox_changed.clear()
            if self._resend:
                await asyncio.sleep(self._held_until - loop.time())
                self._resend, sent = False, 0
            commands: list[outbox.Waiting] = []
            if room := self._link.room:
                put_off = self._link.put_off
                commands = await self._store.run(
                    outbox.waiting, self._store.db, after=sent, limit=room, put_off=put_off
                )
            for one in commands:
                if self._resend:
                    break
                sent = one.seq
                await self._say(self._link.submit(one.command_id, one.type, one.payload, one.issued_at, one.subject))
            if not commands:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await self._shared.outbox_changed.wait()

    async def _ask(self) -> None:
        """Ask what became of commands the centre has, as long as there are any."""
        hint = self._shared.unanswered
        while True:
            await hint.wait()
            hint.clear()
            while await self._store.run(outbox.unanswered, self._store.db):
                if self._link.is_open:
                    due = await self._store.run(self._due)
                    if due:
                        await self._say(self._link.ask(due))
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASK_EVERY):
                        await hint.wait()
                        hint.clear()

    def _due(self) -> list[UUID]:
        with self._store.transaction() as db:
            return outbox.to_ask(db, self._state.now(), ASK_AT_MOST)

    async def _renew(self) -> None:
        await self._welcome_here.wait()
        await self._renewal.run()

    async def _answer(self, call: Call) -> None:
        """Answer a live call before its deadline, or not at all."""
        self._calls += 1
        try:
            async with asyncio.timeout((call.deadline - self._state.now()).total_seconds()):
                body = await self._store.run(answer, self._store, call.name, call.body, self._state.now())
            await self._say(self._link.answer(call.call_id, ok=True, body=body))
        except CannotAnswer as why:
            await self._say(self._link.answer(call.call_id, ok=False, code=why.code))
        except TimeoutError:
            log.warning("call_too_late", unit_id=self._shared.unit_id)
        finally:
            self._calls -= 1
