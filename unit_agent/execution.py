"""Executes unit commands from the journal: each once, in order within its lane, none past its deadline.

What is certain is written at once; what is not is asked of the site, and when the site cannot tell it is reported as
`outcome_unknown`, never repeated on a guess.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypeVar

import structlog

from contracts.envelope import Json
from contracts.unit_command import OUTCOME_UNKNOWN, OnReconnect
from unit_agent import mailbox
from unit_agent.connectors import Connector, Declined, Done, NotDone, Unsure
from unit_agent.mailbox import Order
from unit_agent.room import Room
from unit_agent.store import Store

LANES: Final = 8
"""Commands executed at the same time; those of one person, and those about nobody, one after the other."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
LOOK_AGAIN: Final = 5.0
"""Seconds after which the journal is looked at although nobody said that there is something new."""

T = TypeVar("T")

DISK_PAUSE: Final = 5.0

log = structlog.get_logger()


class Execution:
    """The executing side of one agent's journal."""

    def __init__(
        self,
        store: Store,
        connector: Connector,
        *,
        now: Callable[[], datetime],
        reported: Callable[[], None],
        room: Room | None = None,
    ) -> None:
        """`reported` is called when there is a report in the outbox. While the disk has no `room`, nothing is begun."""
        self._room = room or Room()
        self._store = store
        self._connector = connector
        self._now = now
        self._reported = reported
        self._look = asyncio.Event()
        self._busy: set[str] = set()

    def wake(self) -> None:
        """There may be something to execute."""
        self._look.set()

    async def serve(self) -> None:
        """Execute until cancelled. A disk that cannot be written stops everything; then it begins as after a crash."""
        while True:
            try:
                await self._serve()
            except* sqlite3.Error as trouble:
                log.critical("journal_unusable", error_type=type(trouble.exceptions[0]).__name__)
            self._busy.clear()
            await asyncio.sleep(DISK_PAUSE)

    async def _serve(self) -> None:
        """Clear up what an earlier life of this agent left in doubt, then execute what comes."""
        async with asyncio.TaskGroup() as group:
            for order in await self._store.run(mailbox.interrupted, self._store.db):
                self._start(group, order, resumed=True)
            while True:
                self._look.clear()
                while len(self._busy) < LANES and self._room.for_new:
                    following = await self._store.run(mailbox.next_order, self._store.db, frozenset(self._busy))
                    if following is None:
                        break
                    self._start(group, following, resumed=False)
                try:
                    async with asyncio.timeout(LOOK_AGAIN):
                        await self._look.wait()
                except TimeoutError:
                    continue

    def _start(self, group: asyncio.TaskGroup, order: Order, *, resumed: bool) -> None:
        lane = order.lane
        # Two interrupted ones share a lane only if the journal was written by hand; they then run side by side.
        self._busy.add(lane)

        def over(task: asyncio.Task[None]) -> None:
            self._busy.discard(lane)
            self.wake()

        group.create_task(self._resume(order) if resumed else self._execute(order)).add_done_callback(over)

    async def _execute(self, order: Order) -> None:
        code = await self._why_not(order)
        if code is not None:
            await self._reject(order, code)
        elif not (order.in_doubt and await self._was_done(order)):
            await self._attempt(order)

    async def _was_done(self, order: Order) -> bool:
        """Nobody could say whether it was done, and it may be done again: unless the site now knows that it was."""
        answer = await self._connector.ask(order)
        if isinstance(answer, Done):
            await self._settle(order, answer)
        return isinstance(answer, Done)

    async def _why_not(self, order: Order) -> str | None:
        """Why the command is not to be executed at all; None when it is."""
        if self._now() >= order.deadline:
            return "expired"
        if order.erased:
            return "erased"
        if not order.late or order.on_reconnect is OnReconnect.RUN:
            return None
        if order.on_reconnect is OnReconnect.DROP:
            return "dropped"
        wanted = await self._until_deadline(order, lambda: self._connector.still_wanted(order))
        if isinstance(wanted, Unsure):
            return "expired"
        return None if wanted else "no_longer_wanted"

    async def _attempt(self, order: Order) -> None:
        """Try until the site has said yes or no, the deadline passes or the centre calls it off."""
        pause = FIRST_PAUSE
        tried = False
        while await self._store.run(mailbox.begin, self._store.db, order):
            tried = True
            answer = await self._connector.run(order)
            if not isinstance(answer, Unsure):
                await self._settle(order, answer)
                return
            log.warning("unit_command_unsure", unit_id=order.unit_id, unit_command_id=str(order.id), code=answer.why)
            remaining = (order.deadline - self._now()).total_seconds()
            if remaining <= 0:
                await self._clear_up(order, when_not_done="expired")
                return
            await asyncio.sleep(min(remaining, _jittered(pause, answer)))
            pause = min(pause * 2, LONGEST_PAUSE)
        if tried:
            await self._clear_up(order, when_not_done=None)

    async def _resume(self, order: Order) -> None:
        """The agent died while this was being executed: ask, do not repeat."""
        answer = await self._until_deadline(order, lambda: self._connector.ask(order))
        if isinstance(answer, NotDone):
            await self._store.run(mailbox.postpone, self._store.db, order, self._now())
            return
        await self._settle(order, answer)

    async def _clear_up(self, order: Order, *, when_not_done: str | None) -> None:
        """No further attempt: find out what the last ones did. `when_not_done` None: the centre has called it off."""
        answer = await self._connector.ask(order)
        if not isinstance(answer, NotDone):
            await self._settle(order, answer)
        elif when_not_done is None:
            await self._store.run(mailbox.postpone, self._store.db, order, self._now())
        else:
            await self._reject(order, when_not_done)

    async def _settle(self, order: Order, answer: Done | Declined | NotDone | Unsure | None) -> None:
        if isinstance(answer, Done):
            await self._end(order, applied=True, code=None, result=answer.result)
        elif isinstance(answer, Declined):
            await self._end(order, applied=False, code=answer.code, result=answer.result)
        else:
            await self._reject(order, OUTCOME_UNKNOWN)

    async def _until_deadline(self, order: Order, question: Callable[[], Awaitable[T | Unsure]]) -> T | Unsure:
        """Ask until there is an answer; Unsure when there is none by the deadline."""
        pause = FIRST_PAUSE
        while isinstance(answer := await question(), Unsure):
            remaining = (order.deadline - self._now()).total_seconds()
            if remaining <= 0:
                return answer
            await asyncio.sleep(min(remaining, _jittered(pause, answer)))
            pause = min(pause * 2, LONGEST_PAUSE)
        return answer

    async def _reject(self, order: Order, code: str) -> None:
        await self._end(order, applied=False, code=code, result=None)

    async def _end(self, order: Order, *, applied: bool, code: str | None, result: Json | None) -> None:
        def write() -> bool:
            with self._store.transaction() as db:
                return mailbox.end(db, order, applied=applied, code=code, result=result, now=self._now())

        if not await self._room.insist(lambda: self._store.run(write)):
            return  # tried again meanwhile: its turn comes
        log.info(
            "unit_command_applied" if applied else "unit_command_rejected",
            unit_id=order.unit_id,
            unit_command_id=str(order.id),
            code=code,
        )
        self._reported()


def _jittered(pause: float, unsure: Unsure) -> float:
    """How long to leave the site alone: no shorter than it wants."""
    return unsure.after + random.uniform(pause / 2, pause)  # noqa: S311 - jitter, not a secret
