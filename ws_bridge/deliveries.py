"""What the inbox brings: batches of facts, news of other sessions, live calls. Each goes to its unit's link if any.

Runs for every message on the event loop: quick, and no message can hurt more than its own unit.
"""

from __future__ import annotations

from typing import Final

import structlog
from pydantic import Field, ValidationError

from contracts.envelope import FeedBatch
from contracts.ids import UnitId
from contracts.live_call import CallOff
from contracts.model import Model
from infra.broker.consumer import Delivery
from ws_bridge.catch_up import CatchUp
from ws_bridge.links import Links
from ws_bridge.live_calls import LiveCalls

_FEED: Final = "feed"
_SESSION: Final = "session"
_CALL: Final = "call"
_CALL_OFF: Final = "call-off"

log = structlog.get_logger()


class SessionTaken(Model):
    """A bridge has opened a session: older ones of the unit end."""

    unit_id: UnitId
    epoch: int = Field(ge=1)
    bridge: str


class Deliveries:
    """Hands messages on."""

    def __init__(self, links: Links, catch_up: CatchUp, calls: LiveCalls) -> None:
        self._links = links
        self._catch_up = catch_up
        self._calls = calls

    def arrived(self, delivery: Delivery) -> None:
        """One message of the inbox."""
        _, unit_id, subject, *_ = [*delivery.routing_key.split("."), "", ""]
        try:
            if subject == _FEED:
                self._batch(FeedBatch.model_validate_json(delivery.body))
            elif subject == _SESSION:
                taken = SessionTaken.model_validate_json(delivery.body)
                self._links.superseded(taken.unit_id, taken.epoch)
            elif subject == _CALL:
                link = self._links.of(unit_id)
                if link is not None:
                    self._calls.forward(link, delivery.body, delivery.properties.reply_to)
            elif subject == _CALL_OFF:
                self._calls.call_off(CallOff.model_validate_json(delivery.body).call_id)
        except ValidationError:
            # Not ours, or of a newer release: facts are in the log all the same, and a sweep finds them.
            log.error("message_not_understood", unit_id=unit_id, type=subject)

    def resumed(self, unit_id: str) -> None:
        """The unit's link was not spoken to for a while, and may be again: what it missed is read from the log."""
        link = self._links.of(unit_id)
        if link is not None:
            self._catch_up.push(link)

    def _batch(self, batch: FeedBatch) -> None:
        for link in self._links.listening(batch.unit_id):
            link.deliver(batch.after, batch.through, batch.facts)
            self._catch_up.push(link)
