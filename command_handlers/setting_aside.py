"""Setting a command aside: poison, and what waits behind it, go to the broker's fallback queue; a receipt says so.

The letter is handed over before the receipt is written: a letter too many is recognised by its receipt, one too few
would be a loss.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from command_handlers.letters import hand_over, letter
from command_handlers.loading import Block, Found
from command_handlers.messages import Item
from command_handlers.writing import Parked, Settled
from contracts.dead_letter import Reason, letter_id_for
from contracts.envelope import CommandEnvelope, Outcome, Status
from infra.broker.publisher import Publisher
from infra.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_WHY_FAILED = {
    False: "The command could not be handled and waits at the dead-letter desk.",
    True: "An earlier command of the same record waits at the dead-letter desk; this one waits behind it.",
}


class SettingAside:
    """Writes letters; each method returns when the broker has them."""

    def __init__(self, publisher: Publisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics

    async def park(self, item: Item, envelope: CommandEnvelope, block: Block, look: Found, at: datetime) -> Settled:
        """A command that has to wait behind an unresolved letter of its stream."""
        place = Parked(block.stream, block.block_id, opens=False)
        return await self._dead(item, envelope, Reason.PARKED, look, at, place, seq=block.letters)

    async def poison(
        self,
        item: Item,
        envelope: CommandEnvelope,
        reason: Reason,
        look: Found,
        at: datetime,
        stream: str | None,
    ) -> Settled:
        """A command that cannot be handled; from now on its stream is held, if it got far enough to have one."""
        self._metrics.dead_letters.labels(reason=reason.value, origin="commands").inc()
        if stream is None or envelope.replay:
            # A replayed letter has its place in its block already.
            return await self._dead(item, envelope, reason, look, at, None, seq=0)
        if (block := look.blocks.get((item.partition, stream))) is not None:
            return await self.park(item, envelope, block, look, at)
        place = Parked(stream, letter_id_for(envelope.command_id), opens=True)
        return await self._dead(item, envelope, reason, look, at, place, seq=0)

    async def _dead(
        self,
        item: Item,
        envelope: CommandEnvelope,
        reason: Reason,
        look: Found,
        at: datetime,
        parked: Parked | None,
        *,
        seq: int,
    ) -> Settled:
        dead = letter(
            item.message.body,
            command_id=envelope.command_id,
            command_type=envelope.type,
            reason=reason,
            partition=item.partition,
            at=at,
            bug=item.bug,
            stream=parked.stream if parked else None,
            block_id=parked.block_id if parked else None,
            seq=seq,
        )
        await hand_over(self._publisher, dead)
        log.warning("command.dead_lettered", command_id=str(envelope.command_id), reason=reason.value)
        if parked is not None:
            look.blocks[item.partition, parked.stream] = Block(item.partition, parked.stream, parked.block_id, seq + 1)
        outcome = Outcome(
            command_id=envelope.command_id,
            type=envelope.type,
            unit_id=envelope.unit_id,
            status=Status.FAILED,
            code="parked" if reason is Reason.PARKED else "poison",
            detail=_WHY_FAILED[reason is Reason.PARKED],
            partition=item.partition,
            dead_letter_id=dead.letter_id,
        )
        return Settled(envelope, outcome, parked=parked)

    async def bury(self, item: Item, reason: Reason, at: datetime) -> None:
        """A message that cannot even be answered from here: the desk gets it as it is."""
        self._metrics.dead_letters.labels(reason=reason.value, origin="commands").inc()
        known = item.envelope
        dead = letter(
            item.message.body,
            command_id=known.command_id if known else None,
            command_type=known.type if known else None,
            reason=reason,
            partition=item.partition,
            at=at,
            bug=item.bug,
        )
        await hand_over(self._publisher, dead)
        log.warning("message.dead_lettered", partition=item.partition, reason=reason.value)
