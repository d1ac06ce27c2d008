"""The MLLP client: one message at a time, each acknowledged before the next.

Facts go in the feed's order, again and again until the receiver has said AA, or AR (set aside). A message whose answer
was lost goes again under the same control id: the receiver knows it by that. Unit commands share the connection; what
is not certain of them is said to be unsure.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from contracts.envelope import Json
from unit_agent import local_views
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.hl7v2 import outgoing
from unit_agent.hl7v2.message import Unacceptable, acknowledged
from unit_agent.hl7v2.mllp import Deframer, framed
from unit_agent.hl7v2.options import Send
from unit_agent.hl7v2.writing import adt, control_id_of_order
from unit_agent.link_state import Shared
from unit_agent.mailbox import Order

CONNECT_SECONDS: Final = 10.0
LOOK_AGAIN: Final = 5.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
ACK_BYTES: Final = 64 * 1024
DISK_PAUSE: Final = 5.0
_MEANS: Final = {"CA": "AA", "CE": "AE", "CR": "AR"}
"""Accept acknowledgements of the enhanced mode, read as the answer itself: the receiver has it, or will not."""

log = structlog.get_logger()


class NotAnswered(Exception):
    """No answer came, or none to this message. `sent`: it may have arrived."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.why = why
        self.sent = sent


class Sender:
    """Sends for one unit, and executes the types of unit commands that are configured."""

    def __init__(self, options: Send, shared: Shared) -> None:
        self._options = options
        self._shared = shared
        self._store = shared.store
        self._one_at_a_time = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._look = asyncio.Event()
        self.trouble: str | None = None
        """Why the last message did not get through; None when it did."""

    async def prepare(self) -> None:
        """Begin to write messages for facts. To be done before the first fact is taken."""
        loop = asyncio.get_running_loop()

        def wake() -> None:  # called in the thread that writes to the store
            loop.call_soon_threadsafe(self._look.set)

        since = await self._store.run(outgoing.prepare, self._store, self._shared.state.now())
        self._store.learners.append(outgoing.learner(self._options, self._shared.unit_id, since=since, wake=wake))

    async def serve(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                try:
                    await self._send_all()
                except sqlite3.Error as trouble:
                    self._shared.room.noticed(trouble)
                    log.error("hl7_store_trouble", unit_id=self._shared.unit_id, error_type=type(trouble).__name__)
                    await asyncio.sleep(DISK_PAUSE)
        finally:
            self._hang_up()

    async def _send_all(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._look.clear()
            one = await self._store.run(outgoing.following, self._store.db)
            if one is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await self._look.wait()
                continue
            try:
                code, condition = await self.exchange(one.content, one.control_id)
            except NotAnswered as why:
                self._say(why.why)
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            if code == "AA":
                await self._store.run(outgoing.sent, self._store, one, self._shared.state.now())
                self._say(None)
                pause = FIRST_PAUSE
                continue
            for_good = code == "AR" or one.attempts + 1 >= self._options.attempts
            why_not = f"{code} {condition}".strip()
            await self._store.run(outgoing.not_taken, self._store, one, why_not, for_good=for_good)
            say = log.error if for_good else log.warning
            say("hl7_not_taken", unit_id=self._shared.unit_id, position=one.position, code=code, reason=condition)
            if not for_good:
                self._say(f"answered {code}")
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, LONGEST_PAUSE)

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.warning("hl7_away" if trouble else "hl7_sending", unit_id=self._shared.unit_id, reason=trouble)
        self.trouble = trouble

    async def exchange(self, content: str, control_id: str) -> tuple[str, str]:
        """Send a message and wait for its answer: (AA, AE or AR; error condition). Raises NotAnswered."""
        async with self._one_at_a_time:
            reader, writer = await self._connected()
            try:
                async with asyncio.timeout(self._options.timeout_seconds):
                    writer.write(framed(content.encode()))
                    await writer.drain()
                    return await self._answer(reader, control_id)
            except (OSError, TimeoutError, NotAnswered, Unacceptable) as trouble:
                self._hang_up()  # an answer that comes late must not be taken for the next one's
                why = trouble.why if isinstance(trouble, NotAnswered) else type(trouble).__name__
                raise NotAnswered(why, sent=True) from trouble
            except asyncio.CancelledError:
                self._hang_up()
                raise

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and not self._streams[0].at_eof():
            return self._streams
        self._hang_up()
        options = self._options
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection(options.host, options.port, ssl=_tls(options))
        except (OSError, TimeoutError) as trouble:
            raise NotAnswered(type(trouble).__name__, sent=False) from trouble
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader, control_id: str) -> tuple[str, str]:
        deframer = Deframer(ACK_BYTES)
        while data := await reader.read(ACK_BYTES):
            for block in deframer.feed(data):
                code, answers, condition = acknowledged(block.content)
                code = _MEANS.get(code, code)
                if answers != control_id or code not in ("AA", "AE", "AR"):
                    raise NotAnswered("an answer to something else", sent=True)
                return code, condition
        raise NotAnswered("hung up", sent=True)

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def report(self) -> Json:
        """What `/status` tells, but for the counts, which are on the disk."""
        return {"to": f"{self._options.host}:{self._options.port}", "trouble": self.trouble}

    # What a connector offers for unit commands.

    async def run(self, order: Order) -> Done | Declined | Unsure:
        """Send the order's patient as the configured event; the receiver's answer is the outcome."""
        known = await self._store.run(outgoing.written, self._store.db, order.id)
        if known is not None and known.code == "AA":
            return _outcome(known.code, known.condition)
        content = await self._store.run(self._content, order)
        if content is None:
            return Declined("patient_unknown")
        await self._store.run(outgoing.about_to_write, self._store, order.id)
        try:
            code, condition = await self.exchange(content, _control_id(order))
        except NotAnswered as why:
            return Unsure(why.why)
        await self._store.run(outgoing.answered, self._store, order.id, code, condition)
        if code == "AE":  # the receiver may take it another time; the deadline ends that
            return Unsure(f"hl7_ae_{condition}" if condition else "hl7_ae")
        return _outcome(code, condition)

    async def ask(self, order: Order) -> Done | NotDone | Declined | Unsure | None:
        """What is known of it here; a receiver cannot be asked, but may know a message again."""
        known = await self._store.run(outgoing.written, self._store.db, order.id)
        if known is None or known.code == "AE" or (known.code is None and self._options.resend_is_safe):
            return NotDone()
        return None if known.code is None else _outcome(known.code, known.condition)

    async def still_wanted(self, order: Order) -> bool:
        """A message tells how things are now, so it is never too late for it."""
        return True

    def _content(self, order: Order) -> str | None:
        patient_id = order.patient_id or order.payload.get("patientId")
        patient = local_views.patient_summary(self._store.db, str(patient_id))
        if patient is None:
            return None
        wanted = order.payload.get("encounterId")
        open_ones: list[Json] = patient.get("encounters", [])
        found = [one for one in open_ones if wanted is None or one.get("id") == wanted]
        return adt(
            self._options.commands[order.type],
            patient,
            found[0] if found else None,
            control_id=_control_id(order),
            occurred_at=datetime.now(UTC),
            now=self._shared.state.now(),
            unit_id=self._shared.unit_id,
            options=self._options,
        )


def _control_id(order: Order) -> str:
    return control_id_of_order(order.id, 1 if order.in_doubt else order.attempt)


def _outcome(code: str, condition: str) -> Done | Declined:
    if code == "AA":
        return Done({"acknowledged": code})
    return Declined(f"hl7_{code.lower()}", {"condition": condition} if condition else None)


def _tls(options: Send) -> ssl.SSLContext | None:
    if not options.tls:
        return None
    context = ssl.create_default_context(cafile=options.authorities)
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.key)
    return context
