"""The MLLP server: one connection after another's bytes in, one acknowledgement for each message out, in order.

A message is acknowledged when `unit_agent.hl7v2.inbox` has it on disk. What cannot be taken is answered AE (another
time, or corrected) or AR (never as it is) with the reason; neither answer nor log quotes what a message holds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog

from contracts.ids import uuid7
from infra.telemetry import logs
from unit_agent.hl7v2 import inbox
from unit_agent.hl7v2 import message as hl7v2
from unit_agent.hl7v2.message import UNREADABLE, Header, Unacceptable
from unit_agent.hl7v2.mllp import Block, Deframer, framed
from unit_agent.hl7v2.options import Listen
from unit_agent.link_state import Shared

READ_BYTES: Final = 64 * 1024
MESSAGE_SECONDS: Final = 60.0
"""Within which a message that has begun must go on; a sender that stops in the middle is cut."""
WRITE_SECONDS: Final = 30.0
FORGET_EVERY: Final = 3600.0

log = structlog.get_logger()


@dataclass
class Figures:
    """What one listener has done since it began."""

    taken: int = 0
    repeated: int = 0
    refused: int = 0
    connections: int = 0
    """Open now."""


class Listener:
    """Takes messages for one unit."""

    def __init__(self, options: Listen, shared: Shared) -> None:
        self._options = options
        self._shared = shared
        self.figures: Final = Figures()
        self.port = 0
        """Where it listens, once it does."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the block runs. Raises OSError when the port cannot be had."""
        await self._shared.store.run(inbox.prepare, self._shared.store)
        tasks: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:

            def begin(work: Coroutine[None, None, None]) -> None:
                task = group.create_task(work)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            server = await asyncio.start_server(
                lambda reader, writer: begin(self._connected(reader, writer)),
                self._options.host,
                self._options.port,
                ssl=_tls(self._options),
            )
            self.port = server.sockets[0].getsockname()[1]
            log.info("hl7_listening", unit_id=self._shared.unit_id, port=self.port)
            begin(self._upkeep())
            try:
                yield
            finally:
                server.close()
                for task in list(tasks):
                    task.cancel()

    async def _upkeep(self) -> None:
        while True:
            with suppress(sqlite3.Error):  # a full disk: the store's own work tells of it
                await self._shared.store.run(inbox.forget, self._shared.store, self._options, self._shared.state.now())
            await asyncio.sleep(FORGET_EVERY)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self.figures.connections >= self._options.connections or not self._options.may_connect(str(peer[0])):
            log.warning("hl7_turned_away", unit_id=self._shared.unit_id, count=self.figures.connections)
            writer.close()
            return
        self.figures.connections += 1
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError) as ended:
            log.info("hl7_connection_ended", unit_id=self._shared.unit_id, error_type=type(ended).__name__)
        finally:
            self.figures.connections -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deframer = Deframer(self._options.largest_bytes)
        while True:
            async with asyncio.timeout(MESSAGE_SECONDS if deframer.is_inside else self._options.idle_seconds):
                data = await reader.read(READ_BYTES)
            if not data:
                return
            for block in deframer.feed(data):
                writer.write(framed(await self.answer(block)))
            async with asyncio.timeout(WRITE_SECONDS):
                await writer.drain()

    async def answer(self, block: Block) -> bytes:
        """Take a message; its acknowledgement."""
        header = UNREADABLE
        try:
            header = hl7v2.header_of(block.content)
            if block.oversized:
                raise Unacceptable("AR", hl7v2.INTERNAL, f"more than {self._options.largest_bytes} bytes")
            taken = await self._take(block.content)
        except Unacceptable as why:
            self.figures.refused += 1
            log.warning("hl7_refused", unit_id=self._shared.unit_id, code=why.code, reason=why.condition)
            return self._say(header, why.code, condition=why.condition, text=why.text)
        except Exception as defect:  # noqa: BLE001 - a defect over one message must not end the agent, again and again
            self.figures.refused += 1
            log.critical("hl7_defect", unit_id=self._shared.unit_id, **logs.describe(defect))
            return self._say(
                header, "AR", condition=hl7v2.INTERNAL, text="this agent cannot read it; it has logged why"
            )
        self.figures.repeated += taken.repeated
        self.figures.taken += not taken.repeated
        if taken.commands:
            self._shared.outbox_changed.set()
        return self._say(header, "AA")

    async def _take(self, content: bytes) -> inbox.Taken:
        shared = self._shared
        if not shared.room.for_new:
            raise Unacceptable("AE", hl7v2.INTERNAL, "no room on this disk now; send it again later")
        try:
            return await shared.store.run(
                inbox.take,
                shared.store,
                shared.unit_id,
                content,
                self._options,
                now=shared.state.now(),
            )
        except sqlite3.Error as trouble:
            shared.room.noticed(trouble)
            log.error("hl7_not_kept", unit_id=shared.unit_id, error_type=type(trouble).__name__)
            raise Unacceptable("AE", hl7v2.INTERNAL, "it could not be written here; send it again later") from trouble

    def _say(self, header: Header, code: str, *, condition: str = "0", text: str = "") -> bytes:
        now = self._shared.state.now()
        control_id = uuid7(now, os.urandom(10)).hex[:20].upper()
        return hl7v2.acknowledgement(header, code, now=now, control_id=control_id, condition=condition, text=text)


def _tls(options: Listen) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    if options.authorities is not None:
        context.load_verify_locations(options.authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
