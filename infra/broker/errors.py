"""What can go wrong between a process and the broker, in words its callers can act on.

Reasons are short codes fit for a metric label; nothing of a message's content ever stands in one.
"""

from __future__ import annotations


class BrokerUnavailable(Exception):
    """The broker did not take the message, or did not say so in time. It may still have been delivered: repeat it under
    the same id.

    `reason`: not_connected · access_refused · blocked · full · lost · no_confirm · rejected · timeout · locked ·
    mismatch.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"broker unavailable: {reason}")
        self.reason = reason


class ReplyLost(BrokerUnavailable):
    """The reply queue went away while a caller waited: the answer will not come here, look in the receipts."""


class Unroutable(Exception):
    """No queue is bound for this routing key, so the broker gave the message back. It was not delivered."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(f"unroutable: {exchange} {routing_key}")
        self.exchange = exchange
        self.routing_key = routing_key


class ConsumerRefused(Exception):
    """The broker refuses this consumer for now: `exclusive` (another consumer holds the queue) or `missing` (no such
    queue).
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"consumer refused on {queue}: {reason}")
        self.queue = queue
        self.reason = reason


class ConsumerLost(Exception):
    """This consumer is over; everything it had not acknowledged goes back to the queue.

    `reason`: given_back · cancelled (by the broker) · channel_closed · connection_lost.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"consumer lost on {queue}: {reason}")
        self.queue = queue
        self.reason = reason
