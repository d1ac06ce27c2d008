"""Answers to callers who wait: one exclusive queue per gateway, one future per command.

The box never leaks: an expectation lives as long as its `with` block. When the connection is lost the queue is gone
with it, and whoever waits hears ReplyLost at once: the receipts know the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from infra.broker.connection import BrokerConnection
from infra.broker.consumer import Delivery, consume
from infra.broker.errors import BrokerUnavailable, ReplyLost
from infra.broker.private_queue import declare_private
from infra.broker.reconnect import Reconnecting


def packed(answers: Iterable[tuple[str, bytes]]) -> bytes:
    """Several answers `(command id, JSON)` to one gateway as one message, which then has no correlation id."""
    return b"\n".join(b"%b %b" % (name.encode(), body) for name, body in answers)


def unpacked(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What `packed` put together. JSON has no line breaks outside its strings, and there they are escaped."""
    for line in body.split(b"\n"):
        name, _, answer = line.partition(b" ")
        yield name.decode("ascii", "replace"), answer


class ReplyBox(Reconnecting):
    """The reply queue `replies.<instance>` and who waits for what."""

    def __init__(self, url: str, *, instance: str) -> None:
        super().__init__(url, name=f"replies.{instance}")
        self._base = f"replies.{instance}"
        self._queue: str | None = None
        self._expected: dict[str, list[asyncio.Future[bytes]]] = {}

    @property
    def queue(self) -> str | None:
        """What to put in `reply_to`; None while the broker is away. Ask each time: it may change on reconnecting."""
        return self._queue

    @property
    def waiting(self) -> int:
        """Commands somebody waits for."""
        return len(self._expected)

    @contextmanager
    def expect(self, command_id: str) -> Iterator[asyncio.Future[bytes]]:
        """A future for the body of the answer to `command_id`; enter before publishing, await with a deadline.

        `with box.expect(id) as answer: await publish(...); await asyncio.wait_for(answer, 5)`. The future raises
        ReplyLost when the answer can no longer come here. Several callers may wait for one command.
        """
        if self._queue is None:
            raise BrokerUnavailable("not_connected")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(command_id, []).append(future)
        try:
            yield future
        finally:
            waiters = self._expected.get(command_id, [])
            if future in waiters:
                waiters.remove(future)
            if not waiters:
                self._expected.pop(command_id, None)
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain of an answer nobody awaited

    async def _serve(self, connection: BrokerConnection) -> None:
        queue = await declare_private(connection, self._base)
        consumer = await consume(
            connection, queue, prefetch=0, exclusive=False, no_ack=True, on_delivery=self._answered
        )
        self._queue = queue
        self._up.set()
        try:
            await consumer.until_lost()
        finally:
            self._queue = None
            self._up.clear()
            self._give_up()

    def _answered(self, delivery: Delivery) -> None:
        command_id = delivery.properties.correlation_id
        answers = [(command_id, delivery.body)] if command_id is not None else unpacked(delivery.body)
        for name, body in answers:
            for future in self._expected.get(name, ()):
                if not future.done():
                    future.set_result(body)

    def _give_up(self) -> None:
        for futures in self._expected.values():
            for future in futures:
                if not future.done():
                    future.set_exception(ReplyLost("lost"))
